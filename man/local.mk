# man
dist_man_MANS += man/handoff-protocol.7
