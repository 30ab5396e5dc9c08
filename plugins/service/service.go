// Package service is the contract between pgpatrol and whatever runs a service: systemd, Docker, and others.
//
// It owns the words for what a manager knows of a unit ([Status]) and what may be asked of it ([Manager]). It promises
// that a crash and a stop by a person can be told apart wherever the manager can tell them apart, and that a manager which
// cannot says so ([Status.Intent]). It deliberately knows nothing of Patroni, of policies or of guards: whether something
// should be done is decided elsewhere.
//
// A unit is whatever the manager runs under one name: a systemd service, a container, an init script, a launchd job. Most
// words are systemd's, because it has the richest ones. Other managers use them for what has the same effect, and leave
// empty what they do not have:
//
//   - InvocationID is any text that is another one after every start and the same one otherwise, made with [Invocation]
//     of a container's id and StartedAt, or of a pid and the time at which that process began.
//   - KillMode says what else ends when the main process dies. In a container everything does: control-group.
//   - Restart is the policy in systemd's words. A policy that also brings back what ended well is "always", also if the
//     manager remembers a stop by a person better than systemd does (Docker's unless-stopped).
//   - StartLimit and StartLimitSpan are a number of starts in a time. A limit that no time ends is not one of these: the
//     unit is StateFailed when it is used up.
//   - Enablement "disabled" is a person's order not to start the unit by machine. A manager where nothing but the absence
//     of a restart policy could be meant by it (Docker) does not use the word.
//   - Job is anything that somebody has begun with the unit and not ended, also where the manager has no jobs: a stop that
//     waits for the process, a pause.
package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sentinel errors of every Manager. Compare with errors.Is.
var (
	// ErrNotFound says that the manager does not know the unit at all.
	ErrNotFound = errors.New("unit not found")
	// ErrPermission says that the manager refused the caller, not the unit.
	ErrPermission = errors.New("permission denied by the service manager")
	// ErrUnavailable says that the manager itself did not answer; nothing is known of the unit.
	ErrUnavailable = errors.New("service manager unavailable")
	// ErrChanged says that the unit is not the one that was observed any more (another main process or invocation),
	// so nothing was done.
	ErrChanged = errors.New("unit changed since it was observed")
	// ErrBusy says that a job of somebody else is in progress on the unit (FAULTS.md F09), so nothing was done.
	ErrBusy = errors.New("another job is in progress for the unit")
)

// Manager controls the units of one service manager on this machine.
//
// All methods are safe for concurrent use, obey the context's deadline, and are idempotent in the sense that repeating
// one after it succeeded does no further harm. A power that a manager lacks returns an error wrapping
// errors.ErrUnsupported, never success. Errors wrap one of the sentinels of this package where one fits.
type Manager interface {
	// Status reads what the manager knows of the unit now. A unit that is not loaded gives ErrNotFound.
	Status(ctx context.Context, unit string) (Status, error)
	// Start starts the unit and returns when the manager has finished its job, whatever came of the service later.
	// It clears a start limit first only if the manager needs it ([Status.State] was StateFailed). It never replaces a
	// job of somebody else: a start in progress is waited for, any other job gives ErrBusy. When ctx ends first, the
	// error wraps ctx's and the job goes on.
	Start(ctx context.Context, unit string) error
	// KillMain sends SIGKILL to the main process of the unit and to no other process. It returns ErrChanged, having
	// done nothing, unless the unit's main process and invocation are still those of want.
	KillMain(ctx context.Context, unit string, want Status) error
}

// Restarter is implemented by managers that can end a unit's run and begin another.
type Restarter interface {
	// Restart stops the unit, by force when the manager's own time limit for that is over, starts it again, and returns
	// when the manager has finished, whatever came of the service later. While a job of somebody else is in progress it
	// returns ErrBusy, and otherwise ErrChanged unless the unit's main process and invocation are still those of want,
	// having done nothing: what does not run is never started by it. When ctx ends first, the error wraps ctx's and the
	// job goes on.
	Restart(ctx context.Context, unit string, want Status) error
}

// Limited is implemented by managers that may refuse this agent some of their orders.
type Limited interface {
	// Limits returns why orders of the contract may not be given on the unit, and nil if all may. It gives no order and
	// changes nothing. What cannot be found out without giving one counts as allowed. An order that is refused gives
	// ErrPermission; with any other error the question had no answer.
	Limits(ctx context.Context, unit string) error
}

// Polled is implemented by managers of which changes are only seen by looking.
type Polled interface {
	// Every is how often Watch looks.
	Every() time.Duration
}

// Watcher is implemented by managers that can tell of changes without being polled.
type Watcher interface {
	// Watch calls wake whenever one of the units may have changed, until ctx ends or the subscription breaks, and
	// returns why it ended. wake must not block. Calls carry no content: the caller reads Status again.
	Watch(ctx context.Context, units []string, wake func()) error
}

// State is the state of a unit in the words that all managers share.
type State uint8

// States of a unit. The zero value means that nothing is known.
const (
	StateUnknown    State = iota
	StateRunning          // active, the main process exists
	StateStarting         // being started by a job or by the manager itself
	StateStopping         // being stopped, processes may still run
	StateRestarting       // crashed; the manager itself will start it again shortly
	StateStopped          // not running, and the last run ended without failure
	StateFailed           // not running after a failure; the manager has given up
)

// String returns the state's name as it is used in JSON and logs.
func (s State) String() string {
	switch s {
	case StateRunning:
		return "running"
	case StateStarting:
		return "starting"
	case StateStopping:
		return "stopping"
	case StateRestarting:
		return "restarting"
	case StateStopped:
		return "stopped"
	case StateFailed:
		return "failed"
	case StateUnknown:
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. An unknown word reads as StateUnknown.
func (s *State) UnmarshalText(b []byte) error {
	*s = StateUnknown
	for c := StateRunning; c <= StateFailed; c++ {
		if c.String() == string(b) {
			*s = c
		}
	}
	return nil
}

// Intent is what the people who run this machine want of a unit, as far as the manager shows it.
type Intent uint8

// Intents. The zero value means that the manager does not show it.
const (
	IntentUnknown  Intent = iota
	IntentRun             // enabled or running, and nobody has stopped it
	IntentStopped         // stopped by a person or a script, without failure
	IntentDisabled        // disabled: not to be started by a machine
	IntentMasked          // masked: not to be started by anybody
	IntentBusy            // a job of somebody is in progress (start, stop, restart, reload)
)

// String returns the intent's name as it is used in JSON and logs.
func (i Intent) String() string {
	switch i {
	case IntentRun:
		return "run"
	case IntentStopped:
		return "stopped"
	case IntentDisabled:
		return "disabled"
	case IntentMasked:
		return "masked"
	case IntentBusy:
		return "busy"
	case IntentUnknown:
	}
	return "unknown"
}

// Status is what a manager knows of one unit at one moment. Fields that a manager does not have stay zero.
type Status struct {
	Unit           string        `json:"unit"`
	State          State         `json:"state"`
	Detail         string        `json:"detail,omitempty"`           // the manager's own words, e.g. "active/running"
	Result         string        `json:"result,omitempty"`           // why the last run ended: success, signal, exit-code, start-limit-hit, oom-kill, ...
	ExitStatus     int           `json:"exit_status,omitempty"`      // exit code or signal number of the last run
	Job            string        `json:"job,omitempty"`              // type of the job in progress, empty if none
	Enablement     string        `json:"enablement,omitempty"`       // enabled, disabled, masked, static, ...
	Masked         bool          `json:"masked,omitempty"`           // the unit's load state is masked
	LoadError      string        `json:"load_error,omitempty"`       // why the definition is unusable, e.g. bad-setting: it would not start again
	Halted         bool          `json:"halted,omitempty"`           // failed, and only a stop by somebody explains why it is not restarted
	Unexplained    bool          `json:"unexplained,omitempty"`      // not running, and a crash and a stop by somebody cannot be told apart now
	MainPID        int           `json:"main_pid,omitempty"`         // 0 if there is no main process
	InvocationID   string        `json:"invocation_id,omitempty"`    // changes with every start
	Restarts       int           `json:"restarts"`                   // automatic restarts since it was last started by a job
	ControlGroup   string        `json:"control_group,omitempty"`    // path below the cgroup root
	User           string        `json:"user,omitempty"`             // user that the unit runs as, empty for root
	KillMode       string        `json:"kill_mode,omitempty"`        // process, control-group, mixed, none
	KillIsStop     bool          `json:"kill_is_stop,omitempty"`     // a kill through the manager is a stop to it: it does not restart the unit
	Restart        string        `json:"restart,omitempty"`          // no, on-failure, on-abnormal, always, ...
	RestartDelay   time.Duration `json:"restart_delay,omitempty"`    // pause before an automatic restart
	StartLimit     int           `json:"start_limit,omitempty"`      // starts allowed per StartLimitSpan
	StartLimitSpan time.Duration `json:"start_limit_span,omitempty"` //
	OOMPolicy      string        `json:"oom_policy,omitempty"`       // continue, stop, kill
	UnitFile       string        `json:"unit_file,omitempty"`        // path of the file that defines the unit
}

// Invocation makes a [Status.InvocationID] of what tells two runs of a unit apart, for managers that have no such id. It is
// a hash because actions and evidence are named after its first eight characters.
func Invocation(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Same returns an error that wraps [ErrChanged] unless now is the run of the unit that want observed, with the same main
// process.
func Same(want, now Status) error {
	if want.MainPID <= 0 || want.InvocationID == "" {
		return fmt.Errorf("%w: no main process was observed", ErrChanged)
	}
	if now.MainPID != want.MainPID || now.InvocationID != want.InvocationID {
		return fmt.Errorf("%w: main process %d of invocation %q, observed %d of %q",
			ErrChanged, now.MainPID, now.InvocationID, want.MainPID, want.InvocationID)
	}
	return nil
}

// Intent tells a crash from a stop by a person. The rules are those of FACTS.md §9 for systemd: a pending job is
// somebody at work; masked and disabled are explicit; inactive without failure was a stop. A failed unit was not
// stopped by anybody, so its intent is to run, unless [Status.Halted] says otherwise: a service that exits with an error
// when it is asked to stop ends up failed as well. Managers that keep less ([Status.Unexplained]) give IntentUnknown.
func (s Status) Intent() Intent {
	switch {
	case s.Masked || s.Enablement == "masked" || s.Enablement == "masked-runtime":
		return IntentMasked
	case s.Job != "" || s.State == StateStopping:
		return IntentBusy
	case s.Enablement == "disabled" && s.State != StateRunning:
		return IntentDisabled
	case s.Unexplained || s.State == StateUnknown:
		return IntentUnknown
	case s.State == StateStopped, s.State == StateFailed && s.Halted:
		return IntentStopped
	}
	return IntentRun
}

// SparesChildren reports whether killing the main process leaves the unit's other processes alone, which is what keeps
// PostgreSQL running under a killed Patroni (FACTS.md §3.1).
func (s Status) SparesChildren() bool { return s.KillMode == "process" || s.KillMode == "none" }

// RestartsOnKill reports whether the manager starts the unit again after [Manager.KillMain]. A unit that was masked, or
// whose definition broke, while it ran is not started again whatever Restart says (systemd 257: it goes straight to
// failed).
func (s Status) RestartsOnKill() bool {
	return s.RestartsAfter("signal") && !s.Masked && s.LoadError == "" && !s.KillIsStop
}

// RestartsAfter reports whether the Restart policy covers a run that ended with the given [Status.Result], by the
// table in systemd.service(5). It says nothing of start limits.
func (s Status) RestartsAfter(result string) bool {
	switch result {
	case "exec-condition", "start-limit-hit":
		return false
	}
	switch s.Restart {
	case "always":
		return true
	case "on-success":
		return result == "success"
	case "on-failure":
		return result != "success"
	case "on-abnormal":
		return result != "success" && result != "exit-code"
	case "on-abort":
		return result == "signal" || result == "core-dump"
	case "on-watchdog":
		return result == "watchdog"
	}
	return false
}
