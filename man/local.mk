# man
dist_man_MANS += man/handoff.7 man/libhandoff.3 man/handoff-protocol.7 man/handoff-messages.7
dist_man_MANS += man/handoffctl.1
dist_man_MANS += man/handoff.conf.5 man/handoffd.8 man/handoff-exporter.8
