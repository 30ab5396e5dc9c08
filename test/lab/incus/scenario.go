package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// scenario is one experiment. It is run without pgpatrol and with it.
type scenario struct {
	id, what string
	at       func(leader, other instance) (instance, string) // where it happens: instance and unit
	do       func(ctx context.Context, l *Lab, i instance) error
	// heals says whether pgpatrol has to start the unit, once; otherwise nothing may change after the deed.
	heals bool
}

// startLimit kills a unit's main process until systemd gives up.
func startLimit(unit string) func(context.Context, *Lab, instance) error {
	return func(ctx context.Context, l *Lab, i instance) error {
		_, err := l.in(ctx, i.Name, `n=0; until [ "$(systemctl show -p ActiveState --value `+unit+`)" = failed ]; do
p=$(systemctl show -p MainPID --value `+unit+`); [ "$p" = 0 ] || kill -KILL "$p"
n=$((n + 1)); [ $n -lt 200 ] || exit 1; sleep 0.1; done`)
		return err
	}
}

func leader(leader, _ instance) (instance, string) { return leader, "patroni.service" }
func other(_, other instance) (instance, string)   { return other, "patroni.service" }
func dcs(_, _ instance) (instance, string)         { return etcd, "etcd.service" }

var scenarios = []scenario{
	{"I-F05", "Patroni on the leader is killed past its start limit", leader, startLimit("patroni.service"), true},
	{"I-F02", "Patroni on the leader hangs (SIGSTOP)", leader, func(ctx context.Context, l *Lab, i instance) error {
		_, err := l.in(ctx, i.Name, `kill -STOP "$(systemctl show -p MainPID --value patroni.service)"`)
		return err
	}, true},
	{"I-F38", "etcd is killed past its start limit", dcs, func(ctx context.Context, l *Lab, i instance) error {
		// Debian's unit restarts after a signal, without a limit that this reaches; a drop-in on tmpfs gives it one.
		if _, err := l.in(ctx, i.Name, `mkdir -p /run/systemd/system/etcd.service.d
printf '[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=300\n' > /run/systemd/system/etcd.service.d/lab.conf; systemctl daemon-reload`); err != nil {
			return err
		}
		return startLimit("etcd.service")(ctx, l, i)
	}, true},
	{"I-stop", "a person stops Patroni inside its instance", other, func(ctx context.Context, l *Lab, i instance) error {
		_, err := l.in(ctx, i.Name, "systemctl stop patroni")
		return err
	}, false},
	{"I-instance-stop", "a person stops the instance (incus stop)", other, func(ctx context.Context, l *Lab, i instance) error {
		_, err := l.host(ctx, "incus", "stop", i.Name)
		return err
	}, false},
	{"I-poweroff", "a person shuts the instance down from inside (poweroff)", other, func(ctx context.Context, l *Lab, i instance) error {
		_, _ = l.in(ctx, i.Name, "poweroff")
		return until(ctx, 30*time.Second, "poweroff", func() error {
			s, err := l.look(ctx, i, "")
			if err == nil && s.Status != "Stopped" {
				err = fmt.Errorf("it is %s", s.Status)
			}
			return err
		})
	}, false},
}

// reading is what the managers and the database themselves say of an instance and a unit inside.
type reading struct {
	Status     string // Incus's
	Started    string // last_used_at: when Incus last started it
	Active     string // systemd's
	Invocation string
	Postmaster string // first line of its lock file, "-" without one
	Frozen     bool   // the unit's main process is stopped by a signal
	Starts     int    // how often systemd has started the unit, by its journal
}

// broken reports whether the unit has ended, or its main process is stopped.
func (r reading) broken() bool { return r.Active != "active" || r.Frozen }

// look reads an instance, and the unit inside if it runs. One that ends while it is read is read again.
func (l *Lab) look(ctx context.Context, i instance, unit string) (r reading, err error) {
	for range 5 {
		if r, err = l.lookOnce(ctx, i, unit); err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	return r, err
}

func (l *Lab) lookOnce(ctx context.Context, i instance, unit string) (reading, error) {
	out, err := l.host(ctx, "incus", "query", "/1.0/instances/"+i.Name)
	if err != nil {
		return reading{}, err
	}
	var in struct {
		Status  string
		Started string `json:"last_used_at"`
	}
	if err := json.Unmarshal([]byte(out), &in); err != nil {
		return reading{}, err
	}
	r := reading{Status: in.Status, Started: in.Started}
	if r.Status != "Running" || unit == "" {
		return r, nil
	}
	// The message is SD_MESSAGE_UNIT_STARTED.
	out, err = l.in(ctx, i.Name, `systemctl show -p ActiveState --value `+unit+`; systemctl show -p InvocationID --value `+unit+`
head -n 1 /var/lib/postgresql/17/patroni/postmaster.pid 2>/dev/null || echo -
journalctl -q -u `+unit+` -o cat MESSAGE_ID=39f53479d3a045ac8e11786248231fbf | wc -l
sed -n 's/^State:[[:space:]]*\([A-Za-z]\).*/\1/p' "/proc/$(systemctl show -p MainPID --value `+unit+`)/status" 2>/dev/null || true`)
	if err != nil {
		return r, err
	}
	lines := strings.Split(out, "\n")
	if len(lines) < 4 || len(lines) > 5 {
		return r, fmt.Errorf("read %s in %s: %q", unit, i.Name, out)
	}
	r.Active, r.Invocation, r.Postmaster = lines[0], lines[1], lines[2]
	r.Frozen = len(lines) == 5 && lines[4] == "T"
	_, err = fmt.Sscan(lines[3], &r.Starts)
	return r, err
}

// Result is what became of one run.
type Result struct {
	ID, What  string
	With      bool
	Healed    time.Duration // from the end of the deed until the unit was active, 0 if it was not
	Intents   int
	Complains []string
}

// Windows: how long one looks. Without pgpatrol nothing may heal a must-heal fault in that time, or it would prove nothing.
const (
	window = 30 * time.Second
	// budget is FAULTS.md's for detection and repair of a unit that has failed.
	budget = 15 * time.Second
	calm   = 10 * time.Second // after a repair: no second one
)

// run does one experiment on a healthy stack.
func (l *Lab) run(ctx context.Context, s scenario, with bool) (Result, error) {
	res := Result{ID: s.id, What: s.what, With: with}
	lead, rest, err := l.settle(ctx)
	if err != nil {
		return res, err
	}
	i, unit := s.at(lead, rest)
	if with {
		mine, other := lead, rest
		if i == rest {
			mine, other = rest, lead
		}
		if err := errors.Join(l.configure(ctx, mine, other), l.agentStarts(ctx)); err != nil {
			return res, err
		}
		time.Sleep(10 * time.Second) // it has seen everything well
	}
	before, err := l.look(ctx, i, unit)
	if err == nil && i != etcd && before.Postmaster == "-" {
		err = fmt.Errorf("no PostgreSQL on %s", i.Name)
	}
	if err != nil {
		return res, err
	}
	if err := s.do(ctx, l, i); err != nil {
		return res, fmt.Errorf("%s: %w", s.id, err)
	}
	began := time.Now()
	broken, err := l.look(ctx, i, unit)
	if err != nil {
		return res, err
	}
	now := broken
	for end := began.Add(window); time.Now().Before(end); {
		time.Sleep(time.Second)
		if now, err = l.look(ctx, i, unit); err != nil {
			return res, err
		}
		if s.heals && res.Healed == 0 && now.Active == "active" && now.Invocation != before.Invocation {
			res.Healed = time.Since(began)
			end = time.Now().Add(calm)
		}
	}
	if with {
		if res.Intents, err = l.intents(ctx); err != nil {
			return res, err
		}
	}
	res.Complains = judge(s, res, before, broken, now)
	return res, l.agentStops(ctx)
}

// judge says what was wrong.
func judge(s scenario, res Result, before, broken, after reading) []string {
	var bad []string
	complain := func(wrong bool, format string, args ...any) {
		if wrong {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	started := after.Starts - broken.Starts
	switch {
	case s.heals && res.With:
		complain(res.Healed == 0, "not healed within %v: unit %s", window, after.Active)
		complain(res.Healed > budget, "healed after %v, more than %v", res.Healed, budget)
		complain(started > 1, "systemd started the unit %d times", started)
		complain(res.Intents != 1, "%d actions", res.Intents)
	case s.heals:
		complain(res.Healed != 0, "healed without pgpatrol: the fault proves nothing")
		complain(!broken.broken() || !after.broken(), "no harm without pgpatrol: the unit is %s, and not frozen", after.Active)
	default:
		complain(after != broken, "changed after the deed: %+v, then %+v", broken, after)
		complain(broken.Status == "Running" && broken.Active == "active", "the deed did nothing: %+v", broken)
		complain(res.Intents != 0, "%d actions", res.Intents)
	}
	complain(before.Active != "active" || before.broken(), "was not well before: %+v", before)
	if s.heals {
		complain(after.Started != before.Started, "the instance was restarted")
		complain(after.Postmaster != before.Postmaster, "PostgreSQL was restarted: %s, then %s", before.Postmaster, after.Postmaster)
	}
	return bad
}

// settle undoes every deed and waits for the baseline.
func (l *Lab) settle(ctx context.Context) (lead, rest instance, err error) {
	if err := l.agentStops(ctx); err != nil {
		return lead, rest, err
	}
	for _, i := range append([]instance{etcd}, members...) {
		s, err := l.look(ctx, i, "")
		if err == nil && s.Status == "Stopped" {
			_, err = l.host(ctx, "incus", "start", i.Name)
		}
		if err != nil {
			return lead, rest, err
		}
		unit := "patroni"
		if i == etcd {
			unit = "etcd"
		}
		err = until(ctx, time.Minute, "settle "+i.Name, func() error {
			_, err := l.in(ctx, i.Name, "rm -rf /run/systemd/system/etcd.service.d; pkill -CONT -x patroni; systemctl daemon-reload && systemctl reset-failed && systemctl start "+unit)
			return err
		})
		if err != nil {
			return lead, rest, err
		}
	}
	err = until(ctx, 2*time.Minute, "healthy cluster", func() error { lead, err = l.leader(ctx); return err })
	for _, m := range members {
		if m != lead {
			rest = m
		}
	}
	return lead, rest, err
}

// Run runs every scenario, or the one that is named, without and with pgpatrol, and calls tell with every result.
func (l *Lab) Run(ctx context.Context, only string, tell func(Result)) error {
	if err := l.install(ctx); err != nil {
		return err
	}
	ran := false
	for _, s := range scenarios {
		if only != "" && s.id != only {
			continue
		}
		ran = true
		for _, with := range []bool{false, true} {
			l.log.Info("run", "scenario", s.id, "with", with)
			res, err := l.run(ctx, s, with)
			if err != nil {
				return fmt.Errorf("%s: %w", s.id, err)
			}
			tell(res)
		}
	}
	if !ran {
		return fmt.Errorf("no scenario %q", only)
	}
	return nil
}
