package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// world is the clock of a test; every reading moves it on a little, so that no two records share an instant.
type world struct {
	now  node.Instant
	wall time.Time
	boot string
}

func newWorld() *world {
	return &world{now: node.Instant(time.Hour), wall: time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC), boot: "boot-1"}
}

func (w *world) sleep(d time.Duration) {
	w.now, w.wall = w.now.Add(d), w.wall.Add(d)
}

func (w *world) deps() Deps {
	return Deps{
		Now:    func() node.Instant { w.sleep(time.Microsecond); return w.now },
		Wall:   func() time.Time { return w.wall },
		BootID: w.boot,
	}
}

func stateDir(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "state")
}

func open(t testing.TB, dir string, d Deps) *Journal {
	t.Helper()
	j, err := Open(dir, d)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func closeJournal(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func say(t testing.TB, j *Journal, text string) uint64 {
	t.Helper()
	seq, err := j.Append(Record{Kind: Config, Text: text})
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	return seq
}

func action(id string) node.Action {
	return node.Action{
		ID: id, Verb: node.SoftKill, Service: "patroni", Unit: "patroni.service", Class: node.ClassRevive,
		Finding: node.PatroniHung, Reason: "hung", Before: node.Baseline{InvocationID: "a1", MainPID: 7},
		Expect: node.Expectation{NewInvocation: true}, Deadline: 10 * time.Second, Settle: 20 * time.Second,
	}
}

func intend(t testing.TB, j *Journal, id string) node.Attempt {
	t.Helper()
	a, err := j.Intent(action(id))
	if err != nil {
		t.Fatalf("Intent: %v", err)
	}
	return a
}

func conclude(t testing.TB, j *Journal, a node.Attempt, r node.AttemptResult) {
	t.Helper()
	if err := j.Result(a, r, "", nil); err != nil {
		t.Fatalf("Result: %v", err)
	}
}

func records(t testing.TB, j *Journal, q Query) []Record {
	t.Helper()
	rs, err := j.Records(q)
	if err != nil {
		t.Fatalf("Records: %v", err)
	}
	return rs
}

func texts(rs []Record) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Text)
	}
	return out
}

func ids(as []node.Attempt) []string {
	var out []string
	for _, a := range as {
		out = append(out, a.ActionID+":"+string(a.Result))
	}
	return out
}

func readCurrent(t testing.TB, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeCurrent(t testing.TB, dir string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, currentName), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

var errDisk = errors.New("no space left on device")

// faulty wraps the real file and fails what the test asks it to fail.
type faulty struct {
	file
	write, sync, truncate bool
	partial               int // bytes that a failing write still writes
}

func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
	if !f.write {
		return f.file.WriteAt(p, off)
	}
	n, _ := f.file.WriteAt(p[:min(f.partial, len(p))], off)
	return n, errDisk
}

func (f *faulty) datasync() error {
	if f.sync {
		return errDisk
	}
	return f.file.datasync()
}

func (f *faulty) Truncate(size int64) error {
	if f.truncate {
		return errDisk
	}
	return f.file.Truncate(size)
}
