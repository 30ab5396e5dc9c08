package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/decision"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
)

// hungQuestion asks about a Patroni that has been stopped for ten looks.
func hungQuestion(mode node.Mode) node.Question {
	q := node.Question{Spec: nodetest.Spec(mode), Memory: nodetest.Memory(time.Hour)}
	for i := range 10 {
		q.Snapshot = nodetest.Snap(time.Hour+time.Duration(i)*time.Second, nodetest.Stopped(), nodetest.LeaseLeft(12*time.Second))
		q.Snapshot.Wall = time.Date(2026, 4, 8, 12, 0, i, 0, time.UTC)
		if i < 9 {
			q.Memory = decision.Decide(q).Memory
		}
	}
	return q
}

// written is a journal directory as an agent leaves it: a start, a decision with its finding, what was done and how it
// ended, a refused decision and a stop.
func written(t *testing.T, program string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	now := node.Instant(time.Hour)
	j, err := journal.Open(dir, journal.Deps{
		Now: func() node.Instant { now = now.Add(time.Second); return now },
		Wall: func() time.Time {
			return time.Date(2026, 4, 8, 12, 0, 0, 0, time.Local).Add(time.Duration(now) - time.Hour)
		},
		BootID:  nodetest.BootID,
		Program: program,
	})
	if err != nil {
		t.Fatal(err)
	}
	app := func(r journal.Record) uint64 {
		seq, err := j.Append(r)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	app(journal.Record{Kind: journal.Start, Text: "pgpatrol " + program})
	q := hungQuestion(node.ModeAuto)
	q.Snapshot.Confirm, q.Snapshot.DCS.Writable = true, node.Seen(true, "etcd", q.Snapshot.Now)
	plan := decision.Decide(q).Plan
	decided := app(journal.Record{Kind: journal.Plan, Plan: &plan, Question: &q})
	app(journal.Record{Kind: journal.Finding, Finding: &plan.Findings[0], Decision: decided})
	action := node.Action{
		ID: "soft-kill/patroni/PATRONI_HUNG/aaaaaaaa", Verb: node.SoftKill, Service: "patroni", Unit: nodetest.Unit, Class: node.ClassRevive,
		Finding: node.PatroniHung, Reason: "it is hung", Settle: time.Minute, Decision: decided,
	}
	a, err := j.Intent(action)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []node.AttemptResult{node.ResultExecuted, node.ResultVerified} {
		if err := j.Result(a, r, "", map[string]string{"gap": "1.2s", "invocation_after": "bbbb"}); err != nil {
			t.Fatal(err)
		}
	}
	q = hungQuestion(node.ModeObserve)
	plan = decision.Decide(q).Plan
	app(journal.Record{Kind: journal.Plan, Plan: &plan, Question: &q})
	app(journal.Record{Kind: journal.Plan, Plan: &plan})
	app(journal.Record{Kind: journal.Stop, Text: "pgpatrol " + program})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pgpatrol runs a command line and returns its exit code and both streams.
func pgpatrol(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(context.Background(), &env{out: &o, err: &e}, args)
	return code, o.String(), e.String()
}

func TestWhy_Text(t *testing.T) {
	dir := written(t, "1.2.3")
	cases := map[string]struct {
		args []string
		code int
		want []string
	}{
		"plan":           {[]string{"2"}, 0, []string{"#2 ", "Decided:", "Because of:", "PATRONI_HUNG", "/liveness", "This rested on (ages at that time):", "Done:", "#4 soft-kill of patroni", "#5 executed, 1.0 s later (gap 1.2s, invocation after bbbb)", "#6 verified, 2.0 s later"}},
		"finding":        {[]string{"3"}, 0, []string{"Finding:", "Decided (#2):", "Done:"}},
		"intent":         {[]string{"4"}, 0, []string{"Action:", "ID: soft-kill/patroni/PATRONI_HUNG/aaaaaaaa", "Decided (#2):", "verified"}},
		"result":         {[]string{"#6"}, 0, []string{"#6 ", "Decided (#2):", "#5 executed"}},
		"action":         {[]string{"soft-kill/patroni/PATRONI_HUNG/aaaaaaaa", "--replay"}, 0, []string{"#4 ", "replay: identical"}},
		"refused":        {[]string{"7", "--replay"}, 0, []string{"refused by policy", `"observe"`, "Nothing was done because of this decision.", "replay: identical"}},
		"start":          {[]string{"1", "--replay"}, 0, []string{"replay: no inputs recorded: a record of kind start is no decision"}},
		"without inputs": {[]string{"8", "--replay"}, 0, []string{"replay: no inputs recorded: the plan was recorded without them"}},
		"all":            {[]string{"all", "--replay"}, 0, []string{"2 decisions replayed: 2 identical, 0 different", "1 decisions without recorded inputs, 6 records that are no decisions"}},
		"no such record": {[]string{"99"}, 1, []string{"no such record in the journal: it holds 1 to 9"}},
		"no such action": {[]string{"soft-kill/patroni/PATRONI_HUNG/aaaaaaab"}, 1, []string{"did you mean soft-kill/patroni/PATRONI_HUNG/aaaaaaaa?"}},
		"nonsense":       {[]string{"yesterday"}, 1, []string{`"yesterday" is neither`, `"pgpatrol history" prints`}},
		"all, no replay": {[]string{"all"}, 2, []string{"needs --replay"}},
		"nothing":        {nil, 2, []string{"ID is missing"}},
		"two":            {[]string{"1", "2"}, 2, []string{`unexpected argument "2"`}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			code, out, errs := pgpatrol(append([]string{"why", "--journal", dir}, tc.args...)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, w := range tc.want {
				if !strings.Contains(out+errs, w) {
					t.Errorf("%q is not in\n%s%s", w, out, errs)
				}
			}
		})
	}
}

// tamper changes the recorded plan of record 2 and leaves its checksum right.
func tamper(t *testing.T, program string, change func(*journal.Record)) string {
	t.Helper()
	from := written(t, program)
	c, err := journal.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	j, err := journal.Open(dir, journal.Deps{
		Now: func() node.Instant { return 0 }, Wall: func() time.Time { return time.Unix(0, 0) }, BootID: "b", Program: program,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, r := range c.Records {
		if r.Seq == 2 {
			change(&r)
		}
		if _, err := j.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhy_ReplayDiffers(t *testing.T) {
	change := func(r *journal.Record) { r.Plan.Summary, r.Plan.Allowed = "another", nil }
	for program, want := range map[string]string{
		"0.9":            "pgpatrol 0.9 decided and this is",
		programVersion(): "the same version gives another answer",
		"":               "the record does not say which version",
	} {
		dir := tamper(t, program, change)
		code, out, _ := pgpatrol("why", "2", "--replay", "--journal", dir)
		for _, w := range []string{want, "replay: different", "plan.summary", `recorded "another"`, "plan.allowed", "recorded null"} {
			if !strings.Contains(out, w) {
				t.Errorf("%q: %q is not in\n%s", program, w, out)
			}
		}
		if code != exitFailed {
			t.Errorf("exit code %d", code)
		}
		if code, out, _ := pgpatrol("why", "all", "--replay", "--journal", dir); code != exitFailed || !strings.Contains(out, "1 identical, 1 different") {
			t.Errorf("all: %d\n%s", code, out)
		}
	}
}

func TestWhy_JSON(t *testing.T) {
	dir := written(t, "1.2.3")
	code, out, _ := pgpatrol("why", "6", "--replay", "--json", "--journal", dir)
	var s story
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
		t.Fatalf("%d, %v\n%s", code, err, out)
	}
	if s.Record.Seq != 6 || s.Decision == nil || s.Decision.Question == nil || len(s.Attempts) != 1 || len(s.Attempts[0].Results) != 2 || s.Replay.Outcome != identical || s.Replay.RecordedBy != "1.2.3" {
		t.Errorf("%+v", s)
	}
	code, out, _ = pgpatrol("why", "all", "--replay", "--json", "--journal", dir)
	var got tally
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("%d, %v\n%s", code, err, out)
	}
	want := tally{Replayed: 2, Identical: 2, NoInputs: 1, NoDecision: 6, Differ: []replay{}, Damaged: []journal.Damage{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhy_DamagedJournal(t *testing.T) {
	dir := written(t, "1.2.3")
	path := filepath.Join(dir, "journal.jsonl")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[6] = bytes.Replace(lines[6], []byte("PATRONI_HUNG"), []byte("PATRONI_WELL"), 1)
	damaged := bytes.Join(lines, nil)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := pgpatrol("why", "all", "--replay", "--journal", dir)
	for _, w := range []string{"1 decisions replayed: 1 identical", "2 damaged places", "checksum differs", "record 8 follows record 6"} {
		if code != 0 || !strings.Contains(out, w) {
			t.Errorf("%d, %q is not in\n%s", code, w, out)
		}
	}
	if code, _, errs := pgpatrol("why", "7", "--journal", dir); code != 1 || !strings.Contains(errs, "record 7: no such record") {
		t.Errorf("%d %s", code, errs)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, damaged) {
		t.Errorf("reading changed the journal: %v", err)
	}
	if code, _, errs := pgpatrol("why", "7", "--journal", t.TempDir()); code != 1 || !strings.Contains(errs, "holds no journal.jsonl") {
		t.Errorf("no journal: %d %s", code, errs)
	}
}

// The journal's order of results is not guaranteed to be complete: what is gone is said to be gone.
func TestStory_DecisionGone(t *testing.T) {
	a := sick().Plan.Allowed[0]
	a.Decision = 1
	c := few{{Seq: 5, Kind: "intent", Action: &a}}
	s, err := storyOf(t.Context(), c, "5")
	if err != nil || s.Decision != nil || len(s.Attempts) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if r := replayStory(s); r.Outcome != noInputs || !strings.Contains(r.Reason, "not in the journal any more") {
		t.Errorf("%+v", r)
	}
}

// An agent tells the newest acts only. That an older one is not among them does not mean that nothing was done.
func TestStory_OlderThanTheAgentTells(t *testing.T) {
	c := few{{Seq: 1, Kind: "plan", Plan: &node.Plan{}}}
	for i := range api.MaxHistory {
		a := sick().Plan.Allowed[0]
		c = append(c, api.Record{Seq: uint64(i + 10), Kind: "intent", Action: &a})
	}
	for plan, want := range map[string]bool{"1": true, "10": false} {
		s, err := storyOf(t.Context(), acted{c}, plan)
		if err != nil || s.Older != want {
			t.Fatalf("%s: %+v, %v", plan, s.Older, err)
		}
		var out bytes.Buffer
		printStory(newPrinter(&out, screen{}), s)
		if got := strings.Contains(out.String(), "further back"); got != want || strings.Contains(out.String(), "Nothing was done") {
			t.Errorf("%s:\n%s", plan, out.String())
		}
	}
}

// acted tells all but the first record as acts.
type acted struct{ few }

func (a acted) acts(context.Context) ([]api.Record, error) { return a.few[1:], nil }

// few is a chronicle of some records.
type few []api.Record

func (f few) one(_ context.Context, seq uint64) (api.Record, error) {
	for _, r := range f {
		if r.Seq == seq {
			return r, nil
		}
	}
	return api.Record{}, fmt.Errorf("record %d: %w", seq, api.ErrNoRecord)
}

func (f few) acts(context.Context) ([]api.Record, error) { return f, nil }

func (f few) each(_ context.Context, fn func(api.Record)) error {
	for _, r := range f {
		fn(r)
	}
	return errors.New("cut off")
}

func (few) damage() []journal.Damage { return nil }
