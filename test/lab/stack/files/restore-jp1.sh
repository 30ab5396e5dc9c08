# Undoes every fault of the machine under OpenRC. Idempotent.
if [ -s /run/lab/pids ]; then xargs -r kill -KILL < /run/lab/pids 2>/dev/null; rm -f /run/lab/pids; fi
ip route show type blackhole | while read -r _ to _; do ip route del blackhole "$to"; done
cmp -s /etc/conf.d/etcd /etc/lab/etcd.conf || cp /etc/lab/etcd.conf /etc/conf.d/etcd
pkill -CONT -x etcd
rc-update -q add etcd default >/dev/null 2>&1
if ! pgrep -x etcd >/dev/null; then rc-service -q etcd zap; rc-service -q etcd start; fi
rc-service -q etcd status >/dev/null || rc-service -q etcd start
