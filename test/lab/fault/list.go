package fault

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

//go:embed files/saturate.py
var saturateScript string

// All lists every fault, in the order of FAULTS.md.
func All() []Fault {
	var all []Fault
	all = append(all, processFaults()...)
	all = append(all, unitFaults()...)
	all = append(all, operatorFaults()...)
	all = append(all, postgresFaults()...)
	all = append(all, rivalFaults()...)
	all = append(all, clusterFaults()...)
	all = append(all, networkFaults()...)
	return append(all, hostileFaults()...)
}

func processFaults() []Fault {
	return []Fault{
		{
			Name: "patroni-kill", ID: "F01", Kind: stack.Postgres, Summary: "SIGKILL Patroni's main process once",
			Do: script(`kill -KILL "$(mp)"`),
		},
		{
			Name: "patroni-stop", ID: "F02 F03", Kind: stack.Postgres, Summary: "SIGSTOP Patroni's main process: hung, yet active for systemd",
			Do: script(`kill -STOP "$(mp)"`), Undo: script(`p=$(mp); [ "$p" = 0 ] || kill -CONT "$p"`),
		},
		{
			Name: "patroni-start-limit", ID: "F05", Kind: stack.Postgres, Summary: "SIGKILL Patroni until systemd gives up; PostgreSQL runs on as an orphan",
			Do: script(startLimit), Undo: script(`systemctl reset-failed patroni; systemctl start patroni`),
		},
		{
			Name: "patroni-crash-loop", ID: "F06", Kind: stack.Postgres, Summary: "SIGKILL Patroni every 15 s, just under the start limit",
			Do: script(`setsid sh -c 'while :; do kill -KILL "$(systemctl show -p MainPID --value patroni)"; sleep 15; done' >/dev/null 2>&1 </dev/null &
echo $! >> /run/lab/pids`),
			Undo: script(killLeftOvers),
		},
		{
			Name: "rest-saturate", ID: "F17", Kind: stack.Postgres, Summary: "a crowd of slow and busy clients on Patroni's REST port while its loop lives and the lease is renewed",
			Do: saturate, Undo: script(killLeftOvers),
		},
		{
			Name: "rest-refuse", ID: "F17", Kind: stack.Postgres, Summary: "Patroni's REST port has no listener any more while its loop lives and the lease is renewed",
			// The kernel closes the socket; Patroni is not told, and opens no other. A new Patroni has one again.
			Do: script(`touch /run/lab/rest-refuse
ss -HKltn 'sport = :8008' | grep -q . || { echo "the kernel closes no sockets (CONFIG_INET_DIAG_DESTROY)"; exit 1; }
[ -z "$(ss -Hltn 'sport = :8008')" ]`),
			Undo: script(`rm -f /run/lab/rest-refuse; kill -KILL "$(mp)"`),
		},
		{
			Name: "loop-stuck", ID: "F18", Kind: stack.Postgres, Summary: "Patroni's loop blocks for good in open(2) of a FIFO while its REST threads live on",
			Do: loopStuck,
			// Any signal with a handler interrupts the open; Python then opens the path again, which is a regular file by now.
			Undo: script(`p=$(mp); rm -f /run/lab/loop-stuck; [ "$p" = 0 ] || kill -HUP "$p"`),
		},
	}
}

const killLeftOvers = `[ -s /run/lab/pids ] && xargs -r kill -KILL < /run/lab/pids 2>/dev/null; rm -f /run/lab/pids`

func unitFaults() []Fault {
	return []Fault{
		{
			Name: "unit-stop", ID: "F07", Kind: stack.Postgres, Summary: "systemctl stop patroni: the operator's wish",
			Do: script(`systemctl stop patroni`), Undo: script(`systemctl start patroni`),
		},
		{
			Name: "unit-restart", ID: "F09", Kind: stack.Postgres, Summary: "systemctl restart patroni: PostgreSQL stops, and on the leader another member takes over (L3)",
			Do: script(`systemctl restart patroni`),
		},
		{
			Name: "unit-mask", ID: "F08", Kind: stack.Postgres, Summary: "systemctl stop patroni, and mask it",
			// Not mask --now: a masked unit has forgotten its KillMode, so systemd signals PostgreSQL as well, which then may
			// take 90 s to stop.
			Do:   script(`systemctl stop patroni; systemctl mask -q patroni`),
			Undo: script(`systemctl unmask -q patroni; systemctl start patroni`),
		},
		{
			Name: "unit-disable", ID: "F08", Kind: stack.Postgres, Summary: "systemctl disable --now patroni",
			Do: script(`systemctl disable -q --now patroni`), Undo: script(`systemctl enable -q --now patroni`),
		},
		{
			Name: "dropin-killmode", ID: "F02", Kind: stack.Postgres, Summary: "the unit becomes a hand-written one without KillMode=process (FACTS.md §10)",
			Do: script(`mkdir -p /etc/systemd/system/patroni.service.d
printf '[Service]\nKillMode=control-group\n' > /etc/systemd/system/patroni.service.d/lab.conf
systemctl daemon-reload`),
			Undo: script(`rm -f /etc/systemd/system/patroni.service.d/lab.conf; systemctl daemon-reload`),
		},
		{
			Name: "config-break", ID: "F13", Kind: stack.Postgres, Summary: "append a line that is no YAML to Patroni's configuration, without telling Patroni",
			Do: script(`echo 'bad: [unclosed' >> /etc/patroni/config.yml`), Undo: script(restoreConfig),
		},
	}
}

const restoreConfig = `install -o postgres -g postgres -m 0640 /etc/lab/config.yml /etc/patroni/config.yml.new
mv /etc/patroni/config.yml.new /etc/patroni/config.yml`

func postgresFaults() []Fault {
	return []Fault{
		{
			Name: "postmaster-kill", ID: "F19", Kind: stack.Postgres, Summary: "SIGKILL the postmaster",
			Do: script(`kill -KILL "$(head -1 /var/lib/postgresql/17/patroni/postmaster.pid)"`),
		},
		{
			Name: "backend-kill", ID: "F21", Kind: stack.Postgres, Summary: "SIGKILL one backend: every session is reset, the postmaster lives",
			Do: script(`p=$(runuser -u postgres -- psql -XAt -c "SELECT pid FROM pg_stat_activity WHERE backend_type='client backend' AND pid<>pg_backend_pid() ORDER BY usename='app' DESC LIMIT 1")
kill -KILL "$p"`),
		},
	}
}

func clusterFaults() []Fault {
	return []Fault{
		{
			Name: "pause", ID: "F11", Kind: stack.Postgres, Summary: "pause the Patroni cluster",
			Do: patch(`{"pause":true}`), Undo: patch(`{"pause":null}`),
		},
		{
			Name: "leader-key-delete", ID: "F32", Kind: stack.Etcd, Summary: "delete the leader key; its holder takes it again within a second",
			Do: script(`etcdctl del ` + stack.Namespace + `/` + stack.Scope + `/leader`),
		},
		{
			Name: "etcd-kill", ID: "F38 F40", Kind: stack.Etcd, Summary: "SIGKILL an etcd member and keep it dead (two of them: quorum lost)",
			Do:   steps(engine("update", "--restart=no", "CONTAINER"), engine("kill", "CONTAINER")),
			Undo: steps(engine("start", "CONTAINER"), engine("update", "--restart=always", "CONTAINER")),
		},
		{
			Name: "etcd-pause", ID: "F39", Kind: stack.Etcd, Summary: "freeze an etcd member",
			Do: engine("pause", "CONTAINER"), Undo: engine("unpause", "CONTAINER"),
		},
		{
			Name: "etcd-nospace", ID: "F41", Kind: stack.Etcd, Summary: "raise the NOSPACE alarm: leases are renewed, nothing can be written",
			Do: script(`id=$(curl -sf -m 3 -X POST -d '{}' http://127.0.0.1:2379/v3/maintenance/status | sed -n 's/.*"member_id":"\([0-9]*\)".*/\1/p')
curl -sf -m 3 -o /dev/null -X POST -d "{\"action\":\"ACTIVATE\",\"memberID\":\"$id\",\"alarm\":\"NOSPACE\"}" http://127.0.0.1:2379/v3/maintenance/alarm
etcdctl alarm list | grep -q NOSPACE`),
			Undo: script(`etcdctl alarm disarm`),
		},
	}
}

func networkFaults() []Fault {
	return []Fault{
		{
			Name: "blackhole-etcd", ID: "F59", Kind: stack.Postgres, Summary: "the node loses etcd only",
			Do:   etcdScript(`for a in "$@"; do ip route replace blackhole "$a/32"; done`),
			Undo: etcdScript(`for a in "$@"; do ip route del blackhole "$a/32" || true; done`),
		},
		{
			Name: "network-disconnect", ID: "F62", Kind: stack.Postgres, Summary: "the node loses its whole network",
			Do: engine("network", "disconnect", "NETWORK", "CONTAINER"),
			Undo: func(ctx context.Context, s *stack.Stack, n stack.Node) error {
				return s.Connect(ctx, n)
			},
		},
	}
}

// loopStuck makes Patroni's main thread sleep in open(2) of a FIFO, and then puts back the file that stood in its
// place, so that every other reader finds it whole. Patroni does not open a configuration of its own that is not a
// regular file (4.0.7, config.py), but it writes postgresql.conf without looking: a harmless change of a parameter in
// the dynamic configuration makes its loop do that. The REST threads live on. PostgreSQL reads the file only when it
// is told to. It returns only when the thread really sleeps there.
func loopStuck(ctx context.Context, s *stack.Stack, n stack.Node) error {
	if err := script(`f=/var/lib/postgresql/17/patroni/postgresql.conf
mkfifo -m 0600 "$f.fifo"; chown postgres:postgres "$f.fifo"
cp -p "$f" "$f.whole"; mv "$f.fifo" "$f"; touch /run/lab/loop-stuck`)(ctx, s, n); err != nil {
		return err
	}
	// A value that was never used before: the loop writes the file only when something changed.
	change := fmt.Sprintf(`{"postgresql":{"parameters":{"log_min_duration_statement":%d}}}`, 3_600_000+rand.IntN(1_000_000))
	err := s.PatchConfig(ctx, change)
	if err == nil {
		err = waitStuck(ctx, s, n)
	}
	return errors.Join(err, script(`f=/var/lib/postgresql/17/patroni/postgresql.conf; mv "$f.whole" "$f"`)(ctx, s, n))
}

func waitStuck(ctx context.Context, s *stack.Stack, n stack.Node) error {
	// As the same user: the engine's containers may not look into other users' processes.
	const wait = `p=$(systemctl show -p MainPID --value patroni.service)
for i in $(seq 150); do case "$(cat /proc/$p/task/$p/wchan)" in *partner*|*fifo*) exit 0;; esac; sleep .2; done
echo "main thread sleeps in: $(cat /proc/$p/task/$p/wchan)"; exit 1`
	if out, err := s.Docker(ctx, "exec", "-u", "postgres", s.Container(n), "sh", "-c", wait); err != nil {
		return fmt.Errorf("wait for the loop to block: %w: %s", err, out)
	}
	return nil
}

func saturate(ctx context.Context, s *stack.Stack, n stack.Node) error {
	return script(`cat > /run/lab/saturate.py <<'PY'
`+saturateScript+`PY
setsid python3 /run/lab/saturate.py >/dev/null 2>&1 </dev/null &
echo $! >> /run/lab/pids
sleep 2`)(ctx, s, n)
}
