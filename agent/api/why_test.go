package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// fakeWitness also says what decisions rested on.
type fakeWitness struct {
	*fakeSource
	question node.Question
	err      error
	page     RecordsQuery
}

func (f *fakeWitness) Record(_ context.Context, seq uint64) (Record, error) {
	for _, r := range f.history.Records {
		if r.Seq == seq {
			r.Question = &f.question
			return r, f.err
		}
	}
	return Record{}, fmt.Errorf("%w: it holds 1 to 4", ErrNoRecord)
}

func (f *fakeWitness) Records(_ context.Context, q RecordsQuery) (History, error) {
	f.page = q
	return f.history, f.err
}

func (f *fakeWitness) Question(context.Context) (node.Question, error) { return f.question, f.err }

func witness() *fakeWitness {
	src := filled()
	return &fakeWitness{fakeSource: src, question: node.Question{
		Spec: node.Spec{Node: "n1"}, Snapshot: *src.status.Snapshot,
		Memory:   node.Memory{Leader: "n1", LeaderSeen: true},
		Attempts: []node.Attempt{{ActionID: "act-1", BootID: "boot-1", Result: node.ResultVerified, Done: true}},
	}}
}

func TestWitness_RoundTrip(t *testing.T) {
	src := witness()
	c, ctx := NewClient(run(t, src)), t.Context()
	record, err1 := c.Record(ctx, 2)
	page, err2 := c.Records(ctx, RecordsQuery{After: 7, Limit: 9})
	question, err3 := c.Question(ctx)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	want := src.history.Records[1]
	want.Question = &src.question
	for name, diff := range map[string]string{
		"record":   cmp.Diff(want, record),
		"page":     cmp.Diff(src.history, page),
		"query":    cmp.Diff(RecordsQuery{After: 7, Limit: 9}, src.page),
		"question": cmp.Diff(src.question, question),
	} {
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := c.Record(ctx, 99); err == nil || !strings.Contains(err.Error(), "it holds 1 to 4") {
		t.Errorf("a record that is not there: %v", err)
	}
}

func TestWitness_Refusals(t *testing.T) {
	cases := map[string]struct {
		target string
		src    Source
		status int
		text   string
	}{
		"no number":          {"/v1/record", witness(), 400, `seq \"\"`},
		"zero":               {"/v1/record?seq=0", witness(), 400, "1, 2, 3"},
		"not a number":       {"/v1/record?seq=abc", witness(), 400, `seq \"abc\"`},
		"no such record":     {"/v1/record?seq=9", witness(), 404, "holds 1 to 4"},
		"parameter":          {"/v1/record?id=9", witness(), 400, "allowed are seq"},
		"after not a number": {"/v1/records?after=-1", witness(), 400, `after \"-1\"`},
		"limit":              {"/v1/records?limit=0", witness(), 400, "from 1 to 1000"},
		"not ready":          {"/v1/question", &fakeWitness{fakeSource: filled(), err: ErrNotReady}, 503, "not decided"},
		"source is none":     {"/v1/question", filled(), 404, "no such path"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := request(tc.src, http.MethodGet, tc.target, "")
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.text) {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, tc.status, tc.text)
			}
		})
	}
}

func FuzzParseRecords(f *testing.F) {
	f.Add("after=5&limit=3")
	f.Add("seq=7")
	f.Fuzz(func(t *testing.T, raw string) {
		if n, err := parseSeq(raw); err == nil && n == 0 {
			t.Fatal("record 0 was accepted")
		}
		q, err := parseRecords(raw)
		if err != nil {
			return
		}
		if back, err := parseRecords(q.encode()); err != nil || q != back {
			t.Fatalf("%+v became %+v, %v", q, back, err)
		}
	})
}
