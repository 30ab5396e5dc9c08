package main

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// journalModel models the journal of one agent: what was returned is durable, and survives the agent.
type journalModel struct {
	a         *agent
	entries   []entry
	approvals []approval
	current   *node.Action // of the latest intent
	intents   int
	last      string // boot and instant of the latest intent
	full      int    // faults that keep it from being written
	broken    bool
	tried     instant
	kept      *node.Kept // what was kept last, nil while this agent has never run
}

// entry is one attempt, and when it began on the clock of the world.
type entry struct {
	node.Attempt
	since instant
}

// approval is one that was accepted.
type approval struct {
	node.Approval
	boot  string
	since instant
}

const (
	fsync      = 2 * time.Millisecond
	retryWrite = 10 * time.Second // as in agent/journal
)

// write tries to append a record.
func (j *journalModel) write() error {
	if j.broken = j.full > 0; j.broken {
		j.tried = j.a.m.w.now
		return errors.New("no space left on device")
	}
	return nil
}

// healthy is journal.Healthy: why nothing can be recorded, "" if something can.
func (j *journalModel) healthy() string {
	if j.broken && j.a.m.w.now-j.tried >= retryWrite {
		_ = j.write()
	}
	if j.broken {
		return "no space left on device"
	}
	return ""
}

// Intent implements executor.Journal.
func (j *journalModel) Intent(a node.Action) (node.Attempt, error) {
	j.a.m.w.current.sleep(fsync)
	if err := j.write(); err != nil {
		return node.Attempt{}, err
	}
	at := node.Attempt{
		ActionID: a.ID, Verb: a.Verb, Class: a.Class, Service: a.Service, Finding: a.Finding, BootID: j.a.m.bootID(),
		At: j.a.now(), Before: a.Before, Expect: a.Expect, Settle: a.Settle,
	}
	j.a.m.w.check.begun(j.a, a)
	j.entries = append(j.entries, entry{at, j.a.m.w.now})
	j.last = fmt.Sprint(at.BootID, at.At)
	j.current = &a
	j.intents++
	j.a.m.w.current.sleep(fsync)
	return at, nil
}

// Result implements executor.Journal.
func (j *journalModel) Result(a node.Attempt, r node.AttemptResult, _ string, _ map[string]string) error {
	j.a.m.w.current.sleep(fsync)
	if err := j.write(); err != nil {
		return err
	}
	for i := range j.entries {
		if e := &j.entries[i]; e.ActionID == a.ActionID && e.At == a.At && e.BootID == a.BootID {
			e.Done, e.Result = true, r
			j.a.m.w.check.recorded(j.a, a, r)
		}
	}
	return nil
}

// keep makes durable what the next process of the agent has to know.
func (j *journalModel) keep(k node.Kept) {
	if j.kept == nil || !reflect.DeepEqual(*j.kept, k) {
		j.a.m.w.current.sleep(fsync)
		j.kept = &k
	}
}

func (j *journalModel) attempts() []node.Attempt {
	return j.pick(func(node.Attempt) bool { return true })
}

func (j *journalModel) pick(want func(node.Attempt) bool) []node.Attempt {
	var out []node.Attempt
	for _, e := range j.entries {
		if want(e.Attempt) {
			out = append(out, e.Attempt)
		}
	}
	return out
}

// open are the attempts whose effect is being verified.
func (j *journalModel) open() []node.Attempt {
	return j.pick(func(a node.Attempt) bool { return a.Result == node.ResultExecuted })
}

func (j *journalModel) unresolved() []node.Attempt {
	return j.pick(func(a node.Attempt) bool { return !a.Done })
}

// since returns when an attempt began on the clock of the world.
func (j *journalModel) since(at node.Attempt) instant {
	for _, e := range j.entries {
		if e.At == at.At && e.BootID == at.BootID {
			return e.since
		}
	}
	return 0
}

// tries counts the intents of an action since a moment.
func (j *journalModel) tries(id string, since instant) int {
	n := 0
	for _, e := range j.entries {
		if e.ActionID == id && e.since >= since {
			n++
		}
	}
	return n
}

// approved are the approvals of this boot that have not ended.
func (j *journalModel) approved() []node.Approval {
	var out []node.Approval
	for _, ap := range j.approvals {
		if ap.boot == j.a.m.bootID() && (j.a.now().Sub(ap.At) <= node.ApprovalLife || planted.On("guard/approval-forever")) {
			out = append(out, ap.Approval)
		}
	}
	return out
}
