# Undoes every fault of the forwarders' machine. Idempotent.
if [ -s /run/lab/pids ]; then xargs -r kill -KILL < /run/lab/pids 2>/dev/null; rm -f /run/lab/pids; fi
ip route show type blackhole | while read -r _ to _; do ip route del blackhole "$to"; done
systemctl start dbus.socket dbus.service 2>/dev/null
changed=
cmp -s /etc/etcd-socat.env /etc/lab/etcd-socat.env || { cp /etc/lab/etcd-socat.env /etc/etcd-socat.env; changed=1; }
for d in /etc/systemd/system/*.d; do
  if [ -e "$d/lab.conf" ]; then rm -f "$d/lab.conf"; rmdir "$d" 2>/dev/null; changed=1; fi
done
[ -n "$changed" ] && systemctl daemon-reload
pkill -CONT -x socat
if [ -e /run/systemd/system/lab-vm.service ]; then
  systemctl stop lab-vm.service; systemctl reset-failed lab-vm.service 2>/dev/null
  rm -f /run/systemd/system/lab-vm.service /run/lab-vm.booted; systemctl daemon-reload
fi
for u in etcd-socat.service etcd-socat-peer.service; do
  case "$(systemctl is-enabled $u 2>/dev/null)" in masked*) systemctl unmask -q $u;; esac
  systemctl enable -q $u 2>/dev/null
  systemctl reset-failed $u 2>/dev/null
  if [ -n "$changed" ]; then systemctl restart $u; else systemctl start $u; fi
done
