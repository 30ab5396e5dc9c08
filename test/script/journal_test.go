package script

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// journaled returns a daemon that has run once and left a journal with a pause in it.
func journaled(t *testing.T) *daemon {
	d := &daemon{t: t, dir: t.TempDir()}
	d.config("policy: {revive: auto}\n")
	d.start()
	d.held()
	d.order(0, "pause --for 2h --owner ann --reason maintenance")
	d.held(node.HoldPause)
	d.stop()
	return d
}

func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		d.t.Fatalf("the agent ended with %v\n%s", err, d.stderr.String())
	}
}

// state returns the files of the journal, by name.
func (d *daemon) state() map[string]string {
	d.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(filepath.Join(d.dir, "state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(e.Name(), "journal") {
			return err
		}
		b, err := os.ReadFile(path)
		out[e.Name()] = string(b)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// TestAgent_JournalDamaged: an agent whose journal cannot be relied on starts, only observes, says what is wrong, where, and
// what to do, and leaves every byte as it is. Nothing that people ordered is obeyed less for it.
func TestAgent_JournalDamaged(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/3] ^= 4; return b }
	newer := func(b []byte) []byte {
		at := bytes.LastIndex(b, []byte(`{"v":1`))
		return append(append(bytes.Clone(b[:at]), `{"v":2`...), b[at+6:]...)
	}
	for _, tt := range []struct {
		name   string
		damage func(b []byte) []byte
		says   string
	}{
		{"a flipped bit", flip, "journal is corrupt"},
		{"a newer version", newer, "written by a newer version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := journaled(t)
			file := filepath.Join(d.dir, "state", "journal.jsonl")
			if err := os.WriteFile(file, tt.damage([]byte(d.state()["journal.jsonl"])), 0o600); err != nil {
				t.Fatal(err)
			}
			before := d.state()
			d.start()
			d.held(node.HoldPause)
			d.observes(tt.says, file, "line at byte", "pgpatrol explain AGENT_DEGRADED")
			if out := d.order(1, "pause --for 3h --owner bob --reason r"); !strings.Contains(out, tt.says) {
				t.Errorf("an order that cannot be recorded: %s", out)
			}
			if out := d.order(0, "history --kind hold"); !strings.Contains(out, "maintenance") {
				t.Errorf("what can be read is not shown: %s", out)
			}
			d.stop()
			if after := d.state(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the journal was changed: %q, then %q", before, after)
			}
		})
	}
}

// TestAgent_JournalUnreadable: something that is no file has taken the journal's place.
func TestAgent_JournalUnreadable(t *testing.T) {
	d := journaled(t)
	file := filepath.Join(d.dir, "state", "journal.jsonl")
	if err := os.Rename(file, file+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.observes("journal cannot be read", file, "not a regular file")
	if out := d.order(1, "history"); !strings.Contains(out, "not a regular file") {
		t.Errorf("history: %s", out)
	}
	d.stop()
	if st, err := os.Stat(file); err != nil || !st.IsDir() {
		t.Errorf("what was in the journal's place is gone: %v", err)
	}
}

// TestAgent_JournalCutShort: within one boot it is not known what is missing, so the agent only observes, also after another
// restart. What was cut off is kept, and new records follow what was left.
func TestAgent_JournalCutShort(t *testing.T) {
	for name, cut := range map[string]func(string) string{
		"half of the last record": func(whole string) string { return whole[:len(whole)-40] },
		"emptied":                 func(string) string { return "" },
		"the last two records": func(whole string) string {
			lines := strings.SplitAfter(strings.TrimSuffix(whole, "\n"), "\n")
			return strings.Join(lines[:len(lines)-2], "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := journaled(t)
			left := cut(d.state()["journal.jsonl"])
			if err := os.WriteFile(filepath.Join(d.dir, "state", "journal.jsonl"), []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				d.start()
				d.observes("journal has lost its end", "for another 1h")
				d.stop()
			}
			after := d.state()
			valid := left[:strings.LastIndex(left, "\n")+1]
			if !strings.HasPrefix(after["journal.jsonl"], valid) || after["journal.torn"] != left[len(valid):] {
				t.Errorf("of %q was kept %q", left, after)
			}
		})
	}
}

// observes fails unless the agent says that it only observes, with all of these words.
func (d *daemon) observes(words ...string) {
	d.t.Helper()
	for range 200 {
		if s, err := api.NewClient(filepath.Join(d.dir, "s")).Status(d.t.Context()); err == nil && s.Plan != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	out := d.order(4, "status")
	for _, w := range append(words, "This agent only observes now", "nothing is done") {
		if !strings.Contains(out, w) {
			d.t.Errorf("status lacks %q:\n%s", w, out)
		}
	}
}

// TestAgent_ApproveRefused: an approval is for one action that waits now. One whose condition is over, one that was carried
// out, and one that this agent never proposed are told apart, and none of them is recorded.
func TestAgent_ApproveRefused(t *testing.T) {
	d := &daemon{t: t, dir: t.TempDir()}
	d.config("policy: {revive: ask}\n")
	past(t, filepath.Join(d.dir, "state"))
	d.start()
	d.held()
	for id, says := range map[string]string{
		"soft-kill/patroni/PATRONI_HUNG/over":    "its condition is over or its target has changed; see pgpatrol plan",
		"soft-kill/patroni/PATRONI_HUNG/done":    "it was carried out already; see pgpatrol history",
		"soft-kill/patroni/PATRONI_HUNG/foreign": "no such action was ever proposed here: ask the agent of the machine whose plan shows it",
	} {
		if out := d.order(1, "approve "+id); !strings.Contains(out, id) || !strings.Contains(out, says) {
			t.Errorf("approve %s: %s", id, out)
		}
	}
	if out := d.order(0, "history --kind approve"); strings.Contains(out, "approved") {
		t.Errorf("a refused approval was recorded: %s", out)
	}
}

// past writes a journal in which two actions waited, of which one was carried out.
func past(t *testing.T, dir string) {
	t.Helper()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skipf("this machine has no boot id: %v", err)
	}
	now := node.Instant(0)
	j, err := journal.Open(dir, journal.Deps{
		Now: func() node.Instant { now++; return now }, Wall: time.Now, BootID: strings.TrimSpace(string(boot)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, run := range []string{"over", "done"} {
		a := node.Action{
			ID: "soft-kill/patroni/PATRONI_HUNG/" + run, Verb: node.SoftKill, Service: "patroni", Unit: "patroni.service",
			Class: node.ClassRevive, Finding: node.PatroniHung,
		}
		p := node.Plan{Refused: []node.Refusal{{Action: a}}}
		if _, err := j.Append(journal.Record{Kind: journal.Plan, Plan: &p}); err != nil {
			t.Fatal(err)
		}
		if run == "over" {
			continue
		}
		at, err := j.Intent(a)
		if err == nil {
			err = j.Result(at, node.ResultVerified, "", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
