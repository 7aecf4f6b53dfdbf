#!/usr/bin/python3
"""The documents say what the code does, all of it, and nothing else.

Options, defaults, units, bounds, commands, exit codes, variables and exported symbols are
compared in both directions, each with the table that the code itself uses. Every example
of handoff.conf(5) is read by handoffd; README's commands and code are looked up.
Prints TAP. Runs in the build directory, or with $BUILD_DIR."""
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import library  # noqa: E402
import messages  # noqa: E402
from manual import (BUILD, MANUAL, ROOT, TESTS, files, items, page, plain, read, run, same,  # noqa: E402
                    section, test, variables)

# ---- the code

def numbers_of(source, name):
    m = re.search(rf'#define {name}\s+\(?(\w+)', source)
    return int(m[1].rstrip('u'), 0)


KINDS = {'STRING': 'text', 'PATH': 'path', 'LIST': 'list', 'NUMBER': 'number', 'OCTAL': 'mode',
         'BOOL': 'boolean', 'DURATION': 'duration', 'LIMIT': 'limit', 'ADDRESS': 'address'}


def timer_rows():
    """name: default, least; as one writes them."""
    def text(ms):
        for unit, size in (('h', 3600000), ('min', 60000), ('s', 1000), ('ms', 1)):
            if ms and ms % size == 0:
                return f'{ms // size}{unit}'
        return '0'
    rows = re.findall(r'^\tT\(\w+, *"([\w-]+)", +(\d+), +(\d+), ', read('src/proto/timers.h'), re.M)
    return {name: (text(int(d)), text(int(least))) for name, d, least in rows}


def option_rows():
    """What conf_options.c has, as (name, kind, default, least, most)."""
    source = read('src/handoffd/conf_options.c').replace('INT_MAX', '2147483647')
    tables = re.findall(r'conf(?:_listen)?_options\[\] = \{\n(.*?)\n\};', source, re.S)
    rows = []
    for table in tables:
        for name, kind, default, rest in re.findall(
                r'\{ "([\w-]+)", CONF_(\w+), ("[^"]*"|NULL), (.*?) \}', table, re.S):
            least, most = (re.search(rf'\.{m} = (-?\w+)', rest) for m in ('min', 'max'))
            bounds = (least[1] if least else '0', most[1]) if kind == 'NUMBER' else None
            rows.append((name, KINDS[kind], None if default == 'NULL' else default[1:-1], bounds))
        rows += [('limit-' + n, 'limit', None, None) for n in re.findall(r'LIMIT\("(\w+)"', table)]
        if 'TIMERS(T)' in table:
            rows += [(n, 'duration', d, (least, None)) for n, (d, least) in timer_rows().items()]
    return rows


def describe(name, kind, default, bounds):
    words = f'{name} is a {kind}, ' + (f'{default} by default' if default else 'without default')
    if bounds and bounds[1] is None:
        return words + f', at least {bounds[0]}'
    return words + (f', from {bounds[0]} to {bounds[1]}' if bounds else '')


def manual_options():
    """The same, as handoff.conf(5) has it."""
    rows = []
    entries = re.findall(r'^\.It Ic (\S+) Cm = Ar (\w+)\n(.*?)(?=^\.It Ic|^\.S[hs] )',
                         page('handoff.conf.5'), re.S | re.M)
    for name, kind, text in entries:
        default = re.search(r'^Default:\n\.Li (\S+)', text, re.M)
        span = re.search(r'from\n\.Li (\S+)\nto\n\.Li (\S+)', text)
        least = re.search(r'at least\n\.Li (\S+)', text)
        if not (default or re.search(r'^(No default|Required)\b', text, re.M)):
            raise KeyError(f'{name}: neither "Default:" nor "No default" nor "Required"')
        bounds = (span[1], span[2]) if span and kind == 'number' else None
        rows.append((name, kind, default and default[1], (least[1], None) if least else bounds))
    return rows


@test
def options_of_the_configuration():
    return same([describe(*r) for r in option_rows()], [describe(*r) for r in manual_options()],
                'conf_options.c', 'handoff.conf.5', 35)


@test
def units_and_kinds():
    text = page('handoff.conf.5')
    units = re.findall(r'\{ "(\w+)", \d+ \}', read('src/proto/timers.c'))
    told = re.search(r'A whole number and its unit:\n\.Cm ([\w ,]+)\nor\n\.Cm (\w+)', text)
    words = re.findall(r'\{ "(\w+)", (?:true|false) \}', read('src/handoffd/conf_value.c'))
    said = re.search(r'^\.It Ar boolean\n\.Cm (.*)\nor\n\.Cm (\w+) ;\n\.Cm (.*)\nor\n\.Cm (\w+)', text, re.M)
    wrong = same(units, re.findall(r'\w+', ' '.join(told.groups())), 'timers.c', 'handoff.conf.5', 4)
    wrong += same(words, re.findall(r'\w+', ' '.join(said.groups())), 'conf_value.c', 'handoff.conf.5', 6)
    return wrong + same(KINDS.values(), items(section(text, 'DESCRIPTION'), 'Ar'), 'conf_options.h',
                        'handoff.conf.5', 9)


@test
def order_of_the_timers():
    """Each pair that timers_check compares stands in the manual's list."""
    source = re.search(r'enum timer timers_check\(.*?\n\}', read('src/proto/timers.c'), re.S)[0]
    ids = dict(re.findall(r'^\tT\((\w+), *"([\w-]+)"', read('src/proto/timers.h'), re.M))
    pairs = [' '.join(ids[i] for i in re.findall(r't\[TIMER_(\w+)\]', line))
             for line in re.findall(r'^\tif \((.*)\) \{$', source, re.M)]
    listed = re.search(r'Their order is checked.*?\.El', page('handoff.conf.5'), re.S)[0]
    told = [' '.join(re.findall(r'^\.Ic ([\w-]+)', item, re.M)) for item in listed.split('.It\n')[1:]]
    return same(pairs, told, 'timers.c', 'handoff.conf.5', 3)


@test
def limits_of_the_configuration():
    text = page('handoff.conf.5')
    conf = read('src/handoffd/conf.h')
    wrong = []
    for sentence in (f"and at most {numbers_of(conf, 'CONF_MAX_LISTENERS')}",
                     f"at most {numbers_of(conf, 'CONF_MAX_NAME')} characters"):
        if sentence not in text.replace('\n', ' '):
            wrong.append(f'handoff.conf.5 does not say: {sentence}')
    return wrong


def outcome_of(body):
    """What handoffd says of a configuration."""
    with tempfile.NamedTemporaryFile('w', suffix='.conf') as f:
        f.write(body)
        f.flush()
        code, said = run('handoffd', '-c', f.name, '--check')
    return code, said.replace(f.name, 'FILE')


# what depends on the machine, and no mistake of the example
MACHINE = re.compile(r'no such (user|group|file)|does not exist|No such file|only root may|'
                     r'not found in the daemon|may not (write|make)|Permission denied')


@test
def examples_of_the_configuration_are_read():
    text = page('handoff.conf.5')
    entries = re.findall(r'^\.It Ic (\S+) Cm = .*?^\.Dl (.*?)$', text, re.S | re.M)
    in_listener = set(re.findall(r'\{ "([\w-]+)"', read('src/handoffd/conf_options.c').split(
        'conf_listen_options[]')[1]))
    wrong = []
    for name, example in entries:
        line = plain(example)
        command = '' if name == 'command' else 'command = "/bin/true"\n'
        if name in in_listener:
            address = {'mode': 'unix:/tmp/x', 'v6only': 'tcp:[::1]:1'}.get(name, 'tcp:127.0.0.1:1')
            line = f'listen x {{ {line}' + ('' if name == 'address' else f' address = "{address}"') + ' }'
        code, said = outcome_of(f'service x {{\n{command}{line}\n}}\n')
        if not line.lstrip().startswith(('listen', name)) or (code and not MACHINE.search(said)):
            wrong.append(f'{name}: {line}: {said.strip()}')
    if len(entries) != len(option_rows()):
        wrong.append(f'{len(entries)} examples for {len(option_rows())} options')
    for body in re.findall(r'^\.Bd .*?\n(service .*?)^\.Ed', text, re.S | re.M):
        code, said = outcome_of(body)
        if code and not MACHINE.search(said):
            wrong.append(said.strip())
    return wrong


@test
def diagnostics_are_those_of_the_code():
    """The messages that handoff.conf(5) shows are the ones that the tests expect."""
    shown = re.findall(r'^kvd\.conf:(.*)$', section(page('handoff.conf.5'), 'DIAGNOSTICS'), re.M)
    told = [m for path in files('tests/conf/bad', '.conf') for m in re.findall(r'# expect: (.*)', read(path))]
    return [f'nothing says: {s}' for s in shown if s not in told] or ([] if shown else ['none shown'])


@test
def metrics():
    """Names, types and helps of the table, in the manual's words."""
    rows = re.findall(r'X\("(\w+)", "(\w+)", (?:NULL|"\w+"), \w+,\s*(?:\\\n\s*)?"([^"]*)"\)',
                      read('src/handoffctl/metrics.c'))
    told = re.findall(r'^\.It Li (\w+) Pq (\w+)\n(.*)$', section(page('handoffctl.1'), 'METRICS'), re.M)
    return same([' '.join(r) for r in rows], [' '.join(r) for r in told], 'metrics.c', 'handoffctl.1', 10)


@test
def messages_of_all():
    return messages.wrong(ROOT, page('handoff-messages.7'))


@test
def mistakes_of_a_configuration():
    return messages.wrong_of_mistakes(ROOT)


# ---- handoffd

def getopt_rows(source):
    """long option: its letter, if it has one."""
    letters = re.search(r'getopt_long\(argc, argv, "([\w:]+)"', source)[1]
    return {n: c if c in letters else '' for n, c in re.findall(r"\{ \"([\w-]+)\", \w+, NULL, '(\w)' \}", source)}


def manual_flags(text):
    """The same of `.It Fl c , Fl -config Ar file` lines."""
    rows = {}
    for line in re.findall(r'^\.It Fl (.*)$', text, re.M):
        flags = re.findall(r'(?:^|Fl )(-?[\w-]+)', line)
        name = next(f for f in flags if f.startswith('-'))
        rows[name[1:]] = next((f for f in flags if not f.startswith('-')), '')
    return rows


def flag_lines(rows):
    return [f'--{n}' + (f' is -{c}' if c else ' has no letter') for n, c in rows.items()]


@test
def options_of_handoffd():
    told = flag_lines(getopt_rows(read('src/handoffd/main.c')))
    _, said = run('handoffd', '--help')
    helped = {n: c for c, n in re.findall(r'^ +(?:-(\w), +)?--([\w-]+)', said, re.M)}
    return same(told, flag_lines(manual_flags(page('handoffd.8'))), 'main.c', 'handoffd.8', 5) + \
        same(told, flag_lines(helped), 'main.c', 'handoffd --help', 5)


@test
def options_of_the_exporter():
    told = flag_lines(getopt_rows(read('src/exporter/main.c')))
    _, said = run('handoff-exporter', '--help')
    helped = {n: c for c, n in re.findall(r'^ +(?:-(\w), +)?--([\w-]+)', said, re.M)}
    codes = re.findall(r'(\d) ', said.partition('Exit status:')[2])
    return same(told, flag_lines(manual_flags(page('handoff-exporter.8'))), 'main.c', 'handoff-exporter.8', 4) + \
        same(told, flag_lines(helped), 'main.c', 'handoff-exporter --help', 4) + \
        same(codes, manual_codes('handoff-exporter.8'), 'handoff-exporter --help', 'handoff-exporter.8', 3)


@test
def paths_of_the_exporter():
    rows = re.findall(r'^\t\{ "(/\w+)", (\w+), answer_', read('src/exporter/web.c'), re.M)
    told = [n + tail for n, one in rows for tail in ([''] if one == 'false' else ['', '/NAME'])]
    text = section(page('handoff-exporter.8'), 'HTTP')
    said = [re.sub(r'/ Ns Ar name$', '/NAME', p) for line in re.findall(r'^\.It (Pa /.*)$', text, re.M)
            for p in re.findall(r'Pa (/\S*(?: Ns Ar name)?)', line)]
    return same(told, said, 'web.c', 'handoff-exporter.8', 5)


def manual_codes(name):
    return re.findall(r'^\.It (\d+)$', section(page(name), 'EXIT STATUS'), re.M)


@test
def exit_status_of_handoffd():
    _, said = run('handoffd', '--help')
    told = re.findall(r'(\d) ', said.partition('Exit status:')[2])
    return same(told, manual_codes('handoffd.8'), 'handoffd --help', 'handoffd.8', 3)


def place_variables():
    """Those of the table in dirs.c: (for everybody, for handoffd only)."""
    rows = re.findall(r'static const struct place p = \{(.*?)\};', read('src/handoffd/dirs.c'), re.S)
    names = [re.findall(r'^\t*"([A-Z_]+)",$', row, re.M) for row in rows]
    return {n for row in names for n in row if not n.endswith('_DIRECTORY')}, \
        {n for row in names for n in row if n.endswith('_DIRECTORY')}


def manual_variables(text):
    return items(text, 'Ev')


@test
def environment_of_handoffd():
    everybody, own = place_variables()
    text = section(page('handoffd.8'), 'ENVIRONMENT')
    mine, its = text.split('.Ss Of a daemon')
    told = variables(files('src/handoffd', '.c')) | everybody | own | {'HOME'}
    wrong = same(told, manual_variables(mine), 'src/handoffd', 'handoffd.8', 8)
    spawn = read('src/handoffd/spawn.c')
    wrong += same(re.findall(r'add_own\(p, "(\w+)"', spawn), manual_variables(its), 'spawn.c', 'handoffd.8', 5)
    dropped = re.search(r'not_for_daemons\[\] = \{(.*?)\}', spawn, re.S)[1]
    before = its.partition('.Bl')[0]
    return wrong + same([w.rstrip('*') for w in re.findall(r'"([\w*]+)"', dropped)],
                        re.findall(r'\w+', ' '.join(re.findall(r'^\.Ev (.*)', before, re.M))),
                        'spawn.c', 'handoffd.8', 30)


@test
def files_of_handoffd():
    """What handoffd makes in its directories."""
    sources = ''.join(read(p) for p in files('src/handoffd', '.c'))
    made = re.findall(r'open_in\(\w+, "([\w.]+)"', sources)
    made += re.findall(r'door_open\(.*?"([\w.]+)"', sources)
    made += [f + '/' for f in re.findall(r'lock_dir, "%s/(\w+)"', sources)]
    made += [f + '/' for f in re.findall(r'"%s/(\w+)", state_dir', sources)]
    made += re.findall(r'snprintf\(path, sizeof path, "%s/(\w+)", dir\)', sources)
    text = section(page('handoffd.8'), 'FILES')
    said = [p for p in items(text, 'Pa') if p.rstrip('/').count('/') == 0]
    return same(made, said, 'src/handoffd', 'handoffd.8', 8)


@test
def log_lines_of_handoffd():
    """Each line that handoffd(8) shows can come from a format of the code."""
    sources = ''.join(read(p) for p in files('src/handoffd', '.c'))
    formats = re.findall(r'log_\w+\((?:[^";]*?,\s+)?"((?:[^"\\]|\\.)*)"', sources)
    directive = re.compile(r'%[-+.\d]*(?:ll|l)?\w')
    known = [re.compile('.*'.join(map(re.escape, directive.split(f)))) for f in formats
             if len(directive.sub('', f).strip()) > 2]
    shown = re.findall(r'^\.Bd -literal\n(.*?)^\.Ed', section(page('handoffd.8'), 'DIAGNOSTICS'), re.S | re.M)
    lines = [line for block in shown for line in re.sub(r'\n(?!handoff |pid |the )', ' ', block.strip()).splitlines()]
    return [f'nothing says: {line}' for line in lines if not any(k.fullmatch(line) for k in known)] + \
        ([] if len(lines) > 10 and len(known) > 20 else [f'only {len(lines)} lines, {len(known)} formats'])


@test
def fields_of_the_log():
    """Keys of JSON, fields of the journal, and the events with their ids."""
    text = section(page('handoffd.8'), 'DIAGNOSTICS')
    line = read('src/handoffd/logline.c')
    keys = re.findall(r'add_key\(&l, "(\w+)"', line) + re.findall(r'\\"(time|level|message)\\": ', line)
    fields = re.findall(r'add_field\(&l, "(\w+)"', line)
    said = [w for x in re.findall(r'^\.Li (.*)$', text, re.M) for w in re.findall(r'\w+', x)]
    events = re.findall(r'X\(\w+, +"([\w-]+)", +"(\w+)"\)', read('src/handoffd/log.h'))
    shown = re.findall(r'^\.It ([\w-]+) Ta (\w{32}) Ta', text, re.M)
    return same(keys + fields, said, 'logline.c', 'handoffd.8', 15) + \
        same(events, shown, 'log.h', 'handoffd.8', 7)


# ---- handoffctl

@test
def commands_of_handoffctl():
    told = re.findall(r'^\t\[CTL_\w+\] = \{ "(\w+)"', read('src/handoffctl/commands.c'), re.M)
    _, said = run('handoffctl', '--help')
    helped = re.findall(r'^    (\w+) ', said.partition('Commands:')[2].partition('\n\n')[0], re.M)
    return same(told, items(section(page('handoffctl.1'), 'COMMANDS'), 'Cm'), 'commands.c', 'handoffctl.1', 7) + \
        same(told, helped, 'commands.c', 'handoffctl --help', 7)


def ctl_options():
    rows = re.findall(r"^\t\{ \"([\w-]+)\", (0|'\w'), ", read('src/handoffctl/commands.c'), re.M)
    return {n: c.strip("'0") for n, c in rows}


@test
def options_of_handoffctl():
    return same(flag_lines(ctl_options()), flag_lines(manual_flags(section(page('handoffctl.1'), 'OPTIONS'))),
                'commands.c', 'handoffctl.1', 11)


@test
def exit_status_of_handoffctl():
    told = re.findall(r'X\(\w+, +(\d+), "', read('src/handoffctl/ctl.h'))
    return same(told, manual_codes('handoffctl.1'), 'ctl.h', 'handoffctl.1', 8)


@test
def environment_of_handoffctl():
    # without a terminal's own
    told = variables(files('src/handoffctl', '.c')) - {'TERM'} | place_variables()[0] | {'HOME'}
    return same(told, manual_variables(section(page('handoffctl.1'), 'ENVIRONMENT')),
                'src/handoffctl', 'handoffctl.1', 4)


# values of keys, which the page has as literals too
JSON_VALUES = set('back phase note result error committed aborted rolled refused unchanged unknown under way successor '
                  'incumbent supervisor operator upgrade rollback plan connections bit'.split())


@test
def json_of_handoffctl():
    sources = ''.join(read(p) for p in files('src/handoffctl', '.c'))
    keys = re.findall(r'(?:json_put_\w+|json_object_set_new|PUT_\w+)\(\w+, "(\w+)"', sources)
    words = [w for line in re.findall(r'^\.(?:It )?Li (.*)$', section(page('handoffctl.1'), 'JSON OUTPUT'), re.M)
             for w in re.findall(r'\w+', line) if w != 'It']
    return same(keys, set(words) - (JSON_VALUES - set(keys)), 'src/handoffctl', 'handoffctl.1', 45)


@test
def outcomes_of_json():
    sources = ''.join(read(p) for p in files('src/handoffd', '.c'))
    calls = re.findall(r'(?:ops_answer|ops_refuse|answer_restarts|ops_result|ops_refused)\(.*?;', sources, re.S)
    found = {w for call in calls for w in re.findall(r'"([a-z]+)"', call)} - {'history'}   # of no result
    names = re.search(r'outcome_name\[OUTCOME_COUNT\] = \{(.*?)\};', read('src/proto/super.c'), re.S)[1]
    found |= set(re.findall(r'"([a-z ]+)"', names)) - {'none'}   # not told
    found |= set(re.findall(r'outcome = SPAN\("(\w+)"\)', read('src/handoffctl/follow.c')))
    told = section(page('handoffctl.1'), 'JSON OUTPUT').partition('outcomes of a result:')[2].partition('.El')[0]
    return same(found, re.findall(r'^\.It Ql (.*)$', told, re.M), 'the code', 'handoffctl.1', 11)


@test
def types_of_json():
    """As the manual lists them; and tests/e2e/test_json.py looks at objects with each key."""
    sources = ''.join(read(p) for p in files('src/handoffctl', '.c'))
    kinds = {'json_put_uint': 'number', 'PUT_UINT': 'number', 'json_put_bool': 'boolean'}
    puts = re.findall(r'(json_put_\w+|PUT_\w+)\(\w+, "(\w+)"', sources)
    listed = re.search(r'^The types are:\n(.*?)^\.El', page('handoffctl.1'), re.S | re.M)[1]
    told = {w: item.partition('\n')[0] for item in listed.split('.It ')[1:]
            for line in re.findall(r'^\.Li (.*)$', item, re.M) for w in re.findall(r'\w+', line)}
    seen = set(re.findall(r'\w+', read('tests/e2e/test_json.py')))
    wrong = [f'{k} is a {kinds.get(put, "text")}, handoffctl.1 lists it as {told.get(k, "text")}'
             for put, k in puts if told.get(k, 'text') != kinds.get(put, 'text')]
    wrong += [f'no object of tests/e2e/test_json.py has {k}' for _, k in puts if k not in seen]
    return wrong + ([] if len(puts) > 60 else [f'only {len(puts)} keys found'])


@test
def phases_of_handoffctl():
    states = re.findall(r'X\((\w+), *"([\w-]+)", ', read('src/proto/super.h').partition('enum s_since')[0])
    names = {n for _, n in states}
    listed = re.search(r'^\.It Cm upgrade$.*?^\.El', section(page('handoffctl.1'), 'COMMANDS'), re.S | re.M)[0]
    told = set(items(listed, '(?!Cm)')) | set(re.findall(r'^\.It (\w+)$', listed, re.M))
    more = page('handoffd.8').partition('The phases are those of')[2].partition('.Sh')[0]
    return same(names, told | set(re.findall(r'\.Ql (\w+)', more)), 'super.h', 'handoffctl.1 and handoffd.8', 15)


# ---- all pages

@test
def pages_are_whole():
    listed = re.findall(r'man/[\w.-]+\.\d', read('man/local.mk'))
    wrong = same(MANUAL, listed, 'man/', 'man/local.mk', 4)
    known = {(m[1], m[2]) for m in (re.match(r'man/(.*)\.(\d)', p) for p in MANUAL)}
    ours = re.compile(r'handoff|libhandoff|kvd')
    for path, text in MANUAL.items():
        for name in ('SEE ALSO',) if path in library.OF_FUNCTIONS else ('SEE ALSO', 'EXAMPLES'):
            if f'\n.Sh {name}\n' not in text:
                wrong.append(f'{path} has no {name}')
        for name, number in re.findall(r'^\.Xr (\S+) (\d)', text, re.M):
            if ours.match(name) and (name, number) not in known:
                wrong.append(f'{path} refers to {name}({number}), which is not there')
    return wrong


def macros_off(text):
    """Words as they are read."""
    return ' '.join(re.sub(r'^\.(?:Ql|Em|Pa|Sy) ', '', text, flags=re.M).split()).replace(' ,', ',')


@test
def overview():
    """handoff(7): README's guarantees, the phases of its upgrade, the pages, commands that exist."""
    text, readme = page('handoff.7'), read('README.md')
    listed = re.findall(r'^\d\. (.*?)(?=^\d\. |^$)', section_of('README.md', 'What is guaranteed'), re.S | re.M)
    said = re.search(r'^\.Bl -enum.*?\n(.*?)^\.El', section(text, 'GUARANTEES'), re.S | re.M)[1].split('.It\n')[1:]
    wrong = same([' '.join(re.sub(r'[`*]', '', g).split()) for g in listed], map(macros_off, said),
                 'README.md', 'handoff.7', 8)
    phases = re.findall(r'^(\w+)  +\S', readme.partition('$ handoffctl upgrade')[2].partition('```')[0], re.M)
    wrong += same(phases, items(section(text, 'ONE UPGRADE'), 'Sy'), 'README.md', 'handoff.7', 8)
    pages = {p.removeprefix('man/') for p in MANUAL if p not in library.OF_FUNCTIONS} - {'handoff.7'}
    wrong += same(pages, {'.'.join(x) for x in re.findall(r'^\.It Xr (\S+) (\d)', section(text, 'SEE ALSO'), re.M)},
                  'man/', 'handoff.7', 6)
    wrong += [f'{p} has no handoff(7) in SEE ALSO' for p in pages
              if '.Xr handoff 7' not in section(page(p), 'SEE ALSO')]
    shown = re.findall(r'^\.Bd .*?\n(.*?)^\.Ed', text, re.S | re.M)
    config = next(b for b in shown if b.startswith('service '))
    lines = '\n'.join(shown).splitlines() + re.findall(r'^\.Ql (handoff(?:ctl|d) [^\n]*?)(?: [,;:.])?$', text, re.M)
    commands = [c.split() for line in lines for c in line.split('&&') if re.match(r' *(handoffctl|handoffd|make) ', c)]
    wrong += [f'handoff.7: {" ".join(c)}: {why}' for c in commands if (why := wrong_command(c))]
    code, told = outcome_of(config)
    wrong += [told.strip()] if code and not MACHINE.search(told) else []
    return wrong or ([] if len(commands) > 20 else [f'only {len(commands)} commands found'])


@test
def pages_are_clean():
    mandoc = shutil.which('mandoc')
    if not mandoc:
        return None
    said = subprocess.run([mandoc, '-Tlint', *(os.path.join(ROOT, p) for p in MANUAL)],
                          capture_output=True, text=True, check=False).stdout
    # pages that are not installed, and libraries that are not in its own list
    return [line for line in said.splitlines()
            if 'referenced manual not found' not in line and 'unknown library name' not in line]


# ---- README, ARCHITECTURE, ChangeLog

def section_of(path, heading):
    return re.search(rf'^## {heading}.*?(?=^## |\Z)', read(path), re.S | re.M)[0]


def blocks(path, language):
    return re.findall(rf'^```{language}\n(.*?)^```', read(path), re.S | re.M)


def make_targets():
    text = read('Makefile.am') + ''.join(read(p) for p in files('', 'local.mk'))
    return set(re.findall(r'^([\w-]+):', text, re.M)) | {'', 'check', 'install', 'uninstall', 'distcheck', 'all'}


def wrong_command(words):
    """Why a command of a document does not exist, or None."""
    program, rest = words[0], words[1:]
    if program == 'sh' and not os.path.exists(os.path.join(ROOT, rest[0])):
        return 'no such script'
    if program == 'make' and not (rest[0] if rest else '') in make_targets():
        return 'no such target'
    flags = {w.partition('=')[0] for w in rest if re.match(r'--?\w', w)}
    if program == 'handoffctl':
        operands = [w for w in rest if not w.startswith('-')]
        known = {f'--{n}' for n in ctl_options()} | {f'-{c}' for c in ctl_options().values() if c}
        if operands[0] not in re.findall(r'\] = \{ "(\w+)"', read('src/handoffctl/commands.c')):
            return 'no such command'
        return f'no such option: {flags - known}' if flags - known else None
    if program == 'handoffd':
        rows = getopt_rows(read('src/handoffd/main.c'))
        known = {f'--{n}' for n in rows} | {f'-{c}' for c in rows.values() if c}
        return f'no such option: {flags - known}' if flags - known else None
    if program.endswith('./configure'):
        known = set(re.findall(r'AC_ARG_ENABLE\(\[(\w+)\]', read('configure.ac')))
        unknown = [f for f in flags if f.startswith('--enable-') and f[9:] not in known]
        return f'no such option: {unknown}' if unknown else None
    return None


@test
def commands_of_the_readme():
    wrong, n = [], 0
    for path in ('README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md'):
        text = read(path)
        shown = '\n'.join(blocks(path, 'sh')) + '\n' + '\n'.join(re.findall(r'`([^`\n]+)`', text))
        for line in shown.splitlines():
            for command in re.split(r'&&|;|\|', line.split(' #')[0]):
                words = command.split()
                if len(words) > 1 and words[0] in ('sh', 'make', 'handoffctl', 'handoffd', './configure',
                                                   '../configure'):
                    n += 1
                    why = wrong_command(words)
                    wrong += [f'{path}: {command.strip()}: {why}'] if why else []
    return wrong or ([] if n > 10 else [f'only {n} commands found'])


@test
def packages_of_the_readme():
    """Each package that it names is one that the tests install, and what configure wants is there."""
    named = set(re.findall(r'[\w-]+-dev|(?<= )check\b', '\n'.join(
        line for block in blocks('README.md', 'sh') for line in block.splitlines())))
    installed = set(re.search(r'PACKAGES="(.*?)"', read('tests/run.sh'), re.S)[1].split())
    wanted = set(re.findall(r'HANDOFF_LIB\(.*\[([\w-]+)\]\)', read('configure.ac')))
    return [f'README.md names {p}, tests/run.sh does not install it' for p in sorted(named - installed)] + \
        [f'README.md does not name {p}' for p in sorted(wanted - named)] + ([] if wanted else ['no library'])


@test
def code_of_the_readme_is_that_of_the_example():
    example = {' '.join(line.split()) for line in read('examples/minimal.c').splitlines()}
    shown = [' '.join(line.split()) for block in blocks('README.md', 'c') for line in block.splitlines()]
    return [f'not in examples/minimal.c: {line}' for line in shown if line and line not in example] or \
        ([] if len(shown) > 20 else ['no code found'])


@test
def configuration_of_the_readme_is_read():
    wrong, found = [], blocks('README.md', 'conf')
    for body in found:
        code, said = outcome_of(body)
        if code and not MACHINE.search(said):
            wrong.append(said.strip())
    return wrong or ([] if found else ['no configuration found'])


@test
def map_of_the_architecture():
    """Each source stands in the map, each file and function that is named is there."""
    text = read('ARCHITECTURE.md')
    named = set(re.findall(r'`((?:src|include|tests|examples|man)/[\w./-]+)`', text))
    wrong = [f'ARCHITECTURE.md names {p}, which is not there' for p in sorted(named)
             if not any(os.path.exists(os.path.join(ROOT, p + end)) for end in ('', '.c', '.h'))]
    for path in files('src', '.c', '.h', '.def', '.cddl') + ['include/handoff.h']:
        stem = path.rsplit('.', 1)[0]
        if not any(re.search(rf'`{re.escape(stem)}(\.\w+)?`', text) for stem in (stem, path)):
            wrong.append(f'ARCHITECTURE.md does not name {path}')
    sources = ''.join(read(p) for p in files('src', '.c', '.h', '.def') + files('examples', '.c', '.h') +
                      ['include/handoff.h'] + files('tests', '.c', '.py'))
    for f in sorted(set(re.findall(r'`(\w+)\(\)`', text))):
        if not re.search(rf'\b{f}\(', sources):
            wrong.append(f'ARCHITECTURE.md names {f}(), which is not there')
    return wrong


@test
def what_contributing_names():
    """Files, tests, and the pages that it links."""
    text = read('CONTRIBUTING.md')
    named = re.findall(r'`((?:src|include|tests|examples|man)/[\w./-]+)`', text) + \
        re.findall(r'\]\(([\w./-]+)', text)
    wrong = [f'CONTRIBUTING.md names {p}, which is not there' for p in sorted(set(named))
             if not any(os.path.exists(os.path.join(ROOT, p + end)) for end in ('', '.c', '.h'))]
    tests = re.findall(r'run\.py (\w+)\.(\w+)\.(\w+)`', text)
    wrong += [f'no such test: {m}.{c}.{f}' for m, c, f in tests
              if not re.search(rf'^class {c}\b(?:(?!^class ).)*def {f}\b', read(f'tests/e2e/{m}.py'), re.S | re.M)]
    for path, anchor in re.findall(r'\]\(([\w./-]+)#([\w-]+)\)', text):
        heads = [re.sub(r'[^\w -]', '', h.lower()).replace(' ', '-') for h in re.findall(r'^#+ (.*)$', read(path), re.M)]
        wrong += [] if anchor in heads else [f'{path} has no heading #{anchor}']
    return wrong or ([] if len(named) > 15 and tests else [f'only {len(named)} names found'])


@test
def rules_of_the_architecture():
    """The rows that are named there are rows of the tables."""
    tables = read('src/proto/super.c') + read('src/proto/daemon.c')
    rules = set(re.findall(r'ROW\("([^"]+)"', tables))
    named = re.findall(r'rule "([^"]+)"', read('ARCHITECTURE.md'))
    return [f'no row is called: {r}' for r in named if r not in rules] or ([] if named else ['no rule named'])


@test
def rules_are_taken_by_real_processes():
    """Each rule has a test beside it, which looks for just this rule; or a reason why none can."""
    text = read('tests/model/rules.md').partition('## The rules by name')[2]
    rows = re.findall(r'^\| `([^`]+)` \|[^|]*\| (.*?) \|$', text, re.M)
    bodies = {f'{c.name}.{f.name}': {n.value for n in ast.walk(f) if isinstance(n, ast.Constant)}
              for c in ast.parse(read('tests/e2e/test_rules.py')).body if isinstance(c, ast.ClassDef)
              for f in c.body if isinstance(f, ast.FunctionDef)}
    wrong = [f'rule without a test with real processes: {line}' for line in re.findall(r'^\| `.*', text, re.M)
             if not re.match(r'\| `[^`]+` \|[^|]*\| \S.* \|$', line)]
    wrong += [f'{name} does not take the rule "{rule}"' for rule, name in rows
              if not re.match(r'simulator: \w+ \w+', name) and rule not in bodies.get(name, ())]
    return wrong or ([] if len(rows) > 100 else [f'only {len(rows)} rules found'])


def rows_without_tests(rows):
    """What is wrong with rows whose last column names tests with real processes."""
    tests = {f'{os.path.basename(path)[5:-3]}: {name}' for path in files('tests', '.py')
             for name in re.findall(r'def (test_\w+)\(', read(path))}
    wrong = []
    for row in rows:
        named = re.findall(r'\w+: test_\w+', row.split('|')[-2])
        wrong += [f'no such test: {n}' for n in named if n not in tests]
        if not named:
            wrong.append(f'no test: {row}')
    return wrong


@test
def failures_of_the_architecture():
    """Each row of the tables of failures names tests with real processes."""
    rows = [r for r in re.findall(r'^\|.*\|$', section_of('ARCHITECTURE.md', 'What can fail'), re.M)
            if not r.startswith(('| what fails |', '|---'))]
    return rows_without_tests(rows) or ([] if len(rows) > 25 else [f'only {len(rows)} rows found'])


@test
def claims_of_the_threat_model():
    """Each claim of SECURITY.md names tests that attack it."""
    rows = [row for head in ('A local user', 'A daemon\'s user', 'A daemon that lies')
            for row in re.findall(r'^\|.*\|$', section_of('SECURITY.md', head), re.M)[2:]]
    return rows_without_tests(rows) or ([] if len(rows) > 25 else [f'only {len(rows)} claims found'])


@test
def version():
    told = re.search(r'AC_INIT\(\[handoff\], \[([\d.]+)\]', read('configure.ac'))[1]
    first = re.search(r'^handoff ([\d.]+)', read('ChangeLog'), re.M)
    return [] if first and first[1] == told else [f'ChangeLog does not begin with handoff {told}']


@test
def nothing_of_this_machine():
    """The documents name no place but those of the project and of the system."""
    bad = re.compile(r'/work/|/tmp/[a-z]|\bshared/|\bissue \d|\b(?!handoff@)[\w.]+@[\w.]+\.\w+')
    return [f'{path}: {m[0]}' for path in ('README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'SECURITY.md', 'ChangeLog', *MANUAL)
            for m in bad.finditer(read(path))]


def main():
    failed = 0
    for n, f in enumerate(TESTS, 1):
        name = f.__name__.replace('_', ' ')
        try:
            wrong = f()
        except Exception as e:  # pylint: disable=broad-except
            # a page or a table that has changed its shape must be looked at
            wrong = [f'{type(e).__name__}: {e}']
        for line in wrong or []:
            print(f'# {line}')
        if wrong is None:
            print(f'ok {n} - {name} # SKIP mandoc is not installed')
        else:
            print(f"{'not ok' if wrong else 'ok'} {n} - {name}")
        failed += bool(wrong)
    print(f'1..{len(TESTS)}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
