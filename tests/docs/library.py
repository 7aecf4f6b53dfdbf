"""libhandoff(3) and the pages of its functions say what the header does.

Each exported function has one page, and man(1) finds it; constants, structures, environment
and errors are compared in both directions."""
import os
import re

from manual import BUILD, MANUAL, files, page, read, same, section, test, variables

PAGES = {path: text for path, text in MANUAL.items() if path.endswith('.3')}
ALL = re.sub(r'^\.Dt .*', '', ''.join(PAGES.values()), flags=re.M)
OF_FUNCTIONS = {path: text for path, text in PAGES.items() if path != 'man/libhandoff.3'}
HEADER = read('include/handoff.h')
DECLARED = re.sub(r'/\*.*?\*/', '', HEADER, flags=re.S)


def exported():
    return re.findall(r'\t(handoff_\w+);', read('src/lib/libhandoff.map'))


def names_of(text):
    """The functions that a page is named after."""
    return re.findall(r'^\.Nm (handoff_\w+)', section(text, 'NAME'), re.M)


def structures(text):
    """struct.field of each structure that is declared there."""
    text = re.sub(r'/\*.*?\*/', '', text, flags=re.S)
    return {f'{name}.{field}'
            for name, body in re.findall(r'^struct (\w+) \{(.*?)^\};', text, re.S | re.M)
            for declared in body.replace('(void *arg, int level, const char *line)', '').split(';')
            for field in re.findall(r'(\w+)\)?(?:\[\w+\])?\s*(?:,|$)', declared.strip())}


@test
def structures_of_the_library():
    return same(structures(HEADER), structures(ALL), 'handoff.h', 'man/*.3', 30)


@test
def exported_symbols():
    declared = re.findall(r'^[\w ]+?\*?(handoff_\w+)\(', DECLARED, re.M)
    return same(exported(), declared, 'libhandoff.map', 'handoff.h', 15)


@test
def functions_have_one_page_each():
    """In its NAME and in its SYNOPSIS."""
    wrong, found = [], {}
    for path, text in OF_FUNCTIONS.items():
        shown = re.findall(r'^\.F[no] "?(handoff_\w+)', section(text, 'SYNOPSIS'), re.M)
        wrong += [] if shown == names_of(text) else [f'{path}: SYNOPSIS has others than NAME, or in another order']
        wrong += [] if path == f'man/{shown[0]}.3' else [f'{path} is not named after {shown[0]}']
        wrong += [f'{path} has {f}, as {found[f]} does' for f in shown if f in found]
        found |= dict.fromkeys(shown, path)
    return wrong + same(exported(), found, 'libhandoff.map', 'man/*.3', 15)


@test
def functions_are_found_by_man():
    """By a page of that name, or by a link that leads to its page."""
    leads = {f'man/links/{f}.3': path for path, text in OF_FUNCTIONS.items() for f in names_of(text)[1:]}
    wrong = same(leads, re.findall(r'man/links/\w+\.3', read('man/local.mk')), 'man/*.3', 'man/local.mk', 10)
    for link, path in leads.items():
        with open(os.path.join(BUILD, link), encoding='utf-8') as f:
            said = f.read()
        wrong += [] if said == f'.so man3/{os.path.basename(path)}\n' else [f'{link}, of {path}, has: {said}']
    return wrong


@test
def overview_of_the_library():
    """Its list of functions is that of the pages; each page leads back."""
    listed = section(page('libhandoff.3'), 'DESCRIPTION').partition('.Ss Functions\n')[2].partition('.El')[0]
    found = [(f'man/{name}.3', f) for name, body in re.findall(r'^\.It Xr (\w+) 3\n(.*?)(?=^\.It|\Z)', listed, re.S | re.M)
             for f in re.findall(r'^\.Fn (\w+)', body, re.M)]
    told = [(path, f) for path, text in OF_FUNCTIONS.items() for f in names_of(text)]
    return same(told, found, 'man/*.3', 'libhandoff.3', 15) + \
        [f'{path} has no libhandoff(3) in SEE ALSO' for path, text in OF_FUNCTIONS.items()
         if '.Xr libhandoff 3' not in section(text, 'SEE ALSO')]


@test
def constants_and_environment_of_the_library():
    constants = re.findall(r'\bHANDOFF_(?!H\b)[A-Z_]+\b', DECLARED)
    said = set(re.findall(r'\bHANDOFF_[A-Z]\w*\b', ALL))
    own = variables(files('src/lib', '.c'))
    environment = re.findall(r'add_own\(p, "(\w+)"', read('src/handoffd/spawn.c'))
    wrong = same(constants, said - own - set(environment), 'handoff.h', 'man/*.3', 15)
    return wrong + [f'no page of the library says: {v}' for v in sorted(own - said)]


def errors(text):
    return set(re.findall(r'-(E[A-Z0-9]+)\b', text))


@test
def errors_of_the_library():
    """Those that the header names above the functions of a page; what all share is in libhandoff(3)."""
    above = {f: comment for comment, declared in re.findall(
        r'/\*((?:(?!\*/).)*)\*/\n((?:[\w *]*handoff_\w+\([^;]*;\n)+)', HEADER, re.S)
        for f in re.findall(r'\b(handoff_\w+)\(', declared)}
    shared = errors(section(page('libhandoff.3'), 'ERRORS'))
    told = {(path, e) for path, text in OF_FUNCTIONS.items() for f in names_of(text)
            for e in errors(above.get(f, '')) - shared}
    found = {(path, e) for path, text in OF_FUNCTIONS.items() for e in errors(text) - shared}
    return same(told, found, 'handoff.h', 'man/*.3', 15)
