"""The manual's pages and the sources as the checks of this folder read them, and how two are compared."""
import os
import re
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get('BUILD_DIR', '.')


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as f:
        return f.read()


def files(folder, *ends):
    """Paths below folder, as git and automake name them."""
    found = []
    for top, dirs, names in os.walk(os.path.join(ROOT, folder)):
        dirs[:] = [d for d in dirs if d != '__pycache__']
        found += [os.path.relpath(os.path.join(top, n), ROOT) for n in names if n.endswith(ends)]
    return sorted(found)


def run(program, *arguments):
    p = subprocess.run([os.path.join(BUILD, program), *arguments], capture_output=True, text=True,
                       timeout=60, check=False)
    return p.returncode, p.stdout + p.stderr


def variables(paths):
    """What the sources ask the environment for."""
    found = set()
    for path in paths:
        source = read(path)
        found |= set(re.findall(r'getenv\("(\w+)"\)', source)) | set(re.findall(r'\bset\("(\w+)"\)', source))
    return found


# ---- the manual

MANUAL = {path: text for path in files('man', '.1', '.3', '.5', '.7', '.8')
          if not (text := read(path)).startswith('.so ')}  # a link, by a build in the source


def page(name):
    return MANUAL[f'man/{name}']


def section(text, name):
    m = re.search(rf'^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)', text, re.S | re.M)
    if not m:
        raise KeyError(f'no section {name}')
    return m[1]


def plain(text):
    return text.replace(r'\(dq', '"').replace(r'\-', '-').replace(r'\&', '')


def items(text, macro):
    """The words of `.It MACRO a , b` lines."""
    lines = re.findall(rf'^\.It {macro} (.*)$', text, re.M)
    return [w for line in lines for w in line.split() if w != ',']


# ---- what is compared

TESTS = []


def test(f):
    TESTS.append(f)
    return f


def same(told, found, told_by, found_in, least):
    """Both directions; a check that has lost its input must not pass."""
    told, found = set(told), set(found)
    wrong = [f'{found_in} does not say: {x}' for x in sorted(told - found)]
    wrong += [f'{found_in} says, and {told_by} does not: {x}' for x in sorted(found - told)]
    if len(told) < least:
        wrong.append(f'only {len(told)} found in {told_by}')
    return wrong
