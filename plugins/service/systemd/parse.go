package systemd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// jobUnknown is the type of a job whose object is gone already.
const jobUnknown = "unknown"

// parse turns the properties of a service unit into a Status. It returns ErrNotFound for a unit without a file, and an
// error that names each property that is missing or of another type than systemd documents. The type of a pending
// job is not among the properties: it is left at "unknown".
func parse(unit string, props map[string]any) (service.Status, error) {
	r := reader{props: props}
	load, active, sub := need[string](&r, "LoadState"), need[string](&r, "ActiveState"), need[string](&r, "SubState")
	if len(r.errs) == 0 && load == "not-found" {
		return service.Status{}, service.ErrNotFound
	}
	st := service.Status{
		Unit:           unit,
		State:          state(active, sub),
		Detail:         active + "/" + sub,
		Result:         need[string](&r, "Result"),
		ExitStatus:     int(need[int32](&r, "ExecMainStatus")),
		Enablement:     need[string](&r, "UnitFileState"),
		Masked:         load == "masked",
		MainPID:        int(need[uint32](&r, "MainPID")),
		InvocationID:   hex.EncodeToString(need[[]byte](&r, "InvocationID")),
		Restarts:       int(want[uint32](&r, "NRestarts")),
		ControlGroup:   want[string](&r, "ControlGroup"),
		User:           want[string](&r, "User"),
		KillMode:       need[string](&r, "KillMode"),
		Restart:        need[string](&r, "Restart"),
		RestartDelay:   micros(want[uint64](&r, "RestartUSec")),
		StartLimit:     int(want[uint32](&r, "StartLimitBurst")),
		StartLimitSpan: micros(want[uint64](&r, "StartLimitIntervalUSec")),
		OOMPolicy:      want[string](&r, "OOMPolicy"),
		UnitFile:       want[string](&r, "FragmentPath"),
	}
	if job := need[[]any](&r, "Job"); len(job) > 0 {
		if id, ok := job[0].(uint32); !ok {
			r.fail("Job", "unexpected type %T inside", job[0])
		} else if id != 0 {
			st.Job = jobUnknown
		}
	}
	if load != "loaded" && !st.Masked {
		st.LoadError = load
		st.Detail += " (" + load + ")"
	}
	if st.StartLimit == 0 || st.StartLimitSpan == 0 {
		st.StartLimit, st.StartLimitSpan = 0, 0 // either switches the limit off
	}
	began, ended := want[uint64](&r, "ExecMainStartTimestampMonotonic"), want[uint64](&r, "ExecMainExitTimestampMonotonic")
	_, counted := props["NRestarts"]
	st.Halted = counted && halted(st, micros(ended)-micros(began)) || ordered(st, began, want[uint64](&r, "ActiveExitTimestampMonotonic"), ended)
	if err := errors.Join(r.errs...); err != nil {
		return service.Status{}, err
	}
	return st, nil
}

// state maps systemd's words. An active unit without processes (oneshot with RemainAfterExit) counts as running.
func state(active, sub string) service.State {
	// With systemd 254 and later a unit passes through failed/failed-before-auto-restart or
	// inactive/dead-before-auto-restart on its way to activating/auto-restart.
	if strings.Contains(sub, "auto-restart") {
		return service.StateRestarting
	}
	switch active {
	case "active", "reloading", "refreshing":
		return service.StateRunning
	case "activating":
		return service.StateStarting
	case "deactivating":
		return service.StateStopping
	case "inactive":
		return service.StateStopped
	case "failed":
		return service.StateFailed
	}
	return service.StateUnknown
}

// ordered tells a stop that systemd carried out from an end that it was surprised by, also where no policy would have restarted
// the service: in a stop the unit leaves its active state first and its main process ends afterwards, in a crash it is the other
// way round (systemd 257; socat ends with 143 when it is stopped, which systemd calls a failure). What systemd ends by itself
// has results of its own, but for RuntimeMaxSec. A time that lies before the start of the main process is of another run.
func ordered(st service.Status, began, left, ended uint64) bool {
	if st.State != service.StateFailed || st.LoadError != "" || left < began || left >= ended {
		return false
	}
	switch st.Result {
	case "exit-code", "signal", "core-dump", "timeout":
		return true
	}
	return false
}

// halted tells a stop by an operator whose service did not go quietly (an exit code on SIGTERM, or SIGKILL after
// TimeoutStopSec) from a crash: both read failed/exit-code or failed/timeout. After a crash systemd restarts what its
// policy covers, until the start limit. Each attempt counts in NRestarts, also the refused one, and the last run was
// shorter than the limit's span. A failed unit that does not show both was stopped. Several starts by hand within the
// span followed by a crash loop look the same, and are safe to take for somebody at work.
func halted(st service.Status, lifetime time.Duration) bool {
	if st.State != service.StateFailed || st.LoadError != "" || !st.RestartsAfter(st.Result) {
		return false
	}
	return st.StartLimit == 0 || st.Restarts < st.StartLimit || lifetime >= st.StartLimitSpan
}

// jobPath returns the object of the pending job of props that parse accepted.
func jobPath(props map[string]any) dbus.ObjectPath {
	if job, _ := props["Job"].([]any); len(job) > 1 {
		if path, ok := job[1].(dbus.ObjectPath); ok {
			return path
		}
	}
	return "/"
}

// micros converts microseconds, of which systemd writes infinity as the largest number.
func micros(us uint64) time.Duration {
	if us > math.MaxInt64/uint64(time.Microsecond) {
		return math.MaxInt64
	}
	return time.Duration(us) * time.Microsecond
}

// reader collects what is wrong with the properties that are read through it.
type reader struct {
	props map[string]any
	errs  []error
}

func (r *reader) fail(name, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("property %s: "+format, append([]any{name}, args...)...))
}

// need reads a property that every supported systemd has.
func need[T any](r *reader, name string) T {
	if _, ok := r.props[name]; !ok {
		r.fail(name, "missing")
		var zero T
		return zero
	}
	return want[T](r, name)
}

// want reads a property that older versions lack; absent, it is zero.
func want[T any](r *reader, name string) T {
	var zero T
	v, ok := r.props[name]
	if !ok {
		return zero
	}
	t, ok := v.(T)
	if !ok {
		r.fail(name, "unexpected type %T, want %T", v, zero)
	}
	return t
}
