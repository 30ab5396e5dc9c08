#!/bin/sh
# Makes targets one after the other, each under a heading and with its time, and says the total at the end. Ends with the
# first that fails.
#
# usage: test/setup/sections.sh MAKE TARGET...
set -u

make=$1
shift
began=$(date +%s)

# since SECONDS: the time since then, as minutes and seconds.
since() {
	d=$(($(date +%s) - $1))
	printf '%d min %02d s' $((d / 60)) $((d % 60))
}

summary=''
for target in "$@"; do
	start=$(date +%s)
	printf '\n=== %s\n' "$target"
	"$make" --no-print-directory "$target"
	code=$?
	if [ "$code" != 0 ]; then
		printf '\n=== %s FAILED after %s; total %s\n' "$target" "$(since "$start")" "$(since "$began")" >&2
		exit "$code"
	fi
	summary="$summary$(printf '    %-10s %s' "$target" "$(since "$start")")
"
done
printf '\n=== all passed in %s\n%s' "$(since "$began")" "$summary"
