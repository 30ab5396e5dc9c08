package fault

import "github.com/pgpatrol/pgpatrol/test/lab/stack"

// rivalFaults are postmasters that Patroni did not start, and one that it did start and that takes its time.
func rivalFaults() []Fault {
	return []Fault{
		{
			Name: "postgres-slow-start", ID: "F23", Kind: stack.Postgres, Summary: "SIGKILL the postmaster and let crash recovery of the next one take as long as the fault lasts",
			Do: script(slowStart), Undo: script(slowStartEnd),
		},
		{
			Name: "postgres-rival", ID: "F25", Kind: stack.Postgres, Summary: "another unit starts PostgreSQL on Patroni's data directory before Patroni, without primary_conninfo",
			Do: script(`systemctl stop patroni
` + rival("/var/lib/postgresql/17/patroni", "-c primary_conninfo=") + `
systemctl start patroni`),
			Undo: script(`systemctl stop lab-rival.service`),
		},
		{
			Name: "replica-diverge", ID: "F105", Kind: stack.Postgres, Summary: "a replica is bootstrapped while a rival holds port 5432: it diverges silently",
			Do: script(diverge()), Undo: script(reinit),
		},
	}
}

// rival starts a server under a unit of its own and returns when it answers.
func rival(dir, args string) string {
	return `systemd-run -q --unit=lab-rival.service -p User=postgres -p Type=exec -p KillSignal=SIGINT \
  /usr/lib/postgresql/17/bin/postgres -D ` + dir + ` ` + args + `
for i in $(seq 50); do runuser -u postgres -- pg_isready -q -h 127.0.0.1 && break; sleep .2; done
runuser -u postgres -- pg_isready -q -h 127.0.0.1`
}

// The startup process reads pg_logical/replorigin_checkpoint before it replays WAL: a FIFO in its place makes it wait
// for as long as nobody writes to it, and the server says "starting up" to everybody, as with a slow disk.
const slowStart = `d=/var/lib/postgresql/17/patroni; f=$d/pg_logical/replorigin_checkpoint
mkfifo -m 0600 "$f.fifo"; chown postgres:postgres "$f.fifo"
cp -p "$f" "$f.whole"; mv "$f.fifo" "$f"
kill -KILL "$(head -1 $d/postmaster.pid)"`

// The file comes back before its reader gets the content: the first checkpoint renames another one over it.
const slowStartEnd = `f=/var/lib/postgresql/17/patroni/pg_logical/replorigin_checkpoint
[ -e "$f.whole" ] || exit 0
ln "$f" "$f.fifo"; mv "$f.whole" "$f"
timeout 2 dd if="$f" of="$f.fifo" oflag=nonblock conv=notrunc status=none || true
rm -f "$f.fifo"`

// diverge bootstraps a replica while a rival holds the port (FAULTS.md L32). The rival's socket is not where the witnesses
// ask: it is another database, and no second primary of this one. The mark in /var/lib/lab outlives a restart of the
// container: this replica must be copied anew before it counts again.
func diverge() string {
	return `d=/var/lib/postgresql/17
mkdir -p /var/lib/lab; touch /var/lib/lab/diverged
systemctl stop patroni
rm -rf $d/rival; install -d -o postgres -g postgres -m 0700 $d/rival
runuser -u postgres -- /usr/lib/postgresql/17/bin/initdb -N -D $d/rival >/dev/null 2>&1
` + rival("$d/rival", "-k /tmp") + `
rm -rf $d/patroni
since=$(date '+%F %T')
systemctl start patroni
single() { journalctl -q -u patroni --since "$since" -o cat | grep -q 'single user mode'; }
for i in $(seq 150); do single && break; sleep .2; done
single || { echo "Patroni never ran crash recovery on the copy"; exit 1; }
sleep 1
systemctl stop lab-rival.service
for i in $(seq 100); do runuser -u postgres -- psql -XAtc 'SELECT 1' >/dev/null 2>&1 && exit 0; sleep .2; done
echo "the copy never came up"; exit 1`
}

const reinit = `[ -e /var/lib/lab/diverged ] || exit 0
systemctl stop lab-rival.service 2>/dev/null || true
systemctl stop patroni
rm -rf /var/lib/postgresql/17/rival /var/lib/postgresql/17/patroni /var/lib/lab/diverged
systemctl start patroni`
