package incus

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	up := reading{Status: "Running", Started: "1", Active: "active", Invocation: "a", Postmaster: "7", Starts: 1}
	with := func(f func(*reading)) reading { r := up; f(&r); return r }
	failed := with(func(r *reading) { r.Active, r.Starts = "failed", 5 })
	revived := with(func(r *reading) { r.Invocation, r.Starts = "b", 6 })
	frozen := with(func(r *reading) { r.Frozen = true })
	down := reading{Status: "Stopped", Started: "1"}
	heal, calm := scenario{heals: true}, scenario{}
	for name, c := range map[string]struct {
		s             scenario
		res           Result
		broken, after reading
		fine          bool
	}{
		"healed":                  {heal, Result{With: true, Healed: 5 * time.Second, Intents: 1}, failed, revived, true},
		"healed late":             {heal, Result{With: true, Healed: 20 * time.Second, Intents: 1}, failed, revived, false},
		"not healed":              {heal, Result{With: true}, failed, failed, false},
		"two actions":             {heal, Result{With: true, Healed: time.Second, Intents: 2}, failed, revived, false},
		"started twice":           {heal, Result{With: true, Healed: time.Second, Intents: 1}, failed, with(func(r *reading) { r.Starts = 7 }), false},
		"instance restarted":      {heal, Result{With: true, Healed: time.Second, Intents: 1}, failed, with(func(r *reading) { r.Started, r.Starts = "2", 6 }), false},
		"PostgreSQL restarted":    {heal, Result{With: true, Healed: time.Second, Intents: 1}, failed, with(func(r *reading) { r.Postmaster, r.Starts = "8", 6 }), false},
		"without: stays broken":   {heal, Result{}, failed, failed, true},
		"without: hangs":          {heal, Result{}, frozen, frozen, true},
		"without: no harm":        {heal, Result{}, up, up, false},
		"without: harm is over":   {heal, Result{}, frozen, up, false},
		"without: heals by magic": {heal, Result{Healed: time.Second}, failed, revived, false},
		"left alone":              {calm, Result{With: true}, down, down, true},
		"started against a word":  {calm, Result{With: true}, down, up, false},
		"action on the stopped":   {calm, Result{With: true, Intents: 1}, down, down, false},
		"deed without effect":     {calm, Result{With: true}, up, up, false},
	} {
		if got := judge(c.s, c.res, up, c.broken, c.after); (len(got) == 0) != c.fine {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
