# man
dist_man_MANS += man/handoff.7 man/handoff-protocol.7 man/handoff-messages.7
dist_man_MANS += man/handoffctl.1
dist_man_MANS += man/handoff.conf.5 man/handoffd.8 man/handoff-exporter.8

# The library: a page for each group of functions, and links so that man(1) finds the others.
LIBRARY_PAGES = man/handoff_open.3 man/handoff_begin.3 man/handoff_take_fd.3 man/handoff_fd.3 \
	man/handoff_drained.3 man/handoff_give.3
LIBRARY_LINKS = man/links/handoff_after_fork.3 man/links/handoff_close.3 man/links/handoff_dispatch.3 \
	man/links/handoff_epoch.3 man/links/handoff_error.3 man/links/handoff_fd_name.3 \
	man/links/handoff_give_end.3 man/links/handoff_gone.3 man/links/handoff_next.3 \
	man/links/handoff_ready.3 man/links/handoff_receive.3 man/links/handoff_reject.3 \
	man/links/handoff_resumed.3 man/links/handoff_role.3 man/links/handoff_seal_failed.3 \
	man/links/handoff_seal_progress.3 man/links/handoff_sealed.3 man/links/handoff_wait.3
dist_man_MANS += man/libhandoff.3 $(LIBRARY_PAGES)
man_MANS = $(LIBRARY_LINKS)
CLEANFILES += $(LIBRARY_LINKS)

# Each leads to the page that has it as a name.
$(LIBRARY_LINKS): $(LIBRARY_PAGES)
	@$(MKDIR_P) man/links
	$(AM_V_GEN)page=$$(cd $(srcdir) && grep -lw "^\.Nm $(@F:.3=)" $(LIBRARY_PAGES)) && \
		echo ".so man3/$${page#man/}" >$@
