#!/usr/bin/python3
"""Holds the golden vectors against a foreign decoder (python3-cbor2) and the table of
messages: good ones mean what they say and are encoded as the same bytes; bad ones are bad
by the rules of the protocol, judged without the project's codec."""
import io
import json
import os
import sys
import uuid

sys.dont_write_bytecode = True  # the source tree may not be writable
import msgdef  # noqa: E402

try:
    import cbor2
except ImportError:
    print('skipped: python3-cbor2 is not installed')
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
MAX_DEPTH = 4
FRAME_MAX = 1 << 20


class Bad(Exception):
    """The frame breaks a rule."""


def require(condition, words):
    if not condition:
        raise Bad(words)


def header(frame):
    """The item of a frame whose length and version are right."""
    length = int.from_bytes(frame[:4], 'little')
    require(3 <= length <= FRAME_MAX, 'length')
    require(length == len(frame) - 4, 'length and bytes')
    require(int.from_bytes(frame[4:6], 'little') == 1, 'version')
    return frame[6:]


def well_formed(item):
    """Decodes one item that is deterministically encoded and ends where the bytes end."""
    stream = io.BytesIO(item)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except Exception as e:  # cbor2 raises what it likes: EOFError, MemoryError, ...
        raise Bad(f'not decoded: {type(e).__name__}') from e
    require(stream.tell() == len(item), 'trailing bytes')
    try:
        again = cbor2.dumps(value, canonical=True)
    except Exception as e:
        raise Bad(f'not encoded again: {type(e).__name__}') from e
    require(again == item, 'not deterministic')
    return value


def plain(value, depth=MAX_DEPTH):
    """What the value of an unknown key may be."""
    if isinstance(value, (list, dict)):
        require(depth > 0, 'nested too deep')
        for v in value:
            plain(v, depth - 1)
        for v in value.values() if isinstance(value, dict) else ():
            plain(v, depth - 1)
    else:
        require(isinstance(value, (bool, int, str, bytes)), 'a tag, a float or a simple value')


def number(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def check_field(f, value):
    if f.kind == 'uint':
        require(number(value) and (not f.max or value <= f.max), f.name)
    elif f.kind == 'bool':
        require(isinstance(value, bool), f.name)
    elif f.kind == 'text':
        require(isinstance(value, str) and len(value.encode()) <= f.max, f.name)
    elif f.kind == 'bytes':
        require(isinstance(value, bytes) and len(value) <= f.max, f.name)
    elif f.kind in ('uuid', 'fprint'):
        require(isinstance(value, bytes) and len(value) == (16 if f.kind == 'uuid' else 32), f.name)
    elif f.kind == 'uints':
        require(isinstance(value, list) and len(value) <= f.max and all(map(number, value)), f.name)
    elif f.kind == 'texts':
        require(isinstance(value, list) and len(value) <= f.max, f.name)
        require(all(isinstance(v, str) for v in value), f.name)
    else:
        raise SystemExit(f'{f.name}: a kind this check does not know: {f.kind}')


def judge(item, messages):
    """The message, its fields by name, and how many unknown keys it has. Or Bad."""
    value = well_formed(item)
    require(isinstance(value, list) and len(value) == 2 and number(value[0]), 'not a message')
    message = messages.get(value[0])
    require(message, 'unknown type')
    require(len(item) <= message.limit, 'too long for its type')
    require(isinstance(value[1], dict), 'no map')
    keys = list(value[1])
    require(all(map(number, keys)), 'keys are numbers')
    require(all(a < b for a, b in zip(keys, keys[1:])), 'keys ascend')
    fields = {f.key: f for f in message.fields}
    known = {}
    for key, v in value[1].items():
        if key in fields:
            check_field(fields[key], v)
            known[fields[key].name] = v
        else:
            plain(v)
    for f in message.fields:
        require(not f.required or f.name in known, f'{f.name} is missing')
    return message, known, len(keys) - len(known)


def stated(message, lines):
    """The fields as the vector states them, in Python's types."""
    kinds = {f.name: f.kind for f in message.fields}
    result = {}
    for line in lines:
        name, text = line.split(' ', 1)
        if kinds[name] == 'uuid':
            result[name] = uuid.UUID(text).bytes
        elif text.startswith("h'"):
            result[name] = bytes.fromhex(text[2:-1])
        else:
            result[name] = json.loads(text)
    return result


def encode(message, fields):
    keys = {f.name: f.key for f in message.fields}
    return cbor2.dumps([message.type, {keys[n]: v for n, v in fields.items()}], canonical=True)


def load(path):
    """(line, kind, title, frame, other lines) for each vector."""
    with open(path, encoding='utf-8') as f:
        blocks, block = [], []
        for i, line in enumerate(f, 1):
            if line.startswith('#'):
                continue
            if line.strip():
                block.append((i, line.rstrip('\n')))
            elif block:
                blocks.append(block)
                block = []
        if block:
            blocks.append(block)
    for block in blocks:
        kind, title = block[0][1].split(' ', 1)
        body = [text[2:] for _, text in block[1:]]
        frame = bytes.fromhex(''.join(b[4:] for b in body if b.startswith('hex ')))
        yield block[0][0], kind, title, frame, [b for b in body if not b.startswith('hex ')]


def check(kind, frame, lines, messages):
    """None, or what is wrong with the vector."""
    try:
        message, known, unknown = judge(header(frame), messages)
    except Bad as e:
        return None if kind == 'bad' else f'refused: {e}'
    if kind == 'bad':
        return 'this check finds nothing wrong with it'
    want = stated(message, lines[1:])
    if lines[0] != f'is {message.name}' or known != want:
        return f'means {message.name} {known}'
    if any(type(known[n]) is not type(want[n]) for n in want):
        return 'a type differs'
    again = encode(message, want)
    if kind == 'good' and (unknown or again != frame[6:]):
        return f'encodes as {again.hex()}'
    if kind == 'read' and not unknown:
        return 'has no unknown key'
    return None


def main():
    root = os.path.dirname(os.path.dirname(HERE))
    messages = {m.type: m for m in msgdef.load(os.path.join(root, 'src/proto/msg.def'))}
    failed, count = 0, {'good': 0, 'read': 0, 'bad': 0}
    for line, kind, title, frame, lines in load(os.path.join(HERE, 'vectors.txt')):
        count[kind] += 1
        wrong = check(kind, frame, lines, messages)
        if wrong:
            failed += 1
            print(f'vectors.txt:{line}: {kind}: {title}: {wrong}')
    print(f"vectors: {count['good']} good, {count['read']} read, {count['bad']} bad; {failed} wrong")
    # a check that has lost its input must not pass
    return 1 if failed or count['good'] < 70 or count['read'] < 15 or count['bad'] < 250 else 0


if __name__ == '__main__':
    sys.exit(main())
