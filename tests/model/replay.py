#!/usr/bin/python3
"""Traces of the simulator, judged by the model: each step is one that the model takes too.

usage: replay.py RELATION TRACE    RELATION: of relation.sh; TRACE: of `sim --trace`

A line of a trace is MACHINE STATE EVENT GUARD NEXT ACTIONS FACTS RULE: a step of the supervisor
(S0) or of a daemon (D and its pid), and what S knew. "= MACHINE" begins a life: a daemon's, S's,
also after a restart. A machine goes on where it has stopped; each step is one of the relation,
under what S knew there, or a row of not_in_model. Then the judge is judged: every step is bent in
every way that it can be, and must be refused."""
import os
import sys

from compare import Excused
from relation import MAY, N_GONE, O_CONNECTED, O_GONE, PREPARED, Row, read_steps, rows

# where a life begins
FIRST = {"S": ("IDLE", "R_IDLE", "R_COMMITTED", "ABORT"), "D": ("START", "SERVE")}
# what a trace has of the facts: the rest decides which row is taken, and is compared there (guards.py)
TRACED = {"S": O_GONE | O_CONNECTED | N_GONE | MAY | PREPARED, "D": 0}
HERE = os.path.dirname(os.path.abspath(__file__))


def parse(line):
	machine, state, event, guard, nxt, acts, facts, rule = line.split(" ", 7)
	acts = () if acts == "-" else tuple(acts.split(","))
	return machine, Row(machine[0], state, event, acts, nxt, rule), guard, int(facts)


def behind(facts):
	"""What may be true when S knows this: who is not known to be gone may be dead already."""
	o = {O_GONE} if facts & O_GONE else {facts & O_CONNECTED, O_GONE}
	n = {N_GONE} if facts & N_GONE else {0, N_GONE}
	rest = facts & ~(O_GONE | O_CONNECTED | N_GONE)
	return {rest | a | b for a in o for b in n}


class Judge:
	def __init__(self, relation, excused):
		self.relation = {row: {f & TRACED[row.role] for f in facts} for row, facts in relation.items()}
		self.excused, self.known = excused, {}

	def allows(self, row, guard, facts):
		"""Whether the model takes it; not_in_model counts."""
		key = row, guard, facts
		if key not in self.known:
			truth = self.relation.get(row)
			self.known[key] = bool(truth & behind(facts)) if truth else self.excused.has(row, guard)
		return self.known[key]


def replay(lines, judge):
	"""How many steps; the different ones; what is wrong."""
	at, steps, wrong, n = {}, set(), [], 0
	for line in lines:
		if line.startswith("="):
			machine = line.split()[1]
			at[machine] = FIRST[machine[0]]
			continue
		machine, row, guard, facts = parse(line)
		n += 1
		if row.state not in at.get(machine, ()):
			wrong.append(f"it was in {at.get(machine)}: {line}")
		elif not judge.allows(row, guard, facts):
			wrong.append(f"the model does not take it: {line}")
		at[machine] = (row.next,)
		steps.add((row, guard, facts))
	return n, steps, wrong


def bent(row, rows_):
	"""What differs from a step in one thing."""
	states = {r.state for r in rows_ if r.role == row.role}
	actions = {a for r in rows_ if r.role == row.role for a in r.actions}
	for other in sorted(states - {row.next}):
		yield row._replace(next=other)
	for i in range(len(row.actions)):
		yield row._replace(actions=row.actions[:i] + row.actions[i + 1:])
	for i in range(1, len(row.actions)):
		swapped = (row.actions[i], row.actions[i - 1])
		yield row._replace(actions=row.actions[:i - 1] + swapped + row.actions[i + 1:])
	for a in sorted(actions):
		yield row._replace(actions=row.actions + (a,))
	yield row._replace(rule=row.rule + "?")


def judged(steps, judge):
	"""Each step bent in one thing, and taken twice: how many, and how many were refused."""
	tried = refused = 0
	for row, guard, facts in steps:
		if row not in judge.relation:
			continue
		for other in bent(row, judge.relation):
			if other in judge.relation:
				continue          # another rule
			tried += 1
			refused += not judge.allows(other, guard, facts)
		if row.state != row.next:
			line = " ".join((row.role + "0", row.state, row.event, guard, row.next,
			                 ",".join(row.actions) or "-", str(facts), row.rule))
			tried += 1
			refused += any("it was in" in w for w in replay([line, line], judge)[2][1:])
	return tried, refused


def main():
	judge = Judge(rows(read_steps(os.path.join(HERE, "handoff.pml"), sys.argv[1])),
	              Excused(os.path.join(HERE, "not_in_model")))
	with open(sys.argv[2]) as f:
		n, steps, wrong = replay(f.read().splitlines(), judge)
	for line in wrong[:20]:
		print(line)
	tried, refused = judged(steps, judge)
	print(f"{n} steps of the simulator, {len(steps)} different ones: {len(wrong)} are not the "
	      f"model's; bent ones refused: {refused} of {tried}")
	return 1 if wrong or not n or refused != tried or not tried else 0


sys.exit(main())
