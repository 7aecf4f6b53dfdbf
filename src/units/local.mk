# src/units: for systemd; the directories of the installation are put in
UNITS = src/units/handoff@.service src/units/handoff-guard@.service src/units/handoff-exporter.service
EXTRA_DIST += src/units/handoff@.service.in src/units/handoff-guard@.service.in \
	src/units/handoff-exporter.service.in
CLEANFILES += $(UNITS)
if UNITS
systemdsystemunit_DATA = $(UNITS)
endif
$(UNITS): Makefile
	$(AM_V_GEN)mkdir -p src/units && sed -e 's|@sbindir[@]|$(sbindir)|' -e 's|@bindir[@]|$(bindir)|' \
		"$(srcdir)/$@.in" >$@.new && mv -f $@.new $@
src/units/handoff@.service: src/units/handoff@.service.in
src/units/handoff-guard@.service: src/units/handoff-guard@.service.in
src/units/handoff-exporter.service: src/units/handoff-exporter.service.in
