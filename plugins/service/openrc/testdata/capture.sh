#!/bin/sh
# Writes what OpenRC and the kernel keep of a service in each of its states, one txtar file per state, into the current
# folder. Links are written as "-> target", the NUL bytes of a command line as line feeds. Run as root where openrc-init is
# PID 1 and nothing matters: sh capture.sh. The files beside this one come from OpenRC 0.56 on Debian 13, Linux 6.18.
set -eu

S=capsvc
D=/usr/local/bin/$S

cat >$D <<'EOF'
#!/bin/sh
while :; do sleep 0.1; done
EOF
chmod 755 $D

script() { # script BODY...
	printf '%s\n' '#!/sbin/openrc-run' "$@" >/etc/init.d/$S
	chmod 755 /etc/init.d/$S
}

settle() { sleep 0.5; }

file() { # file PATH NAME
	[ -e "$1" ] || [ -L "$1" ] || return 0
	echo "-- $2 --"
	if [ -L "$1" ]; then
		echo "-> $(readlink "$1")"
	else
		tr '\0' '\n' <"$1"
		[ -z "$(tail -c1 "$1" | tr -d '\n\0')" ] || echo
	fi
}

capture() { # capture STATE
	{
		file /run/openrc/softlevel state/softlevel
		for k in started starting stopping inactive wasinactive failed hotplugged; do
			file /run/openrc/$k/$S state/$k/$S
		done
		for f in /run/openrc/scheduled/*/$S; do file "$f" "state/${f#/run/openrc/}"; done
		for f in /run/openrc/options/$S/* /run/openrc/daemons/$S/*; do file "$f" "state/${f#/run/openrc/}"; done
		file /run/$S.pid pid/$S.pid
		for f in /etc/runlevels/*/$S; do file "$f" "${f#/etc/}"; done
		for p in /proc/[0-9]*; do
			tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -q $S || continue
			[ "$(cat "$p/comm")" != sh ] || continue # this script
			file "$p/stat" "proc/${p#/proc/}/stat"
			file "$p/cmdline" "proc/${p#/proc/}/cmdline"
		done
	} >"$1.txtar" 2>/dev/null
}

down() {
	rc-service $S stop || true
	rc-service $S zap
	pkill -KILL -x $S || true
	settle
}

PLAIN="command=$D command_background=true pidfile=/run/$S.pid"
SUPERVISED="supervisor=supervise-daemon command=$D pidfile=/run/$S.pid respawn_delay=3 respawn_max=2 respawn_period=60"

script $PLAIN
rc-update add $S default
capture stopped
rc-service $S start
settle
capture running
kill -KILL "$(cat /run/$S.pid)"
settle
capture crashed
down
rc-update del $S default
rc-service $S start
settle
capture disabled
down
rc-update add $S default

script $PLAIN 'start_post() { sleep 2; }' 'stop_post() { sleep 2; }'
rc-service $S start &
sleep 1
capture starting
wait
rc-service $S stop &
sleep 1
capture stopping
wait
down

script $SUPERVISED
rc-service $S start
settle
capture supervised
kill -KILL "$(cat /run/openrc/options/$S/child_pid)"
settle
capture respawning
sleep 3
capture respawned
kill -KILL "$(cat /run/$S.pid)"
settle
capture unsupervised
down

script "supervisor=supervise-daemon command=$D pidfile=/run/$S.pid respawn_max=1"
rc-service $S start
for _ in 1 2; do
	settle
	kill -KILL "$(cat /run/openrc/options/$S/child_pid)"
done
settle
capture gave-up
down

script 'start() { :; }'
rc-service $S start
capture without-daemon
down

script 'start() { mark_service_inactive; }'
rc-service $S start || true
capture inactive
down

script "start() { start-stop-daemon --start --background --exec $D; }"
rc-service $S start
settle
capture without-pidfile
down

rc-update del $S default
rm -f $D /etc/init.d/$S
