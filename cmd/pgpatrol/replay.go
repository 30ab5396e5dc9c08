package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/decision"
	"github.com/pgpatrol/pgpatrol/agent/journal"
)

// Outcomes of a replay.
const (
	identical = "identical" // the same answer, byte by byte
	different = "different"
	noInputs  = "no inputs recorded"
)

// replay is what deciding again gave.
type replay struct {
	Decision    uint64       `json:"decision,omitempty"` // number of the record that was decided again
	Outcome     string       `json:"outcome"`
	Reason      string       `json:"reason,omitempty"`
	RecordedBy  string       `json:"recorded_by,omitempty"` // version of pgpatrol
	ReplayedBy  string       `json:"replayed_by,omitempty"`
	Differences []difference `json:"differences,omitempty"` // the first few
}

// difference is one place in the plan's JSON.
type difference struct {
	Path       string `json:"path"`
	Recorded   string `json:"recorded"`
	Recomputed string `json:"recomputed"`
}

const maxDifferences = 5

// replayStory decides again what a record belongs to.
func replayStory(s story) replay {
	if s.Decision != nil {
		return replayRecord(*s.Decision)
	}
	switch r := s.Record; {
	case r.Decision != 0 || r.Action != nil && r.Action.Decision != 0:
		return replay{Outcome: noInputs, Reason: "the decision that it belongs to is not in the journal any more"}
	case r.Finding != nil || r.Action != nil || r.Result != nil:
		return replay{Outcome: noInputs, Reason: "the record names no decision; a version of pgpatrol that did not keep inputs wrote it"}
	default:
		return replay{Outcome: noInputs, Reason: fmt.Sprintf("a record of kind %s is no decision", r.Kind)}
	}
}

// replayRecord decides again from the inputs that a plan was recorded with.
func replayRecord(d api.Record) replay {
	r := replay{Decision: d.Seq, RecordedBy: d.Program, ReplayedBy: programVersion()}
	if d.Question == nil {
		r.Outcome, r.Reason = noInputs, "the plan was recorded without them"
		return r
	}
	answer := decision.Decide(*d.Question)
	was, err1 := json.Marshal(d.Plan)
	is, err2 := json.Marshal(answer.Plan)
	switch {
	case err1 != nil || err2 != nil:
		r.Outcome, r.Reason = different, fmt.Sprintf("the plans cannot be compared: %v, %v", err1, err2)
	case bytes.Equal(was, is):
		r.Outcome = identical
	default:
		r.Outcome, r.Differences = different, differences(was, is)
		r.Reason = whoDiffers(r)
	}
	if answer.Broken != "" {
		r.Reason = strings.TrimPrefix(r.Reason+"; the core broke a rule of its own: "+answer.Broken, "; ")
	}
	return r
}

// whoDiffers tells a changed rule from a broken promise.
func whoDiffers(r replay) string {
	switch r.RecordedBy {
	case r.ReplayedBy:
		return "the same version gives another answer, which it must not"
	case "":
		return "the record does not say which version of pgpatrol decided; this is " + r.ReplayedBy
	}
	return fmt.Sprintf("pgpatrol %s decided and this is %s: rules may have changed in between; replay with %s to judge it", r.RecordedBy, r.ReplayedBy, r.RecordedBy)
}

// differences lists the first places in which two JSON values differ.
func differences(was, is []byte) []difference {
	var out []difference
	compare("plan", tree(was), tree(is), &out)
	return out[:min(len(out), maxDifferences)]
}

func tree(b []byte) any {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	_ = d.Decode(&v) // it was encoded a moment ago
	return v
}

func compare(path string, was, is any, out *[]difference) {
	switch w := was.(type) {
	case map[string]any:
		if i, ok := is.(map[string]any); ok {
			all := maps.Clone(w)
			maps.Copy(all, i)
			for _, k := range slices.Sorted(maps.Keys(all)) {
				compare(path+"."+k, member(w, k), member(i, k), out)
			}
			return
		}
	case []any:
		if i, ok := is.([]any); ok && len(i) == len(w) {
			for n := range w {
				compare(fmt.Sprintf("%s[%d]", path, n), w[n], i[n], out)
			}
			return
		}
	}
	if a, b := short(was), short(is); a != b {
		*out = append(*out, difference{path, a, b})
	}
}

// absent is a member that an object does not have, which is not the same as null.
type absent struct{}

func member(m map[string]any, key string) any {
	if v, ok := m[key]; ok {
		return v
	}
	return absent{}
}

// short is a value as JSON.
func short(v any) string {
	if v == (absent{}) {
		return "absent"
	}
	b, _ := json.Marshal(v) // it came from JSON
	return string(b)
}

func printReplay(p *printer, r replay) {
	p.line("")
	switch {
	case r.Outcome == identical && r.Reason == "":
		p.line("replay: identical")
	case r.Outcome == identical:
		p.para("", "  ", "replay: identical; %s", r.Reason)
	case r.Outcome == noInputs:
		p.para("", "  ", "replay: no inputs recorded: %s", r.Reason)
	default:
		p.para("", "  ", "replay: %s: %s", painted{"1;31", "different"}, r.Reason)
	}
	for _, d := range r.Differences {
		p.line("  %s", d.Path)
		p.para("    ", "      ", "recorded %.500s", d.Recorded)
		p.para("    ", "      ", "recomputed %.500s", d.Recomputed)
	}
}

// tally is the reply of why all --replay --json.
type tally struct {
	Replayed   int              `json:"replayed"`
	Identical  int              `json:"identical"`
	Different  int              `json:"different"`
	NoInputs   int              `json:"no_inputs"`   // plans that were recorded without them
	NoDecision int              `json:"no_decision"` // records that are none
	Differ     []replay         `json:"differ"`      // the decisions that differ
	Damaged    []journal.Damage `json:"damaged_lines"`
}

// replayAll decides every recorded decision again.
func replayAll(ctx context.Context, e *env, c chronicle) error {
	t := tally{Differ: []replay{}, Damaged: []journal.Damage{}}
	err := c.each(ctx, func(r api.Record) {
		if r.Plan == nil {
			t.NoDecision++
			return
		}
		switch one := replayRecord(r); one.Outcome {
		case identical:
			t.Identical++
		case different:
			t.Different++
			t.Differ = append(t.Differ, one)
		default:
			t.NoInputs++
		}
	})
	if err != nil {
		return err
	}
	t.Replayed = t.Identical + t.Different
	t.Damaged = append(t.Damaged, c.damage()...)
	if e.json {
		if err := printJSON(e.out, t); err != nil {
			return err
		}
	} else {
		printTally(newPrinter(e.out, e.screen), t)
	}
	if t.Different > 0 {
		return &codeError{code: exitFailed}
	}
	return nil
}

func printTally(p *printer, t tally) {
	p.line("%d decisions replayed: %d identical, %d different", t.Replayed, t.Identical, t.Different)
	p.line("%d decisions without recorded inputs, %d records that are no decisions", t.NoInputs, t.NoDecision)
	for _, r := range t.Differ {
		p.line("\n#%d", r.Decision)
		printReplay(p, r)
	}
	printDamage(p, t.Damaged)
}

func printDamage(p *printer, damaged []journal.Damage) {
	if len(damaged) == 0 {
		return
	}
	p.line("\n%d damaged places in the journal, which are left out:", len(damaged))
	for _, d := range damaged {
		p.para("  ", "    ", "%s: line at byte %d: %s", d.File, d.Offset, d.Reason)
	}
}
