package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/conformance"
	"github.com/pgpatrol/pgpatrol/test/lab/fault"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// MarkRenewed is the moment that the steps of a script of package conformance are counted from.
const MarkRenewed = "renewed"

// Conformance makes a script of package conformance a scenario. It judges nothing: what the witnesses saw is compared with
// what the model does.
func Conformance(s conformance.Script) Scenario {
	sc := Scenario{
		ID: s.Name, Title: s.Title(), Timings: []string{s.Timings}, REST: true,
		Setup:   func(ctx context.Context, r *Run) error { return prepareScript(ctx, r, s) },
		Fault:   func(ctx context.Context, r *Run) error { return performScript(ctx, r, s) },
		Observe: func(stack.Timings) time.Duration { return 0 }, // the fault itself looks long enough
	}
	if s.KillMode != "" {
		sc.Policy = map[string]string{"disrupt": "auto"}
	}
	return sc
}

func prepareScript(ctx context.Context, r *Run, s conformance.Script) error {
	if s.Aged {
		if err := awaitPatroniAge(ctx, r, r.Leader, time.Minute); err != nil {
			return err
		}
	}
	switch s.KillMode {
	case "":
		return nil
	case "control-group":
		return spoilKillMode(ctx, r)
	}
	return fmt.Errorf("prepare script %s: KillMode %q cannot be set", s.Name, s.KillMode)
}

// performScript carries out the steps of a script, looks as long as it says, and adds what systemd has written down.
func performScript(ctx context.Context, r *Run, s conformance.Script) error {
	if s.Agents == conformance.LateLeader {
		if err := forgetAgent(ctx, r, r.Leader); err != nil {
			return err
		}
	}
	if err := awaitRenewal(ctx, r); err != nil {
		return err
	}
	began := time.Now()
	wait := func(at time.Duration) error { return r.Sleep(ctx, time.Until(began.Add(at))) }
	for _, m := range moments(s) {
		if err := wait(m.at); err != nil {
			return err
		}
		if err := carryOutStep(ctx, r, m.step, m.undo); err != nil {
			return err
		}
	}
	if err := wait(s.Look); err != nil {
		return err
	}
	return noteLives(ctx, r, began)
}

// moment is the beginning or the end of a step.
type moment struct {
	at   time.Duration
	step conformance.Step
	undo bool
}

func moments(s conformance.Script) []moment {
	var all []moment
	for _, st := range s.Steps {
		all = append(all, moment{st.At, st, false})
		if st.For > 0 {
			all = append(all, moment{st.At + st.For, st, true})
		}
	}
	slices.SortStableFunc(all, func(a, b moment) int { return int(a.at - b.at) })
	return all
}

// faultOf is the fault that a verb of a script means.
func faultOf(v conformance.Verb) (string, bool) {
	name, ok := map[conformance.Verb]string{
		conformance.KillPatroni:      "patroni-kill",
		conformance.HangPatroni:      "patroni-stop",
		conformance.CrashUntilFailed: "patroni-start-limit",
		conformance.StopUnit:         "unit-stop",
		conformance.RestartUnit:      "unit-restart",
		conformance.RefuseREST:       "rest-refuse",
		conformance.StickLoop:        "loop-stuck",
		conformance.KillPostmaster:   "postmaster-kill",
		conformance.PauseCluster:     "pause",
		conformance.LoseQuorum:       "etcd-kill",
		conformance.RaiseNoSpace:     "etcd-nospace",
		conformance.CutFromEtcd:      "blackhole-etcd",
		conformance.Isolate:          "network-disconnect",
	}[v]
	return name, ok
}

func carryOutStep(ctx context.Context, r *Run, st conformance.Step, undo bool) error {
	n := r.Leader
	if st.On == conformance.Replica {
		n = r.Replicas[0]
	}
	if st.Do == conformance.StartAgent {
		return startAgent(ctx, r, n)
	}
	name, ok := faultOf(st.Do)
	if !ok {
		return fmt.Errorf("carry out %q: the lab does not know how", st.Do)
	}
	f, err := fault.Find(name)
	if err != nil {
		return err
	}
	nodes := []stack.Node{n}
	if f.Kind == stack.Etcd {
		nodes = r.Stack.Of(stack.Etcd)[:1]
	}
	if st.Do == conformance.LoseQuorum {
		nodes = r.Stack.Of(stack.Etcd)[1:]
	}
	for _, n := range nodes {
		if undo {
			err = r.Revert(ctx, name, n)
		} else {
			err = r.Inject(ctx, name, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// noteLives adds what systemd's own journal says of Patroni's unit on every node since a moment.
func noteLives(ctx context.Context, r *Run, since time.Time) error {
	const read = `journalctl --no-pager -o short-unix --since "@$1" _PID=1 UNIT=patroni.service`
	for _, n := range r.Stack.Of(stack.Postgres) {
		text, err := r.Stack.Exec(ctx, n, read, strconv.FormatInt(since.Unix(), 10))
		if err != nil {
			return fmt.Errorf("read systemd's journal of %s: %w", n.Name, err)
		}
		for line := range strings.Lines(text) {
			at, what, err := parseLife(strings.TrimSpace(line))
			if err != nil {
				return fmt.Errorf("read systemd's journal of %s: %w", n.Name, err)
			}
			if what != "" {
				r.collector.add(record.Record{At: at, Node: n.Name, Life: &record.Life{Name: patroniUnit, What: what}})
			}
		}
	}
	return nil
}

// parseLife reads a line of systemd 257 about a unit: "1795601402.545524 pg1 systemd[1]: Started patroni.service - ...".
// What it does not tell is "".
func parseLife(line string) (at time.Time, what string, err error) {
	stamp, rest, ok := strings.Cut(line, " ")
	if !ok || strings.HasPrefix(line, "--") {
		return at, "", nil // "-- No entries --", "-- Boot ... --"
	}
	s, err := strconv.ParseFloat(stamp, 64)
	if err != nil {
		return at, "", errors.New("line without a time: " + line)
	}
	at = time.UnixMicro(int64(s * 1e6)).UTC()
	_, text, _ := strings.Cut(rest, "]: ")
	switch {
	case strings.HasPrefix(text, "Started "+patroniUnit):
		what = conformance.Lives
	case strings.HasPrefix(text, patroniUnit+": Main process exited"):
		what = conformance.Died
	case strings.HasPrefix(text, patroniUnit+": Start request repeated too quickly"):
		what = conformance.GivenUp
	case strings.HasPrefix(text, patroniUnit+": Deactivated successfully"):
		what = conformance.Stopped
	}
	return at, what, nil
}
