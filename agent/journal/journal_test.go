package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

func TestOpen_ReplaysWhatWasAppended(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	finding := &node.Finding{Code: node.PatroniHung, Severity: node.Page, Subject: "patroni", Text: "a\x00\u009b31m\n"}
	if _, err := j.Append(Record{Kind: Finding, Finding: finding}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(Record{Kind: Plan, Plan: &node.Plan{At: 5, Summary: "nothing is to be done"}}); err != nil {
		t.Fatal(err)
	}
	a := intend(t, j, "act-1")
	if err := j.Result(a, node.ResultExecuted, "", map[string]string{"new_invocation": "b2"}); err != nil {
		t.Fatal(err)
	}
	want, wantAttempts := records(t, j, Query{}), j.Attempts()
	closeJournal(t, j)

	j = open(t, dir, w.deps())
	if diff := cmp.Diff(want, records(t, j, Query{})); diff != "" {
		t.Errorf("records after reopening (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantAttempts, j.Attempts()); diff != "" {
		t.Errorf("attempts after reopening (-want +got):\n%s", diff)
	}
	if got := say(t, j, "next"); got != 5 {
		t.Errorf("sequence number after reopening = %d, want 5", got)
	}
	if err := j.Healthy(); err != nil {
		t.Errorf("Healthy: %v", err)
	}
}

func TestOpen_SecondAgentIsLockedOut(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	_, err := Open(dir, w.deps())
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open = %v, want ErrLocked", err)
	}
	if want := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not name the holder %q", err, want)
	}
	say(t, j, "the first goes on")
	closeJournal(t, j)
	closeJournal(t, open(t, dir, w.deps()))
}

func TestOpen_StateDirectoryIsPrivate(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	say(t, open(t, dir, w.deps()), "x")
	for name, want := range map[string]os.FileMode{".": 0o700, currentName: 0o600, lockName: 0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %o, want %o", name, got, want)
		}
	}
}

// FAULTS.md T14.
func TestOpen_RefusesTraps(t *testing.T) {
	cases := map[string]func(t *testing.T, dir string){
		"symbolic link as journal": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(filepath.Dir(dir), "victim"), []byte("x\n"), 0o600))
			must(t, os.Symlink("../victim", filepath.Join(dir, currentName)))
		},
		"symbolic link as lock": func(t *testing.T, dir string) {
			must(t, os.Symlink("../victim", filepath.Join(dir, lockName)))
		},
		"hard link as journal": func(t *testing.T, dir string) {
			victim := filepath.Join(filepath.Dir(dir), "victim")
			must(t, os.WriteFile(victim, nil, 0o600))
			must(t, os.Link(victim, filepath.Join(dir, currentName)))
		},
		"directory as journal": func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, currentName), 0o700))
		},
		"directory that others may write to": func(t *testing.T, dir string) {
			must(t, os.Chmod(dir, 0o777))
		},
	}
	for name, trap := range cases {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			must(t, os.Mkdir(dir, 0o700))
			trap(t, dir)
			if j, err := Open(dir, newWorld().deps()); err == nil {
				if err = j.Healthy(); err == nil {
					t.Fatal("Open accepted it")
				}
			}
		})
	}
}

func TestOpen_CrashAtEveryByteOfTheLastRecord(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	say(t, j, "first")
	say(t, j, "second")
	before := len(readCurrent(t, dir))
	intend(t, j, "act-1")
	closeJournal(t, j)
	whole := readCurrent(t, dir)

	for cut := before; cut <= len(whole); cut++ {
		at := filepath.Join(t.TempDir(), "state")
		writeCurrent(t, at, whole[:cut])
		j := open(t, at, w.deps())
		got := texts(records(t, j, Query{Kinds: []Kind{Config}}))
		if diff := cmp.Diff([]string{"first", "second"}, got); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		if got, want := len(j.Attempts()), map[bool]int{true: 1}[cut == len(whole)]; got != want {
			t.Fatalf("cut at %d: %d attempts, want %d", cut, got, want)
		}
		torn := cut > before && cut < len(whole)
		if err := j.Healthy(); errors.Is(err, ErrLost) != torn || err != nil && !torn {
			t.Fatalf("cut at %d: Healthy = %v", cut, err)
		}
		if got := len(records(t, j, Query{Kinds: []Kind{Repair}})) == 1; got != torn {
			t.Fatalf("cut at %d: repair recorded = %v, want %v", cut, got, torn)
		}
		if torn {
			kept, err := os.ReadFile(filepath.Join(at, tornName))
			if err != nil || string(kept) != string(whole[before:cut]) {
				t.Fatalf("cut at %d: kept aside %q, %v", cut, kept, err)
			}
		}
		say(t, j, "third")
		closeJournal(t, j)
		if got := texts(records(t, open(t, at, w.deps()), Query{Limit: 1})); got[0] != "third" {
			t.Fatalf("cut at %d: last record %q", cut, got)
		}
	}
}

// TestOpen_EndLost: in the boot in which its end was cut off a journal is not to be trusted for an hour, however often the
// agent starts again and the files are rotated. It is written to meanwhile, and nothing of it is lost. A machine that lost
// its power is trusted at once.
func TestOpen_EndLost(t *testing.T) {
	half := func(b []byte) []byte { return b[:len(b)-9] }
	flipped := func(b []byte) []byte { b[len(b)-20] ^= 1; return b }
	none := func([]byte) []byte { return nil }
	for _, tt := range []struct {
		name   string
		damage func([]byte) []byte
		boot   string
		lost   bool
	}{
		{"the last record is half", half, "boot-1", true},
		{"a bit of the last record", flipped, "boot-1", true},
		{"emptied", none, "boot-1", true},
		{"the last record is gone", func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] }, "boot-1", true},
		{"the last record is gone, and the power was lost", func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] }, "boot-2", false},
		{"whole", func(b []byte) []byte { return b }, "boot-1", false},
		{"the power was lost", half, "boot-2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, dir := newWorld(), stateDir(t)
			d := w.deps()
			d.MaxBytes, d.Keep = 4<<10, 1
			j := open(t, dir, d)
			say(t, j, "first")
			say(t, j, "last")
			closeJournal(t, j)
			writeCurrent(t, dir, tt.damage(readCurrent(t, dir)))
			d.BootID = tt.boot
			for range 20 {
				j = open(t, dir, d)
				err := j.Healthy()
				if errors.Is(err, ErrLost) != tt.lost || err != nil && !tt.lost {
					t.Fatalf("Healthy = %v after %s", err, w.now-node.Instant(time.Hour))
				}
				if _, _, ran := j.Kept(); !ran {
					t.Fatal("nobody seems to have run here")
				}
				say(t, j, strings.Repeat("x", 500))
				closeJournal(t, j)
				w.sleep(179 * time.Second)
			}
			w.sleep(time.Minute)
			must(t, open(t, dir, d).Healthy())
		})
	}
}

// TestOpen_Unreadable: a file that cannot be read is left alone, and the agent can say so.
func TestOpen_Unreadable(t *testing.T) {
	for _, name := range []string{currentName, rotatedName(1)} {
		w, dir := newWorld(), stateDir(t)
		must(t, os.MkdirAll(filepath.Join(dir, name, "x"), 0o700))
		j := open(t, dir, w.deps())
		if err := j.Healthy(); !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "AGENT_DEGRADED") {
			t.Errorf("%s: Healthy = %v, want ErrUnreadable with the file and what to do", name, err)
		}
		if _, err := j.Intent(action("act-1")); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: Intent = %v", name, err)
		}
		if _, _, ran := j.Kept(); !ran {
			t.Errorf("%s: nobody seems to have run here", name)
		}
		closeJournal(t, j)
		if _, err := os.Stat(filepath.Join(dir, name, "x")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A crash may leave a record whose first page never reached the disk while its last one did.
func TestOpen_LastRecordWithAHole(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	say(t, j, "first")
	before := len(readCurrent(t, dir))
	say(t, j, strings.Repeat("x", 9000))
	closeJournal(t, j)
	b := readCurrent(t, dir)
	clear(b[before : before+4096])
	writeCurrent(t, dir, b)

	w.boot = "boot-2"
	j = open(t, dir, w.deps())
	if err := j.Healthy(); err != nil {
		t.Fatalf("Healthy: %v", err)
	}
	if got := texts(records(t, j, Query{Kinds: []Kind{Config}})); len(got) != 1 || got[0] != "first" {
		t.Errorf("records = %q", got)
	}
}

func TestOpen_CorruptionInTheMiddleForbidsWriting(t *testing.T) {
	cases := map[string]func(lines []string) []string{
		"a flipped bit":    func(l []string) []string { l[1] = strings.Replace(l[1], "act-1", "act-2", 1); return l },
		"a missing line":   func(l []string) []string { return append(l[:1], l[2:]...) },
		"a repeated line":  func(l []string) []string { return append(l[:2], l[1:]...) },
		"an empty line":    func(l []string) []string { l[1] = "\n" + l[1]; return l },
		"a foreign line":   func(l []string) []string { l[1] = "{}\n" + l[1]; return l },
		"an endless line":  func(l []string) []string { l[1] = strings.Repeat("y", maxLine+5) + "\n" + l[1]; return l },
		"swapped lines":    func(l []string) []string { l[0], l[1] = l[1], l[0]; return l },
		"a line of zeroes": func(l []string) []string { l[0] = strings.Repeat("\x00", 70000) + "\n"; return l },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			w, dir := newWorld(), stateDir(t)
			j := open(t, dir, w.deps())
			say(t, j, "first")
			a := intend(t, j, "act-1")
			say(t, j, "last")
			closeJournal(t, j)
			b := []byte(strings.Join(damage(strings.SplitAfter(string(readCurrent(t, dir)), "\n")), ""))
			writeCurrent(t, dir, b)

			j = open(t, dir, w.deps())
			if err := j.Healthy(); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("Healthy = %v, want ErrCorrupt", err)
			}
			if _, err := j.Intent(action("act-9")); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Intent = %v, want ErrCorrupt", err)
			}
			if err := j.Result(a, node.ResultExecuted, "", nil); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Result = %v, want ErrCorrupt", err)
			}
			if got := texts(records(t, j, Query{})); got[len(got)-1] != "last" {
				t.Errorf("records = %q, want them to end with last", got)
			}
			closeJournal(t, j)
			if string(readCurrent(t, dir)) != string(b) {
				t.Error("the corrupt file was changed")
			}
		})
	}
}

// FAULTS.md F104i: a downgraded agent reads what the newer one wrote and leaves it alone.
func TestOpen_NewerVersionIsReadOnly(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	say(t, j, "old")
	closeJournal(t, j)
	b := append(readCurrent(t, dir), `{"v":2,"seq":2,"kind":"config","text":"new","extra":{"a":1},"at":"another type","sum2":"?"}`+"\n"+`{"v":2,"se`...)
	writeCurrent(t, dir, b)

	j = open(t, dir, w.deps())
	if err := j.Healthy(); !errors.Is(err, ErrNewer) {
		t.Fatalf("Healthy = %v, want ErrNewer", err)
	}
	if _, err := j.Append(Record{Kind: Start}); !errors.Is(err, ErrNewer) {
		t.Errorf("Append = %v, want ErrNewer", err)
	}
	if got := texts(records(t, j, Query{})); len(got) != 2 || got[1] != "new" {
		t.Errorf("records = %q", got)
	}
	closeJournal(t, j)
	if string(readCurrent(t, dir)) != string(b) {
		t.Error("the newer file was changed")
	}
}

func TestAppend_DiskFailures(t *testing.T) {
	cases := map[string]faulty{
		"nothing written":                    {write: true},
		"part of it written":                 {write: true, partial: 40},
		"all of it written, sync fails":      {sync: true},
		"written in part, cutting fails":     {write: true, partial: 40, truncate: true},
		"written in full, cutting fails":     {sync: true, truncate: true},
		"all but the newline, cutting fails": {write: true, partial: 1 << 20, truncate: true},
	}
	for name, fault := range cases {
		t.Run(name, func(t *testing.T) {
			w, dir := newWorld(), stateDir(t)
			j := open(t, dir, w.deps())
			say(t, j, "first")
			f := fault
			f.file = j.file
			j.file = &f
			for range 3 {
				if _, err := j.Intent(action("act-1")); !errors.Is(err, errDisk) {
					t.Fatalf("Intent = %v, want the disk's error", err)
				}
			}
			if err := j.Healthy(); !errors.Is(err, errDisk) {
				t.Fatalf("Healthy = %v, want the disk's error", err)
			}
			if n := len(j.Attempts()); n != 0 {
				t.Errorf("%d attempts are remembered that were never recorded", n)
			}
			f.write, f.sync, f.truncate = false, false, false
			if seq := say(t, j, "second"); seq != 2 {
				t.Errorf("sequence number = %d, want 2", seq)
			}
			if err := j.Healthy(); err != nil {
				t.Errorf("Healthy = %v after the disk works again", err)
			}
			closeJournal(t, j)
			j = open(t, dir, w.deps())
			if diff := cmp.Diff([]string{"first", "second"}, texts(records(t, j, Query{}))); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// An agent that may only observe records nothing new, and must find out all the same that the disk works again.
func TestHealthy_RecoversByItself(t *testing.T) {
	w := newWorld()
	j := open(t, stateDir(t), w.deps())
	f := &faulty{file: j.file, write: true}
	j.file = f
	if _, err := j.Append(Record{Kind: Start}); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	w.sleep(retryAfter)
	if err := j.Healthy(); !errors.Is(err, errDisk) {
		t.Errorf("Healthy = %v while the disk fails", err)
	}
	f.write = false
	if err := j.Healthy(); !errors.Is(err, errDisk) {
		t.Errorf("Healthy = %v, tried again too soon", err)
	}
	w.sleep(retryAfter)
	if err := j.Healthy(); err != nil {
		t.Errorf("Healthy = %v after the disk works again", err)
	}
	if got := records(t, j, Query{}); len(got) != 1 || got[0].Kind != Repair || !strings.Contains(got[0].Text, errDisk.Error()) {
		t.Errorf("records = %+v", got)
	}
	w.sleep(time.Hour)
	must(t, j.Healthy())
	if n := len(records(t, j, Query{})); n != 1 {
		t.Errorf("%d records, a healthy journal writes nothing by itself", n)
	}
}

func TestAppend_RefusesWhatCannotBeReadBack(t *testing.T) {
	j := open(t, stateDir(t), newWorld().deps())
	for name, r := range map[string]Record{
		"no kind":               {Text: "x"},
		"unknown kind":          {Kind: "gossip"},
		"intent without action": {Kind: Intent},
		"result without intent": {Kind: Result, Result: &Outcome{Result: node.ResultFailed}},
		"result without result": {Kind: Result, Result: &Outcome{Intent: 1}},
		"too long":              {Kind: Config, Text: strings.Repeat("x", maxLine)},
	} {
		if _, err := j.Append(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if seq := say(t, j, "good"); seq != 1 {
		t.Errorf("sequence number = %d, want 1", seq)
	}
}

func TestClose_Twice(t *testing.T) {
	j := open(t, stateDir(t), newWorld().deps())
	closeJournal(t, j)
	closeJournal(t, j)
	if _, err := j.Append(Record{Kind: Stop}); !errors.Is(err, ErrClosed) {
		t.Errorf("Append = %v, want ErrClosed", err)
	}
	if _, err := j.Records(Query{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Records = %v, want ErrClosed", err)
	}
}

func TestRecords_Query(t *testing.T) {
	w := newWorld()
	d := w.deps()
	d.MaxBytes = 600 // two or three records per file
	j := open(t, stateDir(t), d)
	for i := range 6 {
		say(t, j, fmt.Sprint("c", i))
		if i%2 == 0 {
			if _, err := j.Append(Record{Kind: Start, Text: fmt.Sprint("s", i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := map[string]struct {
		q    Query
		want []string
	}{
		"all":                {Query{}, []string{"c0", "s0", "c1", "c2", "s2", "c3", "c4", "s4", "c5"}},
		"newest two":         {Query{Limit: 2}, []string{"s4", "c5"}},
		"newest of one kind": {Query{Limit: 2, Kinds: []Kind{Start}}, []string{"s2", "s4"}},
		"since":              {Query{Since: 7}, []string{"s4", "c5"}},
		"since and limit":    {Query{Since: 2, Limit: 1}, []string{"c5"}},
		"kind without any":   {Query{Kinds: []Kind{Stop}}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, texts(records(t, j, tc.q))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestJournal_ConcurrentUse(t *testing.T) {
	d := newWorld().deps()
	boot, at := d.BootID, d.Now()
	d = Deps{Now: func() node.Instant { return at }, Wall: func() time.Time { return time.Unix(0, 0) }, BootID: boot, MaxBytes: 2000, Keep: 50}
	j := open(t, stateDir(t), d)
	done := make(chan error)
	for range 4 {
		go func() {
			var err error
			for range 25 {
				_, e := j.Append(Record{Kind: Config, Text: "x"})
				_, e2 := j.Records(Query{Limit: 3})
				err = errors.Join(err, e, e2, j.Healthy())
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(records(t, j, Query{})); n != 100 {
		t.Errorf("%d records, want 100", n)
	}
}
