package fault

// lastKill is where startLimit notes, in nanoseconds since 1970, when it killed last.
const lastKill = "/run/lab/last-kill"

// startLimit kills Patroni until systemd gives up. An agent may have started the unit again before its failure is seen
// here: then systemd counts restarts from zero again, and nothing more is killed.
const startLimit = `last=0
for i in $(seq 400); do
  eval "$(systemctl show -p ActiveState -p NRestarts -p MainPID patroni.service)"
  [ "$ActiveState" != failed ] && [ "$NRestarts" -ge "$last" ] || exit 0
  last=$NRestarts
  [ "$MainPID" = 0 ] || ! kill -KILL "$MainPID" 2>/dev/null || date +%s%N > ` + lastKill + `
  sleep .05
done; echo "the unit never failed"; exit 1`
