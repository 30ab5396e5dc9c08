# Undoes every fault that the lab can inject into a node. Idempotent; says nothing when there is nothing to undo.
# Runs inside the container; $1 is "pg" or "haproxy".
if [ -s /run/lab/pids ]; then xargs -r kill -KILL < /run/lab/pids 2>/dev/null; rm -f /run/lab/pids; fi
ip route show type blackhole | while read -r _ to _; do ip route del blackhole "$to"; done
tc qdisc del dev eth0 root 2>/dev/null
changed=
for d in /etc/systemd/system/*.d /run/systemd/system/*.d; do
  if [ -e "$d/lab.conf" ]; then rm -f "$d/lab.conf"; rmdir "$d" 2>/dev/null; changed=1; fi
done
[ -n "$changed" ] && systemctl daemon-reload
if [ "$1" = haproxy ]; then
  cmp -s /etc/haproxy/haproxy.cfg /etc/lab/haproxy.cfg || { cat /etc/lab/haproxy.cfg > /etc/haproxy/haproxy.cfg; changed=1; }
  pkill -CONT -x haproxy
  systemctl reset-failed haproxy.service 2>/dev/null
  systemctl start haproxy.service
  exit
fi
if ! cmp -s /etc/patroni/config.yml /etc/lab/config.yml; then
  install -o postgres -g postgres -m 0640 /etc/lab/config.yml /etc/patroni/config.yml.new
  mv /etc/patroni/config.yml.new /etc/patroni/config.yml
  pkill -HUP -o -x patroni
fi
conf=/var/lib/postgresql/17/patroni/postgresql.conf
[ -e $conf.whole ] && mv $conf.whole $conf
rm -f $conf.fifo
# A start of PostgreSQL that waits for a FIFO: the file comes back first, then its reader gets the content.
origin=/var/lib/postgresql/17/patroni/pg_logical/replorigin_checkpoint
if [ -e $origin.whole ]; then
  ln $origin $origin.fifo; mv $origin.whole $origin
  timeout 2 dd if=$origin of=$origin.fifo oflag=nonblock conv=notrunc status=none 2>/dev/null
fi
rm -f $origin.fifo
systemctl stop lab-rival.service 2>/dev/null
# A replica that diverged silently is copied anew.
if [ -e /var/lib/lab/diverged ]; then
  systemctl stop patroni.service
  rm -rf /var/lib/postgresql/17/rival /var/lib/postgresql/17/patroni /var/lib/lab/diverged
fi
# A signal interrupts the open(2) that the loop sleeps in; Python opens the path again, a regular file by now.
if [ -e /run/lab/loop-stuck ]; then rm -f /run/lab/loop-stuck; pkill -HUP -o -x patroni; fi
# Nothing gives Patroni its listener back; a new Patroni has one.
if [ -e /run/lab/rest-refuse ]; then
  rm -f /run/lab/rest-refuse
  [ -n "$(ss -Hltn 'sport = :8008')" ] || pkill -KILL -o -x patroni
fi
pkill -CONT -x patroni; pkill -CONT -x postgres
case "$(systemctl is-enabled patroni 2>/dev/null)" in masked*) systemctl unmask -q patroni;; esac
[ "$(systemctl is-enabled patroni 2>/dev/null)" = enabled ] || systemctl enable -q patroni 2>/dev/null
systemctl reset-failed patroni.service 2>/dev/null
systemctl is-active -q patroni || systemctl start patroni.service
