#!/usr/bin/python3
"""The tables of src/proto beside the model and the law, every way.

usage: compare.py RELATION ROWS    RELATION: of relation.sh; ROWS: of `sim --rows`

A row is (state, event, actions in their order, next state, rule). Each row of the tables is a
step of the model and the reverse, but for not_in_model; each rule of rules.md is in both. Then the
guards (guards.py): under what was known at each step, the first row that fits is the model's."""
import os
import sys

from guards import Guards
from relation import Row, read_steps, refused, rows

HERE = os.path.dirname(os.path.abspath(__file__))


def code_rows(path):
	"""{Row: (guard, under which facts it holds: bit i of the number is set for the facts i)}, in the
	table's order"""
	result = {}
	for line in open(path):
		role, state, event, guard, nxt, acts, holds, rule = line.rstrip("\n").split(" ", 7)
		acts = () if acts == "-" else tuple(acts.split(","))
		result[Row(role, state, event, acts, nxt, rule)] = guard, int(holds, 16)
	return result


class Excused:
	def __init__(self, path):
		self.lines, self.guards = {}, set()
		for line in open(path):
			if line.startswith("GUARD "):
				self.guards.add(line.split(None, 2)[1])
			elif line.strip() and not line.startswith("#"):
				role, state, event, guard, _ = line.split(None, 4)
				self.lines[role, state, event, guard] = False

	def has(self, row, guard):
		for key in self.lines:
			if all(want in ("*", have) for want, have in zip(key, (row.role, row.state, row.event, guard))):
				self.lines[key] = True
				return True
		return False


def law_rules(path):
	"""The names in the last table of rules.md."""
	text = open(path).read()
	part = text[text.index("## The rules by name"):]
	return {cell.strip().strip("`") for line in part.splitlines() if line.startswith("| `")
	        for cell in line.split("|")[1:2]}


def show(row):
	return f"{row.role} [{row.rule}] {row.state} --{row.event}--> {row.next}, {' '.join(row.actions) or 'no action'}"


def differences(model, code, law, excused):
	for row, (guard, _) in code.items():
		skip = excused.has(row, guard)
		if row not in model and not skip:
			yield "only in the code:  " + show(row)
		elif row in model and skip:
			yield "in not_in_model, and yet in the model: " + show(row)
	for row in model:
		if row not in code and row.event != "BOOT":
			yield "only in the model: " + show(row)
	for key, used in excused.lines.items():
		if not used:
			yield "not_in_model names no row: " + " ".join(key)
	in_code = {row.rule for row in code}
	for rule in sorted(in_code - law):
		yield f"not in rules.md: {rule}"
	for rule in sorted(law - in_code):
		yield f"in rules.md and in no table: {rule}"


def main():
	steps = read_steps(os.path.join(HERE, "handoff.pml"), sys.argv[1])
	model = rows(steps)
	code = code_rows(sys.argv[2])
	excused = Excused(os.path.join(HERE, "not_in_model"))
	found = list(differences(model, code, law_rules(os.path.join(HERE, "rules.md")), excused))
	guards = Guards(model, refused(steps),
	                {row: known for row, known in code.items() if not excused.has(row, known[0])})
	found += guards.differences(excused.guards)
	bent, unnoticed = guards.bent()
	for line in found + unnoticed:
		print(line)
	print(f"{len(code)} rows of the tables, {len([r for r in model if r.event != 'BOOT'])} of the model, "
	      f"{len(found)} differences; guards bent: {bent}, not noticed: {len(unnoticed)}")
	return 1 if found or unnoticed or not model or not bent else 0


if __name__ == "__main__":
	sys.exit(main())
