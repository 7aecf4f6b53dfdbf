"""The model's transition relation as relation.sh has collected it, in the words of src/proto."""
import re
from collections import namedtuple

Row = namedtuple("Row", "role state event actions next rule")

# what S and D knew when the step began, bit by bit (facts(), heard_ready(), dfacts() of handoff.pml)
FACTS = {"S": ("O gone", "O connected", "N gone", "N may have served", "O prepared", "O has served",
               "O stands by", "healthy", "same state", "sealed", "stop asked for"),
         "D": ("polling", "cold start")}
O_GONE, O_CONNECTED, N_GONE, MAY, PREPARED = 1, 2, 4, 8, 16


def names(model, prefix):
	return {int(n): (i + "_" if i != prefix else "") + name
	        for i, name, n in re.findall(rf"^#define ({prefix}|I)_(\w+)\s+(\d+)\b", model, re.M)}


def read_steps(model_file, relation_file):
	"""[(role, from, to, actions, facts, text)], with states and actions by name."""
	model = open(model_file).read()
	states = {"S": names(model, "S"), "D": names(model, "D")}
	action = names(model, "A")
	# the states between two actions are numbered per role
	split = model.index("#define S_IDLE ")
	for role, part in (("D", model[:split]), ("S", model[split:])):
		states[role].update({n: name for n, name in names(part, role).items()})
	steps = []
	for line in open(relation_file):
		role, frm, to, acts, facts, text = re.match(r"@([SD]) (\d+) (\d+) (\d+) (\d+) (.*)", line).groups()
		acts, listed = int(acts), []
		while acts:
			acts, a = divmod(acts, 64)
			listed.insert(0, action[a])
		steps.append((role, states[role][int(frm)], states[role][int(to)], tuple(listed), int(facts), text))
	return steps


def refused(steps):
	"""{(role, state, event): set of the facts under which it is refused}"""
	result = {}
	for role, state, _, _, facts, text in steps:
		if text.startswith("-: "):
			result.setdefault((role, state, text[3:]), set()).add(facts)
	return result


def rows(steps):
	"""Steps become rows: one that ends between two actions is joined with what follows.
	{Row: set of the facts under which it was taken}"""
	then = {}
	for role, frm, to, acts, _, text in steps:
		if text == "+":
			assert then.setdefault((role, frm), (to, acts)) == (to, acts), f"{frm} goes on in two ways"
	result = {}
	for role, frm, to, acts, facts, text in steps:
		if text == "+" or text.startswith("-"):
			continue
		while to.startswith("I_"):
			to, more = then[role, to]
			acts += more
		for label in text.split("; "):
			rule, events = label.rsplit(": ", 1)
			for event in events.split():
				result.setdefault(Row(role, frm, event, acts, to, rule), set()).add(facts)
	return result
