package procd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// maxName bounds a service's name.
const maxName = 64

// checkName accepts names of init scripts: they become part of paths and of a JSON text as they are.
func checkName(unit string) error {
	if unit == "" || len(unit) > maxName {
		return fmt.Errorf("service name of %d bytes", len(unit))
	}
	for i, b := range []byte(unit) {
		alnum := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !alnum && (i == 0 || strings.IndexByte("_.+-", b) < 0) {
			return fmt.Errorf("service name %q contains %q", unit, b)
		}
	}
	return nil
}

// instance is one process of a service, as "ubus call service list" shows it (procd, service/instance.c, instance_dump).
// Pointers are nil where procd says nothing.
type instance struct {
	Running  *bool    `json:"running"`
	PID      int      `json:"pid"`       // only while it runs
	ExitCode *int     `json:"exit_code"` // only while it does not; 128 and the signal's number; not before 2020
	Respawn  *respawn `json:"respawn"`   // gone when procd has given up, or while it stops the instance
	User     string   `json:"user"`
}

// respawn is when procd starts an instance again: after Timeout, until it has ended more than Retry times in a row after
// less than Threshold. All in seconds; Retry 0 is without end.
type respawn struct {
	Threshold, Timeout, Retry uint32
}

// answer are the instances of one service by name. It is nil if procd does not know the service, and empty if the service
// has no instances.
type answer map[string]instance

// parse reads the answer to "list". Fields that are not known are skipped.
func parse(b []byte, unit string) (answer, error) {
	var services map[string]struct {
		Instances answer `json:"instances"`
	}
	if err := json.Unmarshal(b, &services); err != nil {
		return nil, fmt.Errorf("read the answer of procd: %w", err)
	}
	if services == nil {
		return nil, errors.New("read the answer of procd: it is no list")
	}
	s, ok := services[unit]
	switch {
	case !ok:
		return nil, nil
	case s.Instances == nil:
		return answer{}, nil
	}
	return s.Instances, nil
}

// names returns the names of the instances in order.
func (a answer) names() []string { return slices.Sorted(maps.Keys(a)) }

// only returns the name of the instance if there is exactly one.
func (a answer) only() string {
	if len(a) != 1 {
		return ""
	}
	return a.names()[0]
}

// run names what runs now by its pids, "" if nothing runs.
func (a answer) run() string {
	var pids []string
	for _, name := range a.names() {
		if i := a[name]; i.PID > 0 {
			pids = append(pids, strconv.Itoa(i.PID))
		}
	}
	return strings.Join(pids, "+")
}

// maxSpan keeps a time within what is a duration, in seconds: a century.
const maxSpan = 100 * 365 * 24 * 3600

// worst are the states of instances, that of the service first.
var worst = []service.State{
	service.StateUnknown, service.StateFailed, service.StateRestarting, service.StateStopped, service.StateRunning,
}

// status puts an answer into the words of the contract. Of several instances the worst counts, and none is the main one.
func (a answer) status(unit string) service.Status {
	st := service.Status{Unit: unit, State: service.StateStopped, Detail: "not known to procd", KillMode: "process"}
	if a == nil {
		return st
	}
	if len(a) == 0 {
		st.Detail = "no instances"
		return st
	}
	rank := len(worst)
	for _, name := range a.names() {
		one := service.Status{Unit: unit, KillMode: "process"}
		a[name].status(&one)
		if len(a) > 1 {
			one.Detail, one.MainPID = name+" "+one.Detail, 0
		}
		if r := slices.Index(worst, one.State); r < rank {
			rank, st = r, one
		}
	}
	return st
}

// status sets what one instance shows.
func (i instance) status(st *service.Status) {
	st.User, st.Restart = i.User, "no"
	if st.User == "root" {
		st.User = ""
	}
	if r := i.Respawn; r != nil {
		st.Restart, st.RestartDelay = "always", time.Duration(r.Timeout)*time.Second
		if r.Retry > 0 {
			// That many ends in a row, each less than the threshold after its start, lie within that time.
			span := float64(r.Retry) * float64(r.Threshold)
			st.StartLimit = int(r.Retry)
			st.StartLimitSpan = time.Duration(min(span, maxSpan)) * time.Second
		}
	}
	switch {
	case i.Running == nil:
		st.Detail = "procd does not say whether it runs"
	case *i.Running && i.PID > 0:
		st.State, st.Detail, st.MainPID = service.StateRunning, "running", i.PID
	case *i.Running:
		st.Detail = "runs, but procd does not say which process it is"
	case i.ExitCode == nil && i.Respawn == nil:
		st.Detail = "ended, but procd does not say how"
	default:
		i.ended(st)
	}
}

// ended sets what an instance that does not run shows. SIGTERM is how everybody asks a process to end, so that one which ended
// by it, or well, did not crash; but nobody stopped it by its script either, and procd may have given it up.
func (i instance) ended(st *service.Status) {
	const bySignal, sigterm = 128, 15
	st.State, st.Detail = service.StateFailed, "ended"
	if code := i.ExitCode; code != nil {
		st.ExitStatus, st.Detail = *code, "ended with exit code "+strconv.Itoa(*code)
		switch {
		case *code == 0:
			st.State, st.Result, st.Unexplained = service.StateStopped, "success", true
		case *code > bySignal:
			st.Result, st.ExitStatus = "signal", *code-bySignal
			if st.ExitStatus == sigterm {
				st.State, st.Unexplained = service.StateStopped, true
			}
		default:
			st.Result = "exit-code"
		}
	}
	if i.Respawn != nil {
		st.State, st.Detail, st.Unexplained = service.StateRestarting, st.Detail+", respawning", false
	}
}
