#!/bin/sh
# Runs every fuzz target of the repository for a while, one after the other.
#
# usage: test/setup/fuzz.sh DURATION     (as go test's -fuzztime, e.g. 5s)
set -eu

duration=$1
cd "$(dirname "$0")/../.."
grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r target; do
		echo "fuzz ${file%/*} $target for $duration"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "${file%/*}" </dev/null
	done
done
