package witness

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

func TestMissing(t *testing.T) {
	n, examples := missing([]int64{1, 2, 4, 5}, map[int64]bool{1: true, 3: true, 5: true})
	if diff := cmp.Diff([]int64{2, 4}, examples); n != 2 || diff != "" {
		t.Errorf("missing = %d (-want +got):\n%s", n, diff)
	}
}

func TestBeat_EveryChangeAndOnceASecond(t *testing.T) {
	start := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	var b beat[bool]
	var got []time.Duration
	for i := range 20 {
		d := time.Duration(i) * 200 * time.Millisecond
		if b.due(start.Add(d), d >= 1400*time.Millisecond) {
			got = append(got, d)
		}
	}
	want := []time.Duration{0, time.Second, 1400 * time.Millisecond, 2400 * time.Millisecond, 3400 * time.Millisecond}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestWriter_RecordsGapsOverTheThreshold(t *testing.T) {
	var lines bytes.Buffer
	w := &writer{out: NewOutput(&lines, "hap1")}
	start := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	for i, ms := range []int{0, 5, 205, 406, 411} {
		w.seq = int64(i)
		w.acknowledge(start.Add(time.Duration(ms) * time.Millisecond))
	}
	text := strings.TrimSpace(lines.String())
	r, err := record.Parse([]byte(text))
	if err != nil || r.Gap == nil || r.Gap.Length != 201*time.Millisecond {
		t.Errorf("records = %q, %v; want one gap of 201 ms", text, err)
	}
}

func TestREST_SaysAnyAnswerAndNone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	var lines bytes.Buffer
	r := &restWatcher{url: server.URL, out: NewOutput(&lines, "pg1")}
	r.ask(t.Context())
	server.Close()
	r.ask(t.Context())
	var got []int
	for line := range bytes.Lines(lines.Bytes()) {
		rec, err := record.Parse(line)
		if err != nil || rec.REST == nil || (rec.REST.Status == 0) != (rec.REST.Text != "") {
			t.Fatalf("record %s: %v", line, err)
		}
		got = append(got, rec.REST.Status)
	}
	if diff := cmp.Diff([]int{503, 0}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
