package scenario

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// Marks that steps leave for the checks of checks_heal.go. The text is the node that they are about, unless said.
const (
	markTarget    = "target"       // which node was broken, where it is not the leader
	markMayAct    = "may-act"      // from here on the agent may act
	markLastKill  = "last-kill"    // the one after which systemd gave up
	markDied      = "agent-died"   // at its failpoint
	markPlan      = "plan"         // text: what `pgpatrol plan --json` said just then
	markMemberKey = "member-key"   // text: present or absent
	markZombie    = "zombie-write" // text: bytes of WAL that were written on the second primary
)

// patroniPID is a word of shell: the main process of Patroni.
const patroniPID = `"$(systemctl show -p MainPID --value patroni.service)"`

// markAt writes a moment that was measured inside a node.
func (r *Run) markAt(at time.Time, name, text string) {
	r.Log.Info("mark", "name", name, "what", text)
	r.collector.add(record.Record{At: at.UTC(), Node: "lab", Mark: &record.Mark{Name: name, Text: text}})
}

// awaitRenewal returns right after the leader's lease was renewed.
func awaitRenewal(ctx context.Context, r *Run) error {
	const wait = `key=` + stack.Namespace + `/` + stack.Scope + `/leader
id=$(printf %x "$(etcdctl get "$key" -w fields | sed -n 's/^"Lease" : //p')")
old=999
for i in $(seq 150); do
  left=$(etcdctl lease timetolive "$id" | sed -n 's/.*remaining(\(-*[0-9]*\)s).*/\1/p')
  [ "$left" -gt "$old" ] && exit 0
  old=$left; sleep .15
done; echo "lease $id was not renewed"; exit 1`
	if out, err := r.Stack.Exec(ctx, r.Stack.Of(stack.Etcd)[0], wait); err != nil {
		return fmt.Errorf("wait for a renewal: %w: %s", err, out)
	}
	r.Mark(MarkRenewed, r.Leader.Name)
	return nil
}

// resumeOnRefusal continues the hung Patroni as soon as the agent's plan shows a refusal by the lease window, and 9.5 s
// after it was called at the latest.
func resumeOnRefusal(ctx context.Context, r *Run) error {
	const wait = `for i in $(seq 60); do
  [ -x ` + stack.AgentBinary + ` ] || break
  p=$(timeout 2 ` + stack.AgentBinary + ` plan --json 2>/dev/null)
  case $p in *lease-window*) break;; esac
  [ "$(cut -d. -f1 /proc/uptime)" -lt "$(($1 + 9))" ] || break
  sleep .2
done
kill -CONT ` + patroniPID + `; printf %s "$p"`
	now, err := r.Stack.Exec(ctx, r.Leader, `cut -d. -f1 /proc/uptime`)
	if err != nil {
		return fmt.Errorf("read the clock of %s: %w", r.Leader.Name, err)
	}
	plan, err := r.Stack.Exec(ctx, r.Leader, wait, strings.TrimSpace(now))
	if err != nil {
		return fmt.Errorf("continue Patroni: %w: %s", err, plan)
	}
	r.Mark("resumed", r.Leader.Name)
	r.collector.mark(markPlan, plan)
	return nil
}

// noteMemberKey says whether the member key of a node is there.
func noteMemberKey(ctx context.Context, r *Run, n stack.Node) error {
	out, err := r.Stack.Exec(ctx, r.Stack.Of(stack.Etcd)[0], `etcdctl get --keys-only "$1"`, stack.Namespace+"/"+stack.Scope+"/members/"+n.Member)
	if err != nil {
		return fmt.Errorf("read member key of %s: %w", n.Name, err)
	}
	text := "present"
	if strings.TrimSpace(out) == "" {
		text = "absent"
	}
	r.Mark(markMemberKey, text)
	return nil
}

// makeZombie hangs the leader's Patroni, waits until another member has promoted itself, and writes on the old primary
// directly, as a client with an old address would.
func makeZombie(ctx context.Context, r *Run) error {
	began := time.Now()
	if err := hangLeader(ctx, r); err != nil {
		return err
	}
	limit := began.Add(seconds(r.Timings.TTL) + 20*time.Second)
	for len(judge.SecondPrimary(r.collector.records(), judge.Window{From: began, To: time.Now()})) == 0 {
		if time.Now().After(limit) {
			return errors.New("no second primary came")
		}
		if err := r.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	r.Mark("zombie", r.Leader.Name)
	// The new leader writes the history of timelines in the loop after its promotion.
	if err := r.Sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	const write = `runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 <<'SQL'
SELECT pg_current_wal_lsn() AS before \gset
CREATE TABLE zombie AS SELECT n, repeat('x', 100) AS t FROM generate_series(1, 5000) n;
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), :'before');
SQL`
	out, err := r.Stack.Exec(ctx, r.Leader, write)
	if err != nil {
		return fmt.Errorf("write on the second primary: %w: %s", err, out)
	}
	r.Mark(markZombie, strings.TrimSpace(out))
	return nil
}

// switchPolicy rewrites the agent's configuration as a person would, and tells the service to reload it.
func switchPolicy(ctx context.Context, r *Run, n stack.Node, class, from, to string) error {
	const edit = `grep -q "^  $1: \"$2\"$" "$4" || { echo "no such line"; exit 1; }
sed -i "s/^  $1: \"$2\"$/  $1: \"$3\"/" "$4" && systemctl reload pgpatrol.service`
	if out, err := r.Stack.Exec(ctx, n, edit, class, from, to, stack.AgentConfig); err != nil {
		return fmt.Errorf("switch policy of %s: %w: %s", n.Name, err, out)
	}
	return nil
}

// forgetAgent stops an agent and removes what it remembers.
func forgetAgent(ctx context.Context, r *Run, n stack.Node) error {
	if out, err := r.Stack.Exec(ctx, n, `systemctl stop pgpatrol.service && rm -rf /var/lib/pgpatrol/*`); err != nil {
		return fmt.Errorf("stop agent of %s: %w: %s", n.Name, err, out)
	}
	return nil
}

func startAgent(ctx context.Context, r *Run, n stack.Node) error {
	if out, err := r.Stack.Exec(ctx, n, `systemctl start pgpatrol.service`); err != nil {
		return fmt.Errorf("start agent of %s: %w: %s", n.Name, err, out)
	}
	return nil
}

// crashUntilFailed drives a node's Patroni into its start limit and notes the moment of the last crash.
func crashUntilFailed(ctx context.Context, r *Run, n stack.Node) error {
	if err := r.Inject(ctx, "patroni-start-limit", n); err != nil {
		return err
	}
	out, err := r.Stack.Exec(ctx, n, `cat /run/lab/last-kill`)
	if err != nil {
		return fmt.Errorf("read the moment of the last crash: %w: %s", err, out)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fmt.Errorf("read the moment of the last crash: %w", err)
	}
	r.markAt(time.Unix(0, ns), markLastKill, n.Name)
	return nil
}

// awaitPatroniAge waits until a node's Patroni has run for that long.
func awaitPatroniAge(ctx context.Context, r *Run, n stack.Node, age time.Duration) error {
	const wait = `since=$(systemctl show -p ExecMainStartTimestampMonotonic --value patroni.service)
left=$(($1 - $(cut -d. -f1 /proc/uptime) + since / 1000000))
[ "$left" -le 0 ] || sleep "$left"`
	if out, err := r.Stack.Exec(ctx, n, wait, strconv.Itoa(int(age.Seconds())+1)); err != nil {
		return fmt.Errorf("wait for Patroni's age: %w: %s", err, out)
	}
	return nil
}
