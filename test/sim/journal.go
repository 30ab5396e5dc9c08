package main

import (
	"reflect"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// journalModel models the journal of one agent: what was returned is durable, and survives the agent.
type journalModel struct {
	a       *agent
	entries []node.Attempt
	current *node.Action // of the latest intent
	intents int
	kept    *node.Kept // what was kept last, nil while this agent has never run
}

const fsync = 2 * time.Millisecond

// Intent implements executor.Journal.
func (j *journalModel) Intent(a node.Action) (node.Attempt, error) {
	j.a.m.w.current.sleep(fsync)
	at := node.Attempt{
		ActionID: a.ID, Verb: a.Verb, Class: a.Class, Service: a.Service, Finding: a.Finding, BootID: j.a.m.bootID(),
		At: j.a.now(), Before: a.Before, Expect: a.Expect, Settle: a.Settle,
	}
	j.entries = append(j.entries, at)
	j.current = &a
	j.intents++
	j.a.m.w.current.sleep(fsync)
	return at, nil
}

// Result implements executor.Journal.
func (j *journalModel) Result(a node.Attempt, r node.AttemptResult, _ string, _ map[string]string) error {
	j.a.m.w.current.sleep(fsync)
	for i := range j.entries {
		if e := &j.entries[i]; e.ActionID == a.ActionID && e.At == a.At {
			e.Done, e.Result = true, r
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
	return append([]node.Attempt(nil), j.entries...)
}

func (j *journalModel) pick(want func(node.Attempt) bool) []node.Attempt {
	var out []node.Attempt
	for _, e := range j.entries {
		if want(e) {
			out = append(out, e)
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
