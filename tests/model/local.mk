# ---- the protocol as a model: make model proves all of it, which takes a quarter of an hour
EXTRA_DIST += tests/model/rules.md tests/model/README.md tests/model/handoff.pml \
	tests/model/connections.pml tests/model/kernel_facts.py tests/model/lib.sh \
	tests/model/all.sh tests/model/quick.sh tests/model/run_handoff.sh \
	tests/model/run_mutants.sh tests/model/run_timers.sh tests/model/probe.sh \
	tests/model/run_connections.sh tests/model/relation.sh tests/model/relation.py \
	tests/model/compare.py tests/model/guards.py tests/model/replay.py tests/model/not_in_model
.PHONY: model sim
model:
	sh $(srcdir)/tests/model/all.sh
# a million handoffs with faults; for each rule anew, and for each row, a run that notices its loss
sim: tests/sim/sim tests/sim/moves
	tests/sim/sim --runs 500000
	tests/sim/moves --runs 500000
	tests/sim/sim --each-rule --runs 100000
	tests/sim/sim --each-row
