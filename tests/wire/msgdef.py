"""Reads src/proto/msg.def, the one table of the wire, for the checks beside this file."""
import re
from collections import namedtuple

Message = namedtuple('Message', 'ident type name limit fields')
Field = namedtuple('Field', 'key kind name required max')

MSG = re.compile(r'MSG\((\w+), (\d+), "(\w+)", (\d+)\)')
FIELD = re.compile(r'F\((\w+), (\d+), (\w+), \w+, (REQ|OPT), (\w+), "([\w-]+)"\)')


def field(match):
    _, key, kind, need, limit, name = match.groups()
    return Field(int(key), kind, name, need == 'REQ', int(limit, 0))


def load(path):
    """All messages, in the order of the table. A line that is not understood is an error."""
    with open(path, encoding='utf-8') as f:
        text = re.sub(r'/\*.*?\*/', '', f.read(), flags=re.S)
    text = text.replace('\\\n', '')
    context = [field(m) for m in FIELD.finditer(re.search(r'#define F_CONTEXT\(m\)(.*)', text).group(1))]
    messages, current = [], None
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith('#'):
            continue
        if m := MSG.fullmatch(line):
            current = Message(m[1], int(m[2]), m[3], int(m[4]), [])
        elif (m := FIELD.fullmatch(line)) and m[1] == current.ident:
            current.fields.append(field(m))
        elif line == f'F_CONTEXT({current.ident})':
            current.fields.extend(context)
        elif line == f'END({current.ident})':
            messages.append(current)
        else:
            raise SystemExit(f'{path}: not understood: {line}')
    return messages
