"""What handoffd, handoffctl and the library say when something is wrong, taken from their source, beside the
rows of handoff-messages(7): each message has a row, each row a message, what of the service, what
to do, and a test that looks for these words.

How a message is found: SAYS has the calls that say one; its words are the first text behind the
call. Conversions become dots. What has fewer than ten letters of its own is a frame for another
message, and no row."""
import ast
import glob
import os
import re

# What no test can provoke: an action that brings 33 events, and a moment that the machine has another
# word for than service_refuses(), would be errors of handoffd's own; memory that is missing just where a
# message that has come in part is put back; an error of recvmsg(2) that it does not have.
IMPOSSIBLE = ['too many events at once: ... is dropped', 'it was not the time for it',
              'what an earlier handoffd has handed over cannot be used: ...', "the supervisor's channel: ..."]
FEWEST = 90     # a table that has lost its input must not pass
STRING = r'"(?:[^"\\]|\\.)*"'
CONVERSION = r'%[-+ #0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|ll|h|l|z|j)?[a-zA-Z]'
SAYS = [('handoffd/*.c', r'log_(?:error|warning)\('),
        ('handoffd/*.c', r'log_(?:limited|event)\([^;]*?LOG_L_(?:WARNING|ERROR),'),
        ('handoffd/*.c', r'caller_end\(\w+,'), ('handoffd/callers.c', r'why\[\] ='),
        ('handoffd/ops*.c', r'\bops_refuse\(\w+, \w+,'), ('handoffd/ops*.c', r'ops_answer\(o, [1-9],'),
        ('handoffd/upgrade.c', r'(?:\breturn(?= ")|\bnamed\(s,)'), ('handoffd/served.c', r'snprintf\(out, size,'),
        ('handoffd/{upgrade,keep,boot,store,door}.c', r'snprintf\(err, \w+,'),
        ('handoffd/reexec.c', r'snprintf\((?:out|err|text|r->why), [^,]+,'), ('handoffd/reexec.c', r'\bno\[\] ='),
        ('handoffd/lockwait.c', r'snprintf\(l->text, [^,]+,'),
        ('handoffd/carry.c', r'snprintf\(err, \w+,(?=\s*"what)'), ('handoff{d,ctl}/main.c', r'fprintf\(stderr,'),
        ('lib/*.c', r'\bh_log\(\w+, HANDOFF_LOG_(?:WARNING|ERROR),'), ('lib/*.c', r'\b(?:h_end|(?:h_)?give_up)\(h,'),
        ('handoffctl/*.c', r'\bout_(?:error|note)\('), ('handoffctl/*.c', r'\b(?:unknown|absent)\(')]
# What handoff_error() gives: short ones, too.
RETURNED = [('lib/*.c', r'\bh_fail\(\w+,(?! "%s)'), ('lib/open.c', r'is_data \?'), ('lib/open.c', r'%s: %s" :'),
            ('lib/run.c', r'define SILENT'), ('lib/run.c', r'\? SILENT :'), ('base/lockfile.c', r'\bfail\(l, [^"]*?(?=")')]
# Mistakes of a configuration have no row, since each says what would be right there; but a test each.
MISTAKES = [('handoffd/conf*.c', r'\b(?:fail|WRONG)\('), ('handoffd/conf*.c', r'snprintf\((?:why|err), \w+,'),
            ('handoffd/{exe,mkdirs}.c', r'(?<!define )\b(?:fail|REFUSE)\('),
            ('handoffd/{ids,dirs,mkdirs}.c', r'snprintf\((?:why|err), \w+,'),
            # and what follows the colon of a row: what was wrong with a peer's words
            ('base/chan.c', r'\bbad\(c,'), ('proto/move.c', r'\b(?:give|take)_break\(\w+,'),
            ('lib/give.c', r'\bgive_lost\(')]
# If libconfuse gave no reason, which it always does; an option of the table without a kind.
UNREACHED = ['not understood; see handoff.conf(5)', '... has no kind']
SERVED = re.compile(r'(Served|Not served|Nothing changes|Nothing serves|As before|A daemon may serve|Ask\b)')


def sources(root, pattern):
    names = re.search(r'\{(.*)\}', pattern)
    each = [pattern.replace(names[0], n) for n in names[1].split(',')] if names else [pattern]
    return [p for one in each for p in sorted(glob.glob(os.path.join(root, 'src', one)))]


def said(root, table, least=10):
    """{message: its source}"""
    found = {}
    for pattern, call in table:
        for path in sources(root, pattern):
            with open(path, encoding='utf-8') as f:
                text = f.read().replace('" NAME "', 'handoffctl').replace('" LOCKFILE_NAME "', '.handoff.lock')
            text = text.replace('LOCKFILE_NAME "', '".handoff.lock')
            text = re.sub(r'conf_line\([^()]*\)', '0', text)
            for m in re.finditer(rf'{call}[^"{{}};]*?((?:{STRING}\s*)+)', text):
                words = strings(m[1])[0]
                words = re.sub(r'^handoff(?:d|ctl): |\\n$', '', re.sub(CONVERSION + '|(?<=: )$', '...', words))
                if len(re.sub('[^a-zA-Z]', '', words)) >= least:
                    found.setdefault(words, os.path.relpath(path, root))
    return found


def strings(text):
    """The texts of C."""
    return [''.join(s[1:-1] for s in re.findall(STRING, m)).replace('\\"', '"').replace('\\\\', '\\')
            for m in re.findall(rf'(?:{STRING}\s*)+', text)]


def tests(root):
    """{'file: test_x': the texts of that file}"""
    found = {}
    for path in glob.glob(os.path.join(root, 'tests', 'unit', '*.c')) + glob.glob(os.path.join(root, 'tests', 'lib', '*.c')):
        with open(path, encoding='utf-8') as f:
            text = f.read()
        name = os.path.basename(path).removeprefix('test_')[:-len('.c')]
        found.update({f'{name}: {n}': '\0'.join(strings(text))
                      for n in re.findall(r'^START_TEST\((\w+)\)', text, re.M)})
    for path in glob.glob(os.path.join(root, 'tests', '*', 'test_*.py')):
        with open(path, encoding='utf-8') as f:
            nodes = list(ast.walk(ast.parse(f.read())))
        texts = '\0'.join(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
        name = os.path.basename(path)[len('test_'):-len('.py')]
        found.update({f'{name}: {n.name}': texts for n in nodes if isinstance(n, ast.FunctionDef)})
    return found


def looks_for(texts, message):
    """Ten characters in a row of it are among the test's texts, or all of a shorter piece."""
    return any(p[i:i + 10] in texts for p in message.split('...') if len(p.strip()) >= 8
               for i in range(max(1, len(p) - 9)))


def expected(root):
    """All that the tests of configurations may look for."""
    found = []
    for path in glob.glob(os.path.join(root, 'tests', 'conf', 'bad', '*.conf')):
        with open(path, encoding='utf-8') as f:
            found += re.findall('# expect: (.*)', f.read())
    return found + sorted(set(tests(root).values()))


def wrong_of_mistakes(root):
    """Mistakes that no test provokes, whole but for what differs at its ends."""
    texts = '\n'.join(expected(root))
    return [f'{p}: no test provokes: {m}' for m, p in said(root, MISTAKES, 6).items() if m not in UNREACHED and
            not re.search('.+'.join(re.escape(part) for part in m.strip('.: ').split('...')), texts)]


def wrong(root, page):
    """What is wrong with the page."""
    rows = re.findall(r'^\.It (.*)\n\.\\" test: (.*)\n(.*)$', page, re.M)
    messages, known = said(root, RETURNED, 6) | said(root, SAYS), tests(root)
    found = [f'handoff-messages.7 has no row for: {m} ({p})' for m, p in messages.items()
             if m not in {r[0] for r in rows}]
    found += [f'nothing says: {m}' for m, _, _ in rows if m not in messages]
    found += [f'no such test: {t}' for m, t, _ in rows if t not in known and m not in IMPOSSIBLE]
    found += [f'{t} does not look for: {m}' for m, t, _ in rows if t in known and not looks_for(known[t], m)]
    found += [f'is it served? {m}' for m, _, body in rows if not SERVED.match(body)]
    if len(rows) != page.count('\n.It ') or len(rows) < FEWEST:
        found.append(f'{len(rows)} rows can be read')
    return found
