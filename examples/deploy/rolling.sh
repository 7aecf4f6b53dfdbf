#!/bin/sh
# rolling RELEASE SMOKE-TEST NAME...: one service of this host after the other, as deploy does it;
# the first that fails ends it, and those behind it stay as they are. The smoke test is run with
# the name of the service.
#
#   rolling /tmp/kvd /usr/local/bin/kvd-smoke kvd-1 kvd-2 kvd-3
set -eu
[ $# -ge 3 ] || { echo "usage: rolling RELEASE SMOKE-TEST NAME..." >&2; exit 2; }
release=$1 smoke=$2
shift 2
sha256=$(sha256sum "$release" | cut -d' ' -f1)
finished=
while [ $# -gt 0 ]; do
	code=0
	deploy "$1" "$sha256" "$smoke" "$1" <"$release" || code=$?
	if [ "$code" != 0 ]; then
		failed=$1
		shift
		echo "rolling: stopped at $failed (exit status $code); done:${finished:- none}; untouched: ${*:-none}" >&2
		exit "$code"
	fi
	finished="$finished $1"
	shift
done
echo "rolling: done:$finished" >&2
