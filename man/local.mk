# man
dist_man_MANS += man/handoff-protocol.7
dist_man_MANS += man/handoffctl.1
