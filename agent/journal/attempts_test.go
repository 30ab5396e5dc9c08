package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

func TestAttempts_FromIntentsAndResults(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	settled := intend(t, j, "settled")
	conclude(t, j, settled, node.ResultExecuted)
	conclude(t, j, settled, node.ResultVerified)
	conclude(t, j, intend(t, j, "failed"), node.ResultFailed)
	conclude(t, j, intend(t, j, "running"), node.ResultExecuted)
	intend(t, j, "open")

	want := []string{"settled:verified", "failed:failed", "running:executed", "open:"}
	check := func(j *Journal) {
		t.Helper()
		if diff := cmp.Diff(want, ids(j.Attempts())); diff != "" {
			t.Errorf("Attempts (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"open:"}, ids(j.Unresolved())); diff != "" {
			t.Errorf("Unresolved (-want +got):\n%s", diff)
		}
	}
	check(j)
	closeJournal(t, j)
	w.boot = "boot-2"
	w.now = 0
	j = open(t, dir, w.deps())
	check(j)
	if got := j.Attempts()[0]; got.BootID != "boot-1" || got.Before.InvocationID != "a1" || got.Settle != 20*time.Second {
		t.Errorf("attempt = %+v", got)
	}
	conclude(t, j, j.Unresolved()[0], node.ResultNotExecuted)
	if n := len(j.Unresolved()); n != 0 {
		t.Errorf("%d unresolved after resolving", n)
	}
}

func TestAttempts_SameActionTwice(t *testing.T) {
	w := newWorld()
	d := w.deps()
	at := w.now
	d.Now = func() node.Instant { return at }
	j := open(t, stateDir(t), d)
	first := intend(t, j, "act")
	second := intend(t, j, "act") // the same instant: only which one is open tells them apart
	conclude(t, j, first, node.ResultUnverified)
	conclude(t, j, second, node.ResultFailed)
	if diff := cmp.Diff([]string{"act:failed", "act:unverified"}, ids(j.Attempts())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestResult_UnknownAttempt(t *testing.T) {
	j := open(t, stateDir(t), newWorld().deps())
	a := intend(t, j, "act")
	a.BootID = "another"
	if err := j.Result(a, node.ResultFailed, "", nil); !errors.Is(err, ErrUnknownAttempt) {
		t.Errorf("Result = %v, want ErrUnknownAttempt", err)
	}
}

func TestAttempts_AgeAndNumber(t *testing.T) {
	base := newWorld()
	boot := func(id string, at time.Duration, wall time.Duration, done bool) Carried {
		return Carried{
			Intent: 1, Wall: base.wall.Add(wall),
			Attempt: node.Attempt{ActionID: id, BootID: id[:6], At: base.now.Add(at), Done: done},
		}
	}
	cases := map[string]struct {
		entry Carried
		kept  bool
	}{
		"this boot, young":                         {boot("boot-1", -time.Hour, -time.Hour, true), true},
		"this boot, old":                           {boot("boot-1", -25*time.Hour, -25*time.Hour, true), false},
		"this boot, wall clock set forward a year": {boot("boot-1", -time.Hour, -365*24*time.Hour, true), true},
		"other boot, young":                        {boot("boot-0", 99*time.Hour, -time.Hour, true), true},
		"other boot, old":                          {boot("boot-0", 0, -25*time.Hour, true), false},
		"other boot, in the future":                {boot("boot-0", 0, 25*time.Hour, true), true},
		"old without a result":                     {boot("boot-0", 0, -999*time.Hour, false), true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := ledger{entries: []Carried{tc.entry}}
			l.trim("boot-1", base.now, base.wall)
			if got := len(l.entries) == 1; got != tc.kept {
				t.Errorf("kept = %v, want %v", got, tc.kept)
			}
		})
	}
	t.Run("at most a thousand, the newest", func(t *testing.T) {
		var l ledger
		for i := range maxAttempts + 5 {
			e := boot("boot-1", 0, 0, i != 0)
			e.Intent = uint64(i)
			l.entries = append(l.entries, e)
		}
		l.trim("boot-1", base.now, base.wall)
		if len(l.entries) != maxAttempts || l.entries[0].Intent != 0 || l.entries[1].Intent != 6 {
			t.Errorf("kept %d: %d, %d, ...", len(l.entries), l.entries[0].Intent, l.entries[1].Intent)
		}
	})
}

func TestRotation_KeepsTheNewestAndEveryAttempt(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	d := w.deps()
	d.MaxBytes, d.Keep = 4096, 2
	j := open(t, dir, d)
	a := intend(t, j, "spent")
	conclude(t, j, a, node.ResultExecuted)
	intend(t, j, "open")
	var last uint64
	for i := range 200 {
		last = say(t, j, fmt.Sprintf("noise %03d", i))
	}
	want := []string{"spent:executed", "open:"}
	if diff := cmp.Diff(want, ids(j.Attempts())); diff != "" {
		t.Errorf("attempts in memory (-want +got):\n%s", diff)
	}
	if err := j.Result(a, node.ResultVerified, "", nil); err != nil {
		t.Fatalf("result of a carried attempt: %v", err)
	}
	closeJournal(t, j)
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	must(t, err)
	if len(names) != 3 {
		t.Errorf("files = %q, want three", names)
	}
	for _, n := range names {
		st, err := os.Stat(n)
		must(t, err)
		if st.Size() > 4096+2048 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s has %d bytes and mode %o", n, st.Size(), st.Mode().Perm())
		}
	}

	j = open(t, dir, d)
	if err := j.Healthy(); err != nil {
		t.Fatalf("Healthy: %v", err)
	}
	want[0] = "spent:verified"
	if diff := cmp.Diff(want, ids(j.Attempts())); diff != "" {
		t.Errorf("attempts after reopening (-want +got):\n%s", diff)
	}
	rs := records(t, j, Query{Kinds: []Kind{Config}})
	if got := rs[len(rs)-1]; got.Text != "noise 199" || got.Seq != last {
		t.Errorf("newest = %d %q", got.Seq, got.Text)
	}
}

// The process may end between any two renames, and the disk may fail at any of them.
func TestRotation_CrashAtEveryStep(t *testing.T) {
	for step := range 4 {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			w, dir := newWorld(), stateDir(t)
			d := w.deps()
			d.MaxBytes = 2048
			j := open(t, dir, d)
			intend(t, j, "spent")
			for range 40 {
				say(t, j, "noise")
			}
			last := say(t, j, "before")
			closeJournal(t, j)
			names := []string{rotatedName(3), rotatedName(2), rotatedName(1), currentName}
			for i := range min(step, 3) {
				must(t, os.Rename(filepath.Join(dir, names[i+1]), filepath.Join(dir, names[i])))
			}
			j = open(t, dir, d)
			if err := j.Healthy(); err != nil {
				t.Fatalf("Healthy: %v", err)
			}
			if seq := say(t, j, "after"); seq != last+1 {
				t.Errorf("sequence number = %d, want %d", seq, last+1)
			}
			if diff := cmp.Diff([]string{"spent:"}, ids(j.Attempts())); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			closeJournal(t, j)
			must(t, open(t, dir, d).Healthy())
		})
	}
}

func TestRotation_DiskFullKeepsTheCarry(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	d := w.deps()
	d.MaxBytes, d.Keep = 2048, 1
	j := open(t, dir, d)
	conclude(t, j, intend(t, j, "spent"), node.ResultExecuted)
	create, full := j.create, false
	j.create = func() (file, error) {
		f, err := create()
		return &faulty{file: f, write: full, partial: 100}, err
	}
	full = true
	failed := 0
	for range 100 {
		if _, err := j.Append(Record{Kind: Config, Text: "noise"}); err != nil {
			failed++
			if j.Healthy() == nil {
				t.Fatal("healthy after a failed append")
			}
			full = failed < 3
		}
	}
	if failed != 3 {
		t.Fatalf("%d appends failed, want 3", failed)
	}
	must(t, j.Healthy())
	closeJournal(t, j)
	j = open(t, dir, d)
	must(t, j.Healthy())
	if diff := cmp.Diff([]string{"spent:executed"}, ids(j.Attempts())); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}
