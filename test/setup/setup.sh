#!/bin/sh
# Makes a machine ready for `make demo` and `make test`. Says each thing that it does, and nothing where nothing is missing.
#
# usage: test/setup/setup.sh NEED...
#   go      a Go that is new enough for go.mod
#   cc      a C compiler, which Go's race detector links with
#   docker  a Docker command line and an engine that answers
#
# On Debian and Ubuntu, as root, it installs what is missing and starts the engine. Elsewhere it names what is missing and
# ends with 1.
set -eu

log=/var/log/dockerd-pgpatrol.log # of an engine that this script starts itself

say() { echo "setup: $*"; }

missing=''
lack() {
	missing=yes
	echo "setup: missing: $*" >&2
}

have() { command -v "$1" >/dev/null 2>&1; }

# can_install: is this a machine where packages may be installed without asking?
can_install() { [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && have apt-get; }

updated=''
install() {
	say "install with apt-get: $*"
	export DEBIAN_FRONTEND=noninteractive
	if [ -z "$updated" ]; then
		apt-get update -qq
		updated=yes
	fi
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need_go() {
	root=$(dirname "$0")/../..
	want=$(sed -n 's/^go //p' "$root/go.mod")
	if ! have go; then
		lack "Go $want or newer: https://go.dev/dl/"
		return
	fi
	got=$(go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
	# An older Go can fetch the newer one itself, unless it was told not to.
	if [ "$(printf '%s\n%s\n' "$want" "$got" | sort -V | head -n 1)" != "$want" ] && [ "$(go env GOTOOLCHAIN)" = local ]; then
		lack "Go $want or newer (this is $got): https://go.dev/dl/"
	fi
}

need_cc() {
	if have gcc || have clang || have cc; then
		return
	fi
	if can_install; then
		install gcc libc6-dev
	else
		lack "a C compiler (gcc or clang), for Go's race detector"
	fi
}

answers() { docker info >/dev/null 2>&1; }

need_docker() {
	if ! have docker; then
		if ! can_install; then
			lack "Docker: https://docs.docker.com/engine/install/"
			return
		fi
		# Newer releases have the command line in a package of its own, and need apparmor's parser where the kernel has it.
		set -- docker.io apparmor ca-certificates iptables
		apt-get update -qq
		updated=yes
		if apt-cache show docker-cli >/dev/null 2>&1; then
			set -- "$@" docker-cli
		fi
		# An engine whose own disk is an overlay cannot stack another, and would copy whole images instead (vfs).
		case $(stat -f -c %T /) in
		overlayfs | fuse*) set -- "$@" fuse-overlayfs ;;
		esac
		install "$@"
	fi
	answers || start_engine
}

start_engine() {
	case ${DOCKER_HOST:-} in
	'' | unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
	*)
		lack "a Docker engine that answers at DOCKER_HOST ($DOCKER_HOST)"
		return
		;;
	esac
	if [ "$(id -u)" != 0 ] || [ "$(uname -s)" != Linux ]; then
		lack "a Docker engine that answers (start it, or use an account that may use it): $(docker info 2>&1 | tail -n 1)"
		return
	fi
	engine='' # process of an engine that this script started
	if [ -d /run/systemd/system ]; then
		say "start the Docker engine: systemctl start docker"
		systemctl start docker || true # what it wrote is shown below, if it does not answer
		see="journalctl -u docker"
	elif have dockerd; then
		say "start the Docker engine: dockerd, its log is $log"
		setsid dockerd >"$log" 2>&1 </dev/null &
		engine=$!
		see=$log
	else
		lack "dockerd, the Docker engine"
		return
	fi
	waited=0
	until answers; do
		if [ "$waited" -ge 60 ] || { [ -n "$engine" ] && ! kill -0 "$engine" 2>/dev/null; }; then
			[ -z "$engine" ] || tail -n 2 "$log" >&2
			lack "a Docker engine that answers: this one gave up or took over 60 s; see $see"
			return
		fi
		waited=$((waited + 1))
		sleep 1
	done
	say "the Docker engine answers"
}

for need in "$@"; do
	case $need in
	go | cc | docker) "need_$need" ;;
	*)
		echo "setup: unknown need $need; known: go cc docker" >&2
		exit 2
		;;
	esac
done
[ -z "$missing" ] || exit 1
