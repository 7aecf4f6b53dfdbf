#!/usr/bin/python3
"""What share of lines and branches was executed, for each folder of src, by gcov's counters.

usage: figures.py BUILD_DIR [FOLDER LINES BRANCHES]...
Each FOLDER has its aims in percent ('-': none); exit status 1 if one is missed. A source is
compiled more than once (for a library and a program, say): what any of them executed counts.
"""
import json
import os
import subprocess
import sys

BUILD = os.path.abspath(sys.argv[1])
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..'))
AIMS = [sys.argv[i:i + 3] for i in range(2, len(sys.argv), 3)]


def objects():
    """Notes of objects that belong to src/, those of tests that include such files too."""
    for top, _, names in os.walk(BUILD):
        yield from (os.path.join(top, n) for n in names if n.endswith('.gcno'))


def documents(notes):
    """gcov's JSON: one line for each file of notes."""
    for i in range(0, len(notes), 50):
        p = subprocess.run(['gcov', '--json-format', '--stdout', '--branch-probabilities', *notes[i:i + 50]],
                           cwd=BUILD, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        yield from (json.loads(line) for line in p.stdout.splitlines() if line.strip())


def merge(seen, source, lines):
    known = seen.setdefault(source, {})
    for line in lines:
        branches = [b['count'] for b in line['branches']]
        count, before = known.get(line['line_number'], (0, []))
        if len(before) == len(branches):
            branches = [a + b for a, b in zip(before, branches)]
        elif sum(b > 0 for b in before) > sum(b > 0 for b in branches):
            branches = before
        known[line['line_number']] = (count + line['count'], branches)


def read():
    """{path below the source tree: {line: (count, [count of each branch])}}"""
    seen = {}
    for document in documents(sorted(objects())):
        where = document['current_working_directory']
        for f in document['files']:
            path = os.path.relpath(os.path.realpath(os.path.join(where, f['file'])), TOP)
            if path.startswith('src/'):
                merge(seen, path, f['lines'])
    return seen


def share(hit, of):
    return 100.0 * hit / of if of else 100.0


def figures(sources):
    lines = [entry for source in sources for entry in source.values()]
    branches = [b for _, bs in lines for b in bs]
    return (share(sum(c > 0 for c, _ in lines), len(lines)), len(lines),
            share(sum(b > 0 for b in branches), len(branches)), len(branches))


def row(name, f, aims=('-', '-')):
    missed = [what for what, got, aim in zip(('lines', 'branches'), (f[0], f[2]), aims)
              if aim != '-' and got < float(aim)]
    print(f'{name:32} {f[0]:6.1f} % of {f[1]:5} lines  {f[2]:6.1f} % of {f[3]:5} branches'
          + (f'   aim: {aims[0]}, {aims[1]}' if aims != ('-', '-') else '')
          + (f"   MISSED: {', '.join(missed)}" if missed else ''))
    return not missed


def main():
    seen = read()
    met = True
    for folder, lines, branches in AIMS:
        inside = {p: s for p, s in sorted(seen.items()) if os.path.dirname(p) == folder}
        if os.environ.get('COVERAGE_FILES'):
            for path, source in inside.items():
                row('  ' + path, figures([source]))
        if os.environ.get('COVERAGE_LINES'):
            for path, source in inside.items():
                print('  ', path, 'not executed:', *(n for n, (c, _) in sorted(source.items()) if not c),
                      '| branches not taken:', *(n for n, (c, b) in sorted(source.items())
                                                 if c and not all(b)))
        met &= row(folder, figures(inside.values()), (lines, branches))
        if not inside:
            sys.exit(f'no counters for {folder}')
    return 0 if met else 1


sys.exit(main())
