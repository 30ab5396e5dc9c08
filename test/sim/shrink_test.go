package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// numbered is a script of n faults that last a minute.
func numbered(n int) []fault {
	var script []fault
	for i := range n {
		script = append(script, fault{number: i + 1, kind: "cut-from-etcd", lasts: time.Minute})
	}
	return script
}

func TestShrink(t *testing.T) {
	long := func(x excerpt, n int, least time.Duration) bool {
		lasts, kept := x[n]
		return kept && (lasts == 0 || lasts >= least)
	}
	cases := map[string]struct {
		faults int
		breaks func(excerpt) bool
		want   string
	}{
		"none needed":           {3, func(excerpt) bool { return true }, "none"},
		"one":                   {5, func(x excerpt) bool { return long(x, 4, 4*time.Second) }, "4:5s"},
		"two":                   {5, func(x excerpt) bool { return long(x, 2, 0) && long(x, 5, 40*time.Second) }, "2:1s,5"},
		"two, or another alone": {4, func(x excerpt) bool { return long(x, 1, 0) && long(x, 2, 0) || long(x, 3, 0) }, "3:1s"},
		"all": {3, func(x excerpt) bool {
			return len(x) == 3 && long(x, 1, time.Minute) && long(x, 2, time.Minute) && long(x, 3, time.Minute)
		}, "1,2,3"},
		"too many to try":        {20, func(x excerpt) bool { return len(x) > 10 && long(x, 1, time.Minute) }, ""},
		"a length is irrelevant": {1, func(x excerpt) bool { return len(x) == 1 }, "1:1s"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			script, tries := numbered(tc.faults), 0
			got := shrink(script, func(x excerpt) bool { tries++; return tc.breaks(x) })
			if !tc.breaks(got) || tc.want != "" && got.String() != tc.want {
				t.Errorf("shrunk to %s, want %s", got, tc.want)
			}
			if most := shrinkTries + 6*tc.faults; tries > most {
				t.Errorf("%d tries, at most %d are wanted", tries, most)
			}
		})
	}
}

func TestExcerpt_ReadsWhatItWrites(t *testing.T) {
	for _, s := range []string{"none", "1", "2,4", "2,4:5s,7:1m30s"} {
		x, err := parseExcerpt(s)
		if err != nil || x.String() != s {
			t.Errorf("%q became %q, %v", s, x, err)
		}
	}
}

// What is listed without a length, and not shrunk, must not depend on it.
func TestMomentary_HasNoLength(t *testing.T) {
	for name := range momentary {
		if !slices.ContainsFunc(kinds, func(k kind) bool { return k.name == name }) {
			t.Errorf("there is no fault %q", name)
		}
		for seed := uint64(1); seed <= 3; seed++ {
			if d := cmp.Diff(traceOf(seed, name, 3*time.Second), traceOf(seed, name, 33*time.Second)); d != "" {
				t.Errorf("%s depends on how long it lasts (-3s +33s):\n%s", name, d)
			}
		}
	}
}

// traceOf is what happens after a hang of Patroni on the leader and a fault there.
func traceOf(seed uint64, kind string, lasts time.Duration) string {
	var trace strings.Builder
	w := newWorld(seed, true, &trace)
	w.after(40*time.Second, nil, func() { w.strike(fault{kind: "patroni-stopped", leader: true}) })
	w.after(20*time.Second, nil, func() {
		w.strike(fault{kind: kind, leader: true, lasts: lasts})
	})
	w.run(2 * time.Minute)
	return trace.String()
}
