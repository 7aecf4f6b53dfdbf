# src/handoffctl: all but main() is a library, so that tests can link it; of libhandoffd.la
# the linker takes dirs.c only
noinst_LTLIBRARIES += libhandoffctl.la
libhandoffctl_la_SOURCES = src/handoffctl/ctl.h \
	src/handoffctl/commands.c \
	src/handoffctl/args.c \
	src/handoffctl/help.c \
	src/handoffctl/request.c \
	src/handoffctl/follow.c src/handoffctl/follow.h \
	src/handoffctl/status.c \
	src/handoffctl/metrics.c src/handoffctl/metrics.h \
	src/handoffctl/watch.c src/handoffctl/completion.c \
	src/handoffctl/history.c src/handoffctl/explain.c \
	src/handoffctl/records.c src/handoffctl/records.h \
	src/handoffctl/archive.c src/handoffctl/archive.h \
	src/handoffctl/plan.c src/handoffctl/plan.h \
	src/handoffctl/expect.c src/handoffctl/expect.h \
	src/handoffctl/place.c src/handoffctl/place.h \
	src/handoffctl/ask.c src/handoffctl/ask.h \
	src/handoffctl/out.c src/handoffctl/out.h \
	src/handoffctl/trace.c src/handoffctl/trace.h \
	src/handoffctl/json.c src/handoffctl/json.h

HANDOFFCTL_LIBS = libhandoffctl.la libhandoffd.la libbase.la libproto.la \
	$(CBOR_LIBS) $(UUID_LIBS) $(JANSSON_LIBS)
bin_PROGRAMS += handoffctl
handoffctl_SOURCES = src/handoffctl/main.c
handoffctl_CFLAGS = $(PIE_C)
handoffctl_LDFLAGS = $(PIE_LD)
handoffctl_LDADD = $(HANDOFFCTL_LIBS)

# Where the shells look below /usr and /usr/local. Made by the program itself, which a machine of
# another kind cannot run.
if NATIVE
bashcompletiondir = $(datadir)/bash-completion/completions
bashcompletion_DATA = completions/handoffctl
fishcompletiondir = $(datadir)/fish/vendor_completions.d
fishcompletion_DATA = completions/handoffctl.fish
endif
completions/handoffctl: handoffctl$(EXEEXT)
	$(AM_V_GEN)mkdir -p completions && ./handoffctl completion bash >$@.new && mv -f $@.new $@
completions/handoffctl.fish: handoffctl$(EXEEXT)
	$(AM_V_GEN)mkdir -p completions && ./handoffctl completion fish >$@.new && mv -f $@.new $@
CLEANFILES += completions/handoffctl completions/handoffctl.fish
