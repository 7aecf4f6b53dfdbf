#!/usr/bin/python3
"""Where fuzzing begins: golden vectors and example configurations, as files OUT/TARGET/NAME."""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = sys.argv[1]
TARGETS = ('msg', 'cbor', 'super', 'daemon', 'conf', 'record', 'library', 'handoffd', 'ctl',
           'systemd', 'proc', 'exporter')


def put(target, name, data):
    with open(os.path.join(OUT, target, name), 'wb') as f:
        f.write(data)


def text(path):
    with open(os.path.join(HERE, path), encoding='utf-8') as f:
        return f.read()


def vectors():
    """Items without their header, and with it."""
    for n, part in enumerate(text('../wire/vectors.txt').split('\n\n')):
        frame = bytes.fromhex(''.join(re.findall(r'^  hex (.*)$', part, re.M)))
        if len(frame) > 6:
            yield n, frame


def short(data):
    """As feed_bytes() reads it."""
    return bytes([len(data)]) + data


def wire():
    for n, frame in vectors():
        item = frame[6:]
        put('msg', f'vector-{n:03}', item)
        if len(item) > 400:
            continue
        put('cbor', f'vector-{n:03}', item)
        if item[1:2] == b'\x18' and len(item) < 255:   # operators' messages
            for command in (0, 1, 9):
                put('ctl', f'vector-{n:03}-{command}', bytes([command, 1, 2]) + short(item))
        if len(item) < 255 and item[1:3] in (b'\x18\x80', b'\x18\x82'):
            for how in (0, 1):
                put('record', f'vector-{n:03}-{how}', bytes([how, 7]) + short(item) + b'\0\0')


def files():
    for folder in ('good', 'bad'):
        for name in sorted(os.listdir(os.path.join(HERE, '../conf', folder))):
            put('conf', f'{folder}-{name}', text(f'../conf/{folder}/{name}').encode())
    put('proc', 'stat', b'1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 77 1 2\n')
    put('proc', 'cgroup', b'12:cpu:/\n0::/system.slice/handoff@kvd.service\n')
    put('proc', 'locks', b'1: FLOCK  ADVISORY  WRITE 1 fe:00:1234 0 EOF\n' * 60)
    put('proc', 'environ', b'A=b\0HANDOFF_DIR=/run/handoff/kvd\0')
    put('proc', 'children', b'17 18 4194304 ')
    put('systemd', 'store', b'\1' + short(b'@notify') + b'\1' + short(b'8:12345') +
        b'\1' + short(b'a.12345:b.1') + b'\1' + short(b'2') + b'\0\1')


def machines():
    # a handoff without a fault: what happens in pairs (whose event, which one)
    put('super', 'committed', bytes([0x0c, 1, 0, 2, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 1,
                                     0, 1, 0, 0, 1, 0, 2, 1, 8]))
    put('super', 'restarted', bytes([0x1e, 0, 3, 2, 7, 1, 8]))
    put('daemon', 'moved', bytes([0, 0, 1, 0, 0, 33, 1, 0, 1, 1, 0, 4, 0, 1, 0, 1, 2, 0, 2, 1, 3, 0, 4]))
    put('library', 'successor', bytes([1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 25, 1, 1, 9, 1, 0, 1, 2, 0, 32,
                                       0, 1, 9]))
    for how in range(8):
        put('exporter', f'made-up-{how}', bytes([how]) + short(b'kvd') + b'\7')
    put('handoffd', 'upgrade', bytes([1, 4, 0, 0] + [0, 1, 0] + [0, 1, 1] + [0, 0, 2] + [0, 0, 3] +
                                     [0, 1, 4] + [0, 1, 5] + [0, 24]))
    put('handoffd', 'operators', bytes([1, 4, 1, 2, 4, 2, 5, 4, 1, 3, 4, 0, 4, 6, 3]))
    put('handoffd', 'registers', bytes([1, 0, 20, 0, 28, 25, 6, 0]))


for target in TARGETS:
    os.makedirs(os.path.join(OUT, target), exist_ok=True)
wire()
files()
machines()
