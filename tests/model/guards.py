"""The guards of the tables beside the model: under what was known at each of its steps, which row is
the first that fits?

It must be one that the model takes there; where the model has a step the table has one too, and where
the model refuses an event so does the table; and each row is the first one somewhere. Under which facts
a guard holds the machine itself has said (tests/sim/facts.c). Then the judge is judged: each guard is
bent in every way that makes another table of it, and that must be a difference."""
from relation import FACTS, N_GONE, O_CONNECTED, O_GONE

O_SEALED = 1 << FACTS["S"].index("sealed")
STOP = 1 << FACTS["S"].index("stop asked for")
# what comes through the channel of O, of N: who is read is not known to be gone
OF_O = ("O_DRAINED", "O_SEALED", "O_SEAL_FAILED", "O_GIVE_FAILED", "O_STATUS", "O_SERVING", "O_STANDBY")
OF_N = ("N_HELLO", "N_READY", "N_STATUS", "N_SERVING")
REGISTERS = ("O_SERVING", "O_STANDBY")
# what needs nobody else, so that it may come whenever the machine is in the state
ANY_TIME = {("S", "NOW"), ("S", "START"), ("S", "REEXEC"), ("D", "TIMEOUT"), ("D", "LOCKED")}


def heard(event, facts):
	"""The model asks who is gone when the message was read; it may have been the last one."""
	if event in OF_O and facts & O_GONE:
		return facts & ~O_GONE | O_CONNECTED
	return facts & ~N_GONE if event in OF_N else facts


def before(event, facts):
	"""Who registers was not connected; the facts of Ready came with it, and so did a stop."""
	if event == "STOP":
		return facts & ~STOP
	return facts & ~O_CONNECTED if event in REGISTERS else facts if event != "N_READY" else None


def can_be(state, event, facts):
	if event in OF_O and not facts & O_CONNECTED or event in OF_N and facts & N_GONE:
		return False
	if state.startswith("COLD") and facts & O_SEALED:      # there is nobody to seal
		return False
	return facts & (O_GONE | O_CONNECTED) != O_GONE | O_CONNECTED


def words(role, facts):
	return ", ".join(name for i, name in enumerate(FACTS[role]) if facts >> i & 1) or "nothing"


def first(rows, facts):
	return next((row for row, _, holds in rows if holds >> facts & 1), None)


def show(row):
	return f"[{row.rule}] to {row.next}" if row else "nothing"


class Group:
	"""The rows of one state and event, and what the model does there: {facts: rows; none: refused}."""
	def __init__(self, role, state, event):
		self.role, self.state, self.event = role, state, event
		self.rows, self.steps = [], {}

	def possible(self):
		facts = range(1 << len(FACTS[self.role]))
		return [f for f in facts if self.role == "D" or can_be(self.state, self.event, f)]

	def differences(self, rows):
		taken = set()
		where = f"{self.role} {self.state} {self.event}"
		for facts, model in sorted(self.steps.items()):
			row = first(rows, facts)
			taken.add(row)
			if row not in model and (row or model):
				yield (f"{where}, known: {words(self.role, facts)}: the table takes {show(row)}, "
				       f"the model {' or '.join(sorted(map(show, model))) or 'nothing'}")
		for row, _, _ in rows:
			if row not in taken:
				yield f"{where}: {show(row)} is never the first that fits"

	def decided(self):
		"""The guards that hold under some of what is known, and under some do not."""
		return {guard for _, guard, holds in self.rows if len({holds >> f & 1 for f in self.steps}) == 2}

	def bends(self):
		"""Each guard dropped, turned round, and blind for one fact: what was done, and the rows."""
		possible = self.possible()
		for i, (row, guard, holds) in enumerate(self.rows):
			for how, other in bends(self.role, holds):
				rows = self.rows[:i] + [(row, guard, other)] + self.rows[i + 1:]
				if any(first(rows, f) != first(self.rows, f) for f in possible):
					yield f"{how} the guard {guard} of [{row.rule}] {row.state} {row.event}", rows


class Guards:
	def __init__(self, model, refused, code):
		"""model: {Row: set of facts}; refused: {(role, state, event): set of facts};
		code: {Row: (guard, facts)} without what the model has not"""
		self.groups = {}
		for row, (guard, holds) in code.items():
			self.groups.setdefault(row[:3], Group(*row[:3])).rows.append((row, guard, holds))
		at_rest = {}
		for (role, state, event, row, facts) in [(*r[:3], r, f) for r, fs in model.items() for f in fs] + \
				[(*key, None, f) for key, fs in refused.items() for f in fs]:
			facts = heard(event, facts) if role == "S" else facts
			at_rest.setdefault((role, state), set()).add(before(event, facts))
			if (role, state, event) in self.groups:
				self.groups[role, state, event].steps.setdefault(facts, set()).update({row} - {None})
		for group in self.groups.values():
			if (group.role, group.event) in ANY_TIME:
				for facts in at_rest.get((group.role, group.state), set()) - {None}:
					group.steps.setdefault(facts, set())

	def differences(self, excused):
		"""excused: guards of which nothing that is known decides"""
		for group in self.groups.values():
			yield from group.differences(group.rows)
		named = {guard for group in self.groups.values() for _, guard, _ in group.rows} - {"ALWAYS"}
		decided = {guard for group in self.groups.values() for guard in group.decided()}
		for guard in sorted(named - decided - excused):
			yield f"guard {guard}: nothing that is known decides, and it is not in not_in_model"
		for guard in sorted(decided & excused):
			yield f"guard {guard} is in not_in_model, and what is known decides"

	def bent(self):
		"""How many; what went unnoticed."""
		n, unnoticed = 0, []
		for group in self.groups.values():
			for what, rows in group.bends():
				n += 1
				if not any(group.differences(rows)):
					unnoticed.append("not noticed: " + what)
		return n, unnoticed


def bends(role, holds):
	all_facts = range(1 << len(FACTS[role]))
	every = (1 << len(all_facts)) - 1
	if holds == every:
		return
	yield "dropped:", every
	yield "turned round:", every & ~holds
	for bit, name in enumerate(FACTS[role]):
		turned = sum(1 << f for f in all_facts if holds >> (f ^ 1 << bit) & 1)
		if turned != holds:
			yield f"blind for '{name}', true with either:", holds | turned
			yield f"blind for '{name}', true with both:", holds & turned
