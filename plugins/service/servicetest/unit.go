package servicetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// unit is the life of one service of a Fake:
//
//	stopped --begin--> starting --up--> running --stop--> stopping --> stopped or failed
//	   ^                                   |  die                        |
//	   |                                   +--> restarting --up--> running (Restart= covers it, within the limit)
//	   +--- failed <----------------------------+ (not covered, limit hit, masked or broken)
//
// All methods are called with the Fake's mutex held.
type unit struct {
	service.Status
	fake     *Fake
	spec     Service
	children []int
	frozen   bool         // the main process does not run
	starts   []time.Time  // of the last StartLimitSpan
	since    time.Time    // start of the last run
	timer    *time.Timer  // the next thing that happens by itself
	waiting  []chan error // who waits for the job
}

// check returns why the unit is not the one that was observed. The unit may be nil.
func (u *unit) check(want service.Status) error {
	switch {
	case u == nil:
		return service.ErrNotFound
	case want.MainPID <= 0 || u.MainPID != want.MainPID || u.InvocationID != want.InvocationID:
		return service.ErrChanged
	}
	return nil
}

// begin starts the unit by a job.
func (u *unit) begin() (<-chan error, error) {
	switch {
	case u.State == service.StateRunning:
		return nil, nil
	case u.Job == "start":
		return u.wait(), nil
	case u.Masked:
		return nil, errors.New("unit is masked")
	case !u.admit():
		u.State = service.StateFailed
		return nil, errors.New("start limit hit")
	}
	u.cancel()
	u.Restarts = 0
	u.spawn()
	if u.spec.StartTakes == 0 {
		u.up()
		return nil, nil
	}
	u.State, u.Job = service.StateStarting, "start"
	u.Detail = "activating/start"
	u.after(u.spec.StartTakes, u.up)
	u.fake.wake(u.Unit)
	return u.wait(), nil
}

// admit counts a start against the limit.
func (u *unit) admit() bool {
	now := time.Now()
	recent := u.starts[:0]
	for _, at := range u.starts {
		if now.Sub(at) < u.StartLimitSpan {
			recent = append(recent, at)
		}
	}
	u.starts = recent
	if u.StartLimit > 0 && len(u.starts) >= u.StartLimit {
		return false
	}
	u.starts = append(u.starts, now)
	return true
}

// spawn gives the unit a new run.
func (u *unit) spawn() {
	u.fake.ids += 2
	u.since = time.Now()
	u.MainPID = u.fake.ids
	u.InvocationID = fmt.Sprintf("%032x", u.fake.ids)
	u.Result, u.ExitStatus, u.Halted, u.frozen = "success", 0, false, false
	if u.spec.Child {
		u.children = append(u.children, u.fake.ids-1)
	}
}

func (u *unit) up() {
	u.State, u.Job, u.Detail = service.StateRunning, "", "active/running"
	u.finish(nil)
}

// die ends the main process without anybody having asked for it.
func (u *unit) die(result string, status int) {
	u.cancel()
	u.MainPID, u.Result, u.ExitStatus = 0, result, status
	if !u.SparesChildren() {
		u.children = nil
	}
	u.finish(errors.New("the start job ended with \"failed\""))
	switch {
	case u.RestartsAfter(result) && !u.Masked && u.LoadError == "":
		u.State, u.Detail = service.StateRestarting, "activating/auto-restart"
		u.after(u.RestartDelay, u.again)
	case result == "success":
		u.State, u.Detail = service.StateStopped, "inactive/dead"
	default:
		u.State, u.Detail = service.StateFailed, "failed/failed"
	}
	u.fake.wake(u.Unit)
}

// again is the automatic restart. Its attempt counts in Restarts even if the start limit refuses it.
func (u *unit) again() {
	u.Restarts++
	if !u.admit() {
		u.State, u.Detail = service.StateFailed, "failed/failed"
		u.fake.wake(u.Unit)
		return
	}
	u.spawn()
	u.up()
}

// stop ends the unit on request, by a job of the given type.
func (u *unit) stop(job string) <-chan error {
	if u.State == service.StateFailed && job == "stop" || u.State == service.StateStopped && job == "stop" {
		return nil
	}
	u.cancel()
	takes := u.spec.StopTakes
	switch {
	case u.MainPID == 0:
	case u.spec.Deaf || u.frozen:
		u.Result, u.ExitStatus = "timeout", 9
		takes += u.spec.StopLimit
	case u.spec.ExitOnStop != 0:
		u.Result, u.ExitStatus = "exit-code", u.spec.ExitOnStop
	default:
		u.Result, u.ExitStatus = "success", 15
	}
	u.MainPID = 0
	if !u.SparesChildren() {
		u.children = nil
	}
	u.State, u.Job, u.Detail = service.StateStopping, job, "deactivating/stop-post"
	done := u.wait()
	if takes == 0 {
		u.down()
	} else {
		u.after(takes, u.down)
		u.fake.wake(u.Unit)
	}
	return done
}

// down ends a stop or the first half of a restart.
func (u *unit) down() {
	restart := u.Job == "restart"
	u.Job = ""
	if u.Result == "success" {
		u.State, u.Detail = service.StateStopped, "inactive/dead"
	} else {
		u.State, u.Detail = service.StateFailed, "failed/failed"
		u.Halted = u.RestartsAfter(u.Result) &&
			(u.StartLimit == 0 || u.Restarts < u.StartLimit || time.Since(u.since) >= u.StartLimitSpan)
	}
	if restart {
		waiting := u.waiting
		u.waiting = nil
		if _, err := u.begin(); err != nil {
			u.waiting = waiting
			u.finish(err)
			return
		}
		u.waiting = append(u.waiting, waiting...)
		if u.Job != "" {
			return
		}
	}
	u.finish(nil)
}

// wait returns a channel that gets the result of the job.
func (u *unit) wait() <-chan error {
	done := make(chan error, 1)
	u.waiting = append(u.waiting, done)
	return done
}

// finish ends the job, if there is one, and wakes the watchers.
func (u *unit) finish(err error) {
	u.Job = ""
	for _, done := range u.waiting {
		done <- err
	}
	u.waiting = nil
	u.fake.wake(u.Unit)
}

// after lets fn happen when d has passed, unless something else happened to the unit first.
func (u *unit) after(d time.Duration, fn func()) {
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		u.fake.mu.Lock()
		defer u.fake.mu.Unlock()
		if u.timer == t { // it may have been cancelled while this waited for the mutex
			u.timer = nil
			fn()
		}
	})
	u.timer = t
}

func (u *unit) cancel() {
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
}
