#!/usr/bin/python3
"""The wire is written down three times: in the table of the code, in CDDL, in the manual.
This checks that all three say the same: each message, its type and limit, each key with
its name, kind, bound and presence; also the phases, and the example's bytes."""
import os
import re
import sys

sys.dont_write_bytecode = True  # the source tree may not be writable
import msgdef  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FIRST_RECORD = 128  # from here on: records on disk, never on the wire


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as f:
        return f.read()


def entry(m, fields):
    """One line for the message and one for each field: what is compared."""
    return [f'{m[0]} is type {m[1]}, at most {m[2]} bytes'] + [
        f"{m[0]}: key {f.key} is {f.name}, {f.kind}{f' to {f.max}' if f.max else ''}, "
        f"{'required' if f.required else 'optional'}" for f in fields]


def fixed_bound(kind, bound):
    """The bound of kinds that have one size only is not said everywhere."""
    return 0 if kind in ('bool', 'uuid', 'fprint') else bound


def from_table():
    lines = []
    for m in msgdef.load(os.path.join(ROOT, 'src/proto/msg.def')):
        if m.type < FIRST_RECORD:
            fields = [f._replace(max=fixed_bound(f.kind, f.max)) for f in m.fields]
            lines += entry((m.name, m.type, m.limit), fields)
    return lines


CDDL_KINDS = [(re.compile(p), kind) for p, kind in (
    (r'uuid', 'uuid'), (r'fingerprint|sha256', 'fprint'), (r'bool', 'bool'), (r'uint', 'uint'),
    (r'0\.\.(\d+)', 'uint'), (r'tstr \.size \(0\.\.(\d+)\)', 'text'),
    (r'bstr \.size \(0\.\.(\d+)\)', 'bytes'), (r'\[0\*(\d+) uint\]', 'uints'),
    (r'\[0\*(\d+) tstr\]', 'texts'))]


def cddl_field(line):
    m = re.fullmatch(r'\t(\? )?(\d+): (.+?), +; ([\w-]+)', line)
    if not m:
        raise SystemExit(f'wire.cddl: not understood: {line!r}')
    for pattern, kind in CDDL_KINDS:
        if k := pattern.fullmatch(m[3]):
            bound = int(k[1]) if k.groups() else 0
            return msgdef.Field(int(m[2]), kind, m[4], not m[1], bound)
    raise SystemExit(f'wire.cddl: unknown type: {m[3]}')


def from_cddl():
    text = read('src/proto/wire.cddl')
    for rule in ('uuid = bstr .size 16 ', 'fingerprint = bstr .size 32 ', 'later = (uint => any) '):
        if f'\n{rule}' not in text:
            raise SystemExit(f'wire.cddl: no rule "{rule.strip()}"')
    context = [cddl_field(line) for line in re.search(r'\ncontext = \(\n(.*?)\n\)', text, re.S)[1].splitlines()]
    lines = []
    message = r'\n\$message /= (\w+)\n(\w+) = \[(\d+), \{ ; at most (\d+) bytes\n(.*?)\t\* later\n\}\]'
    for socket, name, number, limit, body in re.findall(message, text, re.S):
        if socket != name:
            raise SystemExit(f'wire.cddl: {socket} is not {name}')
        fields = []
        for line in body.splitlines():
            fields += context if line == '\tcontext,' else [cddl_field(line)]
        lines += entry((name, int(number), int(limit)), fields)
    if text.count('$message') != text.count('$message /=') + 1:
        raise SystemExit('wire.cddl: a message that is not understood')
    return lines


MANUAL_KINDS = [(re.compile(p), kind) for p, kind in (
    (r'number(?: to (\d+))?', 'uint'), (r'bool', 'bool'), (r'text to (\d+) bytes', 'text'),
    (r'bytes to (\d+)', 'bytes'), (r'uuid', 'uuid'), (r'32 bytes', 'fprint'),
    (r'numbers to (\d+) of them', 'uints'), (r'texts to (\d+) of them', 'texts'))]


def manual_field(row):
    key, name, words, presence = row.split(' Ta ')
    if presence not in ('required', 'optional'):
        raise SystemExit(f'handoff-protocol.7: {row}')
    for pattern, kind in MANUAL_KINDS:
        if k := pattern.fullmatch(words):
            bound = int(k[1]) if k.groups() and k[1] else 0
            return msgdef.Field(int(key), kind, name, presence == 'required', bound)
    raise SystemExit(f'handoff-protocol.7: unknown type: {words}')


def from_manual():
    text = read('man/handoff-protocol.7')
    lines = []
    for name, number, body in re.findall(r'^\.Ss (\w+) \((\d+)\)\n(.*?)(?=^\.S[sh])', text, re.S | re.M):
        limit = int(re.search(r'; at most (\d+) bytes\.', body)[1])
        fields = [manual_field(row) for row in re.findall(r'^\.It (\d.*)$', body, re.M)]
        lines += entry((name, int(number), limit), fields)
    return lines


def phases():
    """The numbers of the phases: in the code and in the manual."""
    states = re.search(r'#define D_STATES\(X\)(.*?)\n\n', read('src/proto/daemon.h'), re.S)[1]
    code = list(enumerate(re.findall(r'X\(\w+, *"([\w-]+)"\)', states)))
    section = re.search(r'^\.Ss Phases\n(.*?)^\.S[sh]', read('man/handoff-protocol.7'), re.S | re.M)[1]
    manual = [(int(n), name) for n, name in re.findall(r'^\.It (\d+) Ta ([\w-]+)', section, re.M)]
    line = '{0[0]} is phase {0[1]}'.format
    return [line(p) for p in code], [line(p) for p in manual]


def example():
    """The frames of the manual's example, and those of the vectors for one handoff."""
    text = read('man/handoff-protocol.7')
    shown = re.search(r'^\.Bd -literal\n(.*?)^\.Ed', text, re.S | re.M)[1]
    frames = re.split(r'^ *\d+ .*: \w+$', shown, flags=re.M)[1:]
    vectors = read('tests/wire/vectors.txt').split('\n\n')
    told = [''.join(re.findall(r'^  hex (.*)$', v, re.M)) for v in vectors if re.match(r'good \d+ \w+ to \w', v)]
    return [''.join(f.split()) for f in told], [''.join(f.split()) for f in frames]


def compare(what, told, other, found):
    for line in told:
        if line not in found:
            print(f'{other} does not say: {line}')
    for line in found:
        if line not in told:
            print(f'{other} says, and {what} does not: {line}')
    if told != found and set(told) == set(found):
        print(f'{other}: another order than in {what}')
    return told == found


def main():
    table = from_table()
    right = compare('msg.def', table, 'wire.cddl', from_cddl())
    right &= compare('msg.def', table, 'handoff-protocol.7', from_manual())
    told, manual = phases()
    right &= compare('daemon.h', told, 'handoff-protocol.7', manual)
    told_frames, shown = example()
    right &= compare('vectors.txt', told_frames, 'handoff-protocol.7', shown)
    print(f'wire: {len(table)} lines of the table, {len(told)} phases, {len(shown)} frames of the example')
    # a check that has lost its input must not pass
    return 0 if right and len(table) > 100 and len(told) > 10 and len(shown) >= 13 else 1


if __name__ == '__main__':
    sys.exit(main())
