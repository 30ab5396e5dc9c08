package orders

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// bench is a keeper over a journal in memory and a clock that the test moves.
type bench struct {
	*Keeper
	t       *testing.T
	now     node.Instant
	wall    time.Time
	boot    string
	entries []Entry
	pauseAt node.Instant
	pauseIn string
	fails   error
	dir     string
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t: t, now: node.Instant(time.Hour), wall: time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC), boot: "boot-1", dir: t.TempDir(),
	}
	b.start()
	return b
}

// start starts the agent anew.
func (b *bench) start() {
	b.Keeper = New(Deps{
		Pause: b.lastPause, Approvals: func() []node.Approval { return nil }, Record: b.record,
		Now: func() node.Instant { return b.now }, Wall: func() time.Time { return b.wall }, BootID: b.boot,
		File: b.file("kill-switch"), Watched: []string{b.file("watched")},
	})
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) record(e Entry) error {
	if b.fails != nil {
		return b.fails
	}
	b.entries = append(b.entries, e)
	b.pauseAt, b.pauseIn = b.now, b.boot
	return nil
}

func (b *bench) lastPause() (node.Hold, string, node.Instant, bool) {
	for i := len(b.entries) - 1; i >= 0; i-- {
		if e := b.entries[i]; e.Hold != nil && e.Hold.Kind == node.HoldPause {
			return *e.Hold, b.pauseIn, b.pauseAt, !e.Lift
		}
	}
	return node.Hold{}, "", 0, false
}

func (b *bench) sleep(d time.Duration) { b.now, b.wall = b.now.Add(d), b.wall.Add(d) }

func (b *bench) order(k node.HoldKind, d time.Duration) {
	b.t.Helper()
	h, err := NewHold(k, node.LevelNode, "ann", "disk swap", d, b.wall)
	if err == nil {
		err = b.Hold(h, "asked by root")
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// kinds returns the holds that are in force.
func (b *bench) kinds() (out string) {
	o := b.Orders(b.now)
	for _, h := range o.Holds {
		out += string(h.Kind) + " "
	}
	if o.Unreadable != "" {
		out += "unreadable"
	}
	permitted := b.Permit(node.Action{Verb: node.SoftKill, Service: "patroni"}) == nil
	if permitted != (out == "") {
		b.t.Errorf("permitted is %v with %q", permitted, out)
	}
	return strings.TrimSpace(out)
}

func (b *bench) want(kinds string) {
	b.t.Helper()
	if got := b.kinds(); got != kinds {
		b.t.Errorf("in force: %q, want %q", got, kinds)
	}
}

func TestPause(t *testing.T) {
	b := newBench(t)
	b.want("")
	b.order(node.HoldPause, time.Hour)
	b.want("pause")
	b.start()
	b.want("pause")
	b.wall = b.wall.Add(48 * time.Hour) // within one boot the wall clock ends nothing
	b.want("pause")
	b.wall = b.wall.Add(-96 * time.Hour)
	b.sleep(time.Hour)
	b.want("")
	if last := b.entries[len(b.entries)-1]; !last.Lift || last.Text != "its time is over" {
		t.Errorf("the end is not recorded: %+v", last)
	}
	if n := len(b.entries); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

func TestPause_AfterAReboot(t *testing.T) {
	b := newBench(t)
	b.order(node.HoldPause, time.Hour)
	b.boot, b.now, b.wall = "boot-2", node.Instant(time.Minute), b.wall.Add(30*time.Minute)
	b.start()
	b.want("pause")
	b.sleep(30 * time.Minute)
	b.want("")
}

func TestLift(t *testing.T) {
	b := newBench(t)
	for _, kind := range []node.HoldKind{node.HoldPause, node.HoldKill} {
		if _, err := b.Lift(kind, "bob", ""); !errors.Is(err, ErrNotSet) {
			t.Errorf("%s that is not set: %v", kind, err)
		}
		b.order(kind, time.Hour)
		b.want(string(kind))
		h, err := b.Lift(kind, "bob", "by root")
		if err != nil || h.Owner != "ann" || h.Kind != kind {
			t.Errorf("%s: %+v, %v", kind, h, err)
		}
		b.want("")
	}
	if n := len(b.entries); n != 4 {
		t.Errorf("%d entries, want 4", n)
	}
}

// What cannot be recorded is not ordered, except for a kill switch, which is set all the same and says so.
func TestOrders_JournalBroken(t *testing.T) {
	b := newBench(t)
	b.order(node.HoldPause, time.Hour)
	b.fails = errors.New("disk full")
	if _, err := b.Lift(node.HoldPause, "bob", ""); !errors.Is(err, b.fails) {
		t.Errorf("lift: %v", err)
	}
	b.want("pause")
	h, err := NewHold(node.HoldKill, node.LevelNode, "ann", "r", time.Hour, b.wall)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Hold(h, ""); !errors.Is(err, b.fails) || !strings.Contains(err.Error(), "set all the same") {
		t.Errorf("kill switch: %v", err)
	}
	b.want("kill-switch pause")
}

func TestKillSwitch_Files(t *testing.T) {
	write := func(text string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		put  func(t *testing.T, path string)
		want string
	}{
		"empty":                 {write(""), "kill-switch"},
		"blank":                 {write("\n\n"), "kill-switch"},
		"whole":                 {write(`{"owner":"ann","reason":"r","until":"2026-04-08T13:00:00Z"}`), "kill-switch"},
		"over":                  {write(`{"owner":"ann","reason":"r","until":"2026-04-08T11:00:00Z"}`), ""},
		"over, not valid":       {write(`{"owner":"ann","reason":"r","until":"2026-04-08T11:00:00Z","x":1}`), "unreadable"},
		"over, without a owner": {write(`{"reason":"r","until":"2026-04-08T11:00:00Z"}`), "unreadable"},
		"text":                  {write("stop it!"), "unreadable"},
		"binary":                {write("\x00\xff"), "unreadable"},
		"long":                  {write(strings.Repeat(" ", maxFile+1)), "unreadable"},
		"directory":             {func(_ *testing.T, path string) { _ = os.Mkdir(path, 0o700) }, "unreadable"},
		"link to nowhere":       {func(_ *testing.T, path string) { _ = os.Symlink("nowhere", path) }, "unreadable"},
		"pipe":                  {func(_ *testing.T, path string) { _ = unix.Mkfifo(path, 0o600) }, "unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, file := range []string{"kill-switch", "watched"} {
				b := newBench(t)
				tc.put(t, b.file(file))
				b.want(tc.want)
			}
		})
	}
}

func TestKillSwitch_ThatPeopleSet(t *testing.T) {
	b := newBench(t)
	b.order(node.HoldKill, time.Hour)
	if err := os.WriteFile(b.file("watched"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lift(node.HoldKill, "bob", ""); err == nil || !strings.Contains(err.Error(), b.file("watched")) {
		t.Errorf("lift: %v", err)
	}
	b.want("kill-switch kill-switch")
}

// Text that nobody understands is set, and a person may still lift it.
func TestKillSwitch_LiftOfGarbage(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile(b.file("kill-switch"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err := b.Lift(node.HoldKill, "bob", ""); err != nil || h.Owner != node.Unknown {
		t.Errorf("%+v, %v", h, err)
	}
	b.want("")
}

func TestNewHold(t *testing.T) {
	now := time.Date(2026, 4, 8, 12, 0, 0, 5, time.UTC)
	for name, tc := range map[string]struct {
		kind          node.HoldKind
		level         node.Level
		owner, reason string
		d             time.Duration
		want          string
	}{
		"fine":          {node.HoldPause, node.LevelScope, "ann", "r", node.MaxHold, ""},
		"no reason":     {node.HoldPause, node.LevelNode, "ann", " ", time.Hour, "reason"},
		"no owner":      {node.HoldPause, node.LevelNode, "", "r", time.Hour, "owner"},
		"no length":     {node.HoldPause, node.LevelNode, "ann", "r", 0, "within 30 days"},
		"in the past":   {node.HoldKill, node.LevelNode, "ann", "r", -time.Hour, "within 30 days"},
		"too long":      {node.HoldKill, node.LevelNode, "ann", "r", node.MaxHold + 1, "within 30 days"},
		"unknown level": {node.HoldKill, "world", "ann", "r", time.Hour, "unknown level"},
		"unknown kind":  {"stop", node.LevelNode, "ann", "r", time.Hour, "unknown kind"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewHold(tc.kind, tc.level, tc.owner, tc.reason, tc.d, now)
			if (err == nil) != (tc.want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestApprove(t *testing.T) {
	action := node.Action{ID: "a1", Service: "patroni", Class: node.ClassRevive, Finding: node.PatroniHung}
	ask := node.Policy{Revive: node.ModeAsk}
	waiting := func() Waiting {
		return Waiting{
			Plan: node.Plan{Refused: []node.Refusal{{Action: action}}}, Proposed: func(id string) bool { return id == "a1" || id == "old" },
			Spec: node.Spec{Policy: node.DefaultPolicy(), Patroni: []node.PatroniSpec{{Service: "patroni", Policy: ask}}},
		}
	}
	for name, tc := range map[string]struct {
		id, owner string
		change    func(*Waiting)
		want      error
		text      string
	}{
		"waiting":          {"a1", "ann", func(*Waiting) {}, nil, ""},
		"foreign":          {"a2", "ann", func(*Waiting) {}, ErrForeign, "ever proposed here"},
		"no ID":            {"", "ann", func(*Waiting) {}, ErrForeign, "ever proposed here"},
		"expired":          {"old", "ann", func(*Waiting) {}, ErrNotWaiting, "condition is over"},
		"no owner":         {"a1", "", func(*Waiting) {}, ErrInvalid, "owner"},
		"executed":         {"a1", "ann", func(w *Waiting) { w.Attempts = []node.Attempt{{ActionID: "a1"}} }, ErrNotWaiting, "already"},
		"not executed yet": {"a1", "ann", func(w *Waiting) { w.Attempts = []node.Attempt{{ActionID: "a1", Result: node.ResultNotExecuted}} }, nil, ""},
		"mode is auto":     {"a1", "ann", func(w *Waiting) { w.Spec.Patroni[0].Policy.Revive = node.ModeAuto }, ErrNotWaiting, "is auto"},
		"finding observes": {"a1", "ann", func(w *Waiting) {
			w.Spec.Patroni[0].Policy.Findings = map[node.Code]node.Mode{node.PatroniHung: node.ModeObserve}
		}, ErrNotWaiting, "is observe"},
	} {
		t.Run(name, func(t *testing.T) {
			b, w := newBench(t), waiting()
			tc.change(&w)
			a, err := b.Approve(tc.id, tc.owner, "by root", w)
			if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("error %v, want %v with %q", err, tc.want, tc.text)
			}
			var want []Entry
			if tc.want == nil {
				want = []Entry{{Approval: &a, Text: "by root"}}
			}
			if diff := cmp.Diff(want, b.entries); diff != "" {
				t.Errorf("recorded (-want +got)\n%s", diff)
			}
		})
	}
}
