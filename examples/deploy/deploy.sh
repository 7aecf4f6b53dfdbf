#!/bin/sh
# deploy NAME SHA256 [SMOKE TEST...]: the release on stdin, to the service NAME of this host.
#
#   deploy kvd "$sha256" redis-cli -p 6380 ping <kvd
#   ssh db1 sudo deploy kvd "$sha256" redis-cli -p 6380 ping <kvd
#
# Each release is kept as $RELEASES/SHA256 (/opt/NAME). $RELEASES/current is a link to the last one
# that has proven itself, and the command of the configuration: whatever goes wrong here, who
# starts the service gets that one.
# Run again for what serves already, it hands nothing over: it runs the smoke test, and never
# rolls back.
#
# Exit status: 0 the release serves; 1 what served before does, and the lines before say why; 2
# usage, or not the bytes that were meant; 6 it is not known: deploy it once more when the supervisor
# answers, which does what is still to be done; 9 somebody has to look at it now: a bad release serves,
# or a good one that is not what `current` says; else handoffctl(1)'s.
set -eu
[ $# -ge 2 ] || { echo "usage: deploy NAME SHA256 [SMOKE TEST...] <RELEASE" >&2; exit 2; }
name=$1 sha256=$2
shift 2
releases=${RELEASES:-/opt/$name}
wait=${WAIT:-30s}   # for a supervisor that is being started again, or hands over
release=$releases/$sha256

say() { echo "deploy $name: $*" >&2; }
die() { code=$1; shift; say "$*"; exit "$code"; }
is_meant() { echo "$sha256  $1" | sha256sum --check --status; }

upload()
{
	is_meant "$release" 2>/dev/null && return
	upload=$(mktemp "$releases/.upload.XXXXXX")
	trap 'rm -f "$upload"' EXIT
	cat >"$upload"
	is_meant "$upload" || die 2 "the upload is not $sha256; nothing was done"
	chmod 755 "$upload"
	sync "$upload"
	mv "$upload" "$release"   # whole, or not there
}

smoke()
{
	[ $# = 0 ] || timeout -k 5 "${SMOKE_SECONDS:-30}" "$@" </dev/null >&2 9>&-
}

# The sha256 of what serves, or nothing: it is known a moment after it serves.
serving()
{
	n=0 sum=
	while [ -z "$sum" ] && [ $((n += 1)) -le 100 ]; do
		[ "$n" = 1 ] || sleep 0.1
		status=$(handoffctl --json status "$name" --wait "$wait") || return 0
		sum=$(echo "$status" | sed -n 's/.*"sha256": *"\([0-9a-f]*\)".*/\1/p')
	done
	echo "$sum"
}

prove()
{
	ln -sfn "$sha256" "$releases/current.new" &&
		mv -T "$releases/current.new" "$releases/current"
}

exec 9>"$releases/.lock"
flock -n 9 || die 4 "somebody else deploys it now"
upload
handoffctl plan "$name" --wait "$wait" --binary "$release" >&2 ||
	die $? "it would not take over; nothing was done"
before=$(serving)
code=0
result=$(handoffctl --json upgrade "$name" --wait "$wait" --binary "$release" --sha256 "$sha256" \
	--if-changed --reason "deploy $sha256") || code=$?
if [ "$code" != 0 ]; then
	echo "$result" >&2
	[ "$code" != 6 ] || die 6 "whether $sha256 serves is not known: the supervisor went away, or does not" \
		"answer; when 'handoffctl status $name' does again, deploy it once more"
	handoffctl explain "$name" >&2 || true
	die "$code" "the upgrade has failed"
fi
handoffctl history "$name" --count 1 >&2 || true
if smoke "$@"; then
	prove || die 9 "$sha256 serves, but $releases/current could not be changed"
	say "$sha256 serves"
	exit 0
fi

# A rollback leads to the release before this one: only what has just brought this one is taken back.
case $result in
*'"outcome": "unchanged"'*)
	[ "$(readlink "$releases/current")" = "$sha256" ] ||
		die 9 "it serves already, the smoke test fails, and $releases/current is another: look at it now"
	die 1 "it serves already, the smoke test fails; nothing was changed"
	;;
esac
[ "$before" != "$sha256" ] ||
	die 9 "it served before, now with what else has changed, and the smoke test fails: look at it now"
say "the smoke test has failed: rolling back"
handoffctl rollback "$name" --wait "$wait" --reason "the smoke test of $sha256 failed" >&2 || code=$?
case $code in
0) ;;
6) die 9 "whether it was rolled back is not known, the bad release may serve: look at it now" ;;
*) die 9 "NOT rolled back, the bad release may serve: look at it now" ;;
esac
after=$(serving)
[ "${after:-not known}" = "$before" ] ||
	die 9 "rolled back to ${after:-the unknown}; ${before:-the unknown} served before: look at it now"
echo "$after  $releases/current" | sha256sum --check --status ||
	die 9 "rolled back to $after, which served before; $releases/current is another: look at it now"
die 1 "rolled back; the old one serves"
