#!/bin/bash
# Captures the properties of small units in every state, as busctl prints them, into the directory given. Run it as root
# in a throw-away container with systemd as PID 1 and the package jq. Only what parse reads is kept, and a few
# neighbours; the path of the container's own cgroup is cut off.
set -eu
out=$1
mkdir -p "$out"
keep='["LoadState","ActiveState","SubState","Result","ExecMainStatus","ExecMainCode","Job","UnitFileState","MainPID","InvocationID","NRestarts","ControlGroup","User","KillMode","Restart","RestartUSec","StartLimitBurst","StartLimitIntervalUSec","OOMPolicy","FragmentPath","Id","Names","Type","TimeoutStopUSec","LoadError","ControlPID","StatusText","Description","ExecMainStartTimestampMonotonic","ExecMainExitTimestampMonotonic","ActiveExitTimestampMonotonic"]'
grab() {
	busctl --json=short call org.freedesktop.systemd1 "/org/freedesktop/systemd1/unit/$2_2eservice" \
		org.freedesktop.DBus.Properties GetAll s "" |
		jq -S --argjson keep "$keep" '.data[0] | with_entries(select(.key as $k | $keep | index($k)))' |
		sed 's|"/docker/[0-9a-f]*/|"/|' >"$out/$1.json"
}
unit() { cat >"/run/systemd/system/$1.service"; systemctl daemon-reload; }
crash() { kill -KILL "$(systemctl show --value -p MainPID "$1")"; }
mkdir -p /run/systemd/system

unit capplain <<'U'
[Service]
ExecStart=sleep infinity
Restart=on-failure
KillMode=process
User=nobody
[Install]
WantedBy=multi-user.target
U
grab never-started capplain
systemctl -q enable --now capplain
grab running capplain
systemctl stop capplain
grab stopped capplain
systemctl reset-failed capplain
systemctl start capplain
while systemctl is-active -q capplain; do
	crash capplain
	sleep 0.3
done
grab start-limit capplain
systemctl reset-failed capplain
systemctl start capplain
systemctl -q mask capplain
grab masked-running capplain
rm /etc/systemd/system/capplain.service
sed -i 's|^ExecStart=|ExecStart=x/|' /run/systemd/system/capplain.service
systemctl daemon-reload
grab bad-setting-running capplain
systemctl stop capplain
systemctl -q disable capplain

unit capauto <<'U'
[Service]
ExecStart=sleep infinity
Restart=always
RestartSec=2
U
systemctl start capauto
crash capauto
sleep 0.3
grab auto-restart capauto
systemctl stop capauto

unit capstop <<'U'
[Service]
ExecStart=sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
ExecStopPost=sleep 1
Restart=on-failure
U
systemctl start capstop
sleep 0.3
systemctl --no-block restart capstop
sleep 0.5
grab restart-job capstop
sleep 2
systemctl stop capstop
grab stopped-exit-code capstop

unit capslow <<'U'
[Service]
ExecStart=sleep infinity
Type=notify
U
systemctl --no-block start capslow
sleep 0.3
grab starting capslow
systemctl stop capslow

grab not-found capabsent
