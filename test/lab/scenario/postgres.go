package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// postgresScenarios are about PostgreSQL itself, rival postmasters, and what looks like a hang and is none: nothing may
// be done about them.
func postgresScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F19", Title: "the postmaster is killed on the leader", Timings: fastTimings(),
			Fault:   func(ctx context.Context, r *Run) error { return r.Inject(ctx, "postmaster-kill", r.Leader) },
			Observe: lookFor(18 * time.Second),
			Heal: append(kept(),
				Postmasters(theLeader, 2), Untouched(theLeader, theReplica, theSpare), WriterBroken(),
				NeverFound("PATRONI_HUNG", "PATRONI_LOOP_STUCK", "RIVAL_POSTMASTER", "ZOMBIE_PRIMARY"),
				says(theLeader, "well", quiet("holds the leader key and renews its lease"))),
		},
		{
			ID: "F21", Title: "one backend is killed on the leader", Timings: fastTimings(),
			Fault:   func(ctx context.Context, r *Run) error { return r.Inject(ctx, "backend-kill", r.Leader) },
			Observe: lookFor(12 * time.Second),
			Heal: append(kept(),
				Postmasters(theLeader, 1), Untouched(theLeader, theReplica, theSpare), WriterBroken(),
				NeverFound("PATRONI_HUNG", "PATRONI_LOOP_STUCK", "RIVAL_POSTMASTER", "ZOMBIE_PRIMARY"),
				says(theLeader, "well", quiet("holds the leader key and renews its lease"))),
		},
		{
			ID: "F23", Title: "PostgreSQL of the leader is starting for a while, and then Patroni hangs", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "postgres-slow-start", r.Leader); err != nil {
					return err
				}
				if err := r.Sleep(ctx, 12*time.Second); err != nil {
					return err
				}
				notePlans(ctx, r, "before")
				return hangForAWhile(ctx, r)
			},
			Observe: lookFor(26 * time.Second),
			Heal: append(kept(),
				Unanswered(theLeader, 22*time.Second), Untouched(theLeader, theReplica, theSpare),
				NeverFound("PATRONI_LOOP_STUCK", "RIVAL_POSTMASTER", "ZOMBIE_PRIMARY"),
				saysAt("before", theLeader, "starting", quiet("PostgreSQL is starting")),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "left alone while it starts", refuses("PATRONI_HUNG", "busy-work"))),
		},
		{
			ID: "F25", Title: "another unit owns the postmaster of a replica, which does not stream", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "postgres-rival", r.Replicas[0]); err != nil {
					return err
				}
				if err := r.Sleep(ctx, 8*time.Second); err != nil {
					return err
				}
				return askReceiver(ctx, r, r.Replicas[0])
			},
			Observe: lookFor(16 * time.Second),
			Heal: append(kept(),
				Marked("replica streams", "no"), Lives(theReplica, 2, 0), Untouched(theLeader, theSpare), GapUnder(time.Second),
				FoundWithin(theReplica, "RIVAL_POSTMASTER", 14*time.Second),
				says(theReplica, "a rival", finds("RIVAL_POSTMASTER", "page", "lab-rival.service"))),
		},
		{
			ID: "F32", Title: "the leader key vanishes for less than a second", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				return r.Inject(ctx, "leader-key-delete", r.Stack.Of(stack.Etcd)[0])
			},
			Observe: lookFor(12 * time.Second),
			Heal: append(kept(),
				LeaderKeyReplaced(), Untouched(theLeader, theReplica, theSpare), GapUnder(time.Second), NeverFound("LEADERLESS", "PATRONI_HUNG", "ZOMBIE_PRIMARY"),
				says(theLeader, "well", quiet("holds the leader key and renews its lease"))),
		},
		{
			ID: "F105", Title: "a replica has silently diverged", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "replica-diverge", r.Replicas[0]); err != nil {
					return err
				}
				return compareContent(ctx, r, r.Replicas[0])
			},
			// The fault takes 10 to 15 s, and the log is read again 15 s after every start. No limit for the writer: the fault
			// itself makes it wait for a checkpoint.
			Observe: lookFor(30 * time.Second),
			Heal: append(kept(),
				Marked("replica streams", "yes"), Marked("replica has the leader's content", "no"),
				Untouched(theLeader, theSpare), FoundWithin(theReplica, "REPLICA_DIVERGED", 30*time.Second),
				says(theReplica, "diverged", finds("REPLICA_DIVERGED", "page", "patronictl reinit"))),
		},
		{
			ID: "F17-busy", Title: "a crowd on the leader's REST port while the lease is renewed", Timings: []string{"fast", "default"},
			Fault:   func(ctx context.Context, r *Run) error { return r.Inject(ctx, "rest-saturate", r.Leader) },
			Observe: lookFor(26 * time.Second),
			Heal: append(kept(),
				Untouched(theLeader, theReplica, theSpare), NeverFound("PATRONI_HUNG", "PATRONI_LOOP_STUCK", "ZOMBIE_PRIMARY"),
				// A loop that is starved renews late; a lease that lost a third of its life would be one that it missed.
				LeaseNeverBelow(func(e Evidence) int64 { return int64(e.Timings.TTL * 2 / 3) }),
				// Between two slow answers nothing at all is wrong; after three without one the agent says who is to blame.
				says(theLeader, "busy, not hung", either(quiet("renews its lease"), finds("PATRONI_API_DEAD", "page", "starved, not dead")))),
		},
	}
}

// askReceiver notes whether a replica streams.
func askReceiver(ctx context.Context, r *Run, n stack.Node) error {
	out, err := sql(ctx, r, n, "app", `SELECT CASE WHEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'yes' ELSE 'no' END`)
	if err != nil {
		return err
	}
	r.Mark("replica streams", out)
	return nil
}

// compareContent makes a table on the leader, lets the leader's WAL pass the place where the replica wrote its own, waits
// until the replica streams and has replayed everything, and notes whether it has the table.
func compareContent(ctx context.Context, r *Run, replica stack.Node) error {
	table := fmt.Sprintf("lab_content_%d", time.Now().UnixNano())
	if _, err := sql(ctx, r, r.Leader, "app", `CREATE TABLE `+table+` ()`); err != nil {
		return err
	}
	if err := passReplica(ctx, r, replica); err != nil {
		return err
	}
	end, err := sql(ctx, r, r.Leader, "app", `SELECT pg_current_wal_insert_lsn()`)
	if err != nil {
		return err
	}
	for began := time.Now(); ; {
		reached, err := sql(ctx, r, replica, "app", `SELECT pg_last_wal_replay_lsn() >= '`+end+`' AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')`)
		if err == nil && reached == "t" {
			break
		}
		if time.Since(began) > 15*time.Second {
			return errors.Join(fmt.Errorf("replica %s did not stream up to %s: %q", replica.Name, end, reached), err)
		}
		if err := r.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	if err := askReceiver(ctx, r, replica); err != nil {
		return err
	}
	out, err := sql(ctx, r, replica, "app", `SELECT CASE WHEN to_regclass('`+table+`') IS NULL THEN 'no' ELSE 'yes' END`)
	if err != nil {
		return err
	}
	r.Mark("replica has the leader's content", out)
	_, err = sql(ctx, r, r.Leader, "app", `DROP TABLE `+table)
	return err
}

// passReplica makes the leader write what an idle one would: first a record of the same length as the replica's own
// checkpoint (24 bytes of header, 2 and 24 of description, 4 and 62 of text, filled up to 120), so that the next one of
// both begins at the same place. Whole pages follow, because the checkpoint is younger than every page; without them
// the replica would stop at the first row whose predecessor it lacks. The writer waits meanwhile.
func passReplica(ctx context.Context, r *Run, replica stack.Node) error {
	const (
		lead = `SELECT pg_walfile_name(pg_current_wal_insert_lsn())`
		own  = `SELECT upper(lpad(to_hex(timeline_id), 8, '0')) || right(redo_wal_file, 16) FROM pg_control_checkpoint()`
		pass = `BEGIN; LOCK TABLE witness IN EXCLUSIVE MODE; CHECKPOINT; SELECT pg_switch_wal(); ` +
			`SELECT pg_logical_emit_message(false, 'lab', repeat('x', 62)); COMMIT`
	)
	at, err := sql(ctx, r, r.Leader, "app", lead)
	if err != nil {
		return err
	}
	begins, err := sql(ctx, r, replica, "app", own)
	if err != nil {
		return err
	}
	if at >= begins {
		return fmt.Errorf("the leader is in WAL file %s already, past the start of the replica's own in %s", at, begins)
	}
	_, err = sql(ctx, r, r.Leader, "app", pass)
	return err
}

// sql asks a database on a node, as its superuser.
func sql(ctx context.Context, r *Run, n stack.Node, database, query string) (string, error) {
	out, err := r.Stack.Exec(ctx, n, `runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d "$1" -c "$2"`, database, query)
	if err != nil {
		return out, fmt.Errorf("ask PostgreSQL on %s: %w: %s", n.Name, err, out)
	}
	return strings.TrimSpace(out), nil
}
