package demo

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

var start = time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)

func sec(n float64) time.Time { return start.Add(time.Duration(n * float64(time.Second))) }

func mark(at float64, name string) record.Record {
	return record.Record{At: sec(at), Node: "lab", Mark: &record.Mark{Name: name}}
}

// healthy is pg1 leading for 40 s, with the given records besides, in the order of time.
func healthy(more ...record.Record) []record.Record {
	recs := []record.Record{mark(0, "fault"), mark(40, "end")}
	for i := range 41 {
		for _, node := range []string{"pg1", "pg2"} {
			recs = append(recs, record.Record{At: sec(float64(i)), Node: node, PG: &record.PG{Answered: true, Recovery: node != "pg1", Timeline: 1, Started: start}})
		}
	}
	return append(recs, more...)
}

func unit(at float64, id string, restarts uint32) record.Record {
	return record.Record{At: sec(at), Node: "pg1", Unit: &record.Unit{Name: patroniUnit, ActiveState: "active", InvocationID: id, NRestarts: restarts}}
}

func totals(acked, lost int64) record.Record {
	return record.Record{At: sec(60), Node: "hap1", Totals: &record.Totals{Acknowledged: acked, Counted: true, Lost: lost}}
}

// journal is what an agent wrote, shortened, with a line that was cut off.
const journal = `{"v":1,"seq":3,"wall":"2026-04-08T12:00:01Z","kind":"finding","finding":{"code":"PATRONI_HUNG","text":"the main process is stopped (state T)"}}
{"v":1,"seq":7,"wall":"2026-04-08T12:00:09.5Z","kind":"intent","action":{"verb":"soft-kill","unit":"patroni.service","finding":"PATRONI_HUNG","reason":"killing only the hung process ..."}}
{"v":1,"seq":8,"wall":"2026-04-08T12:00:09.6Z","kind":"result","result":{"intent":7,"result":"executed"}}
{"v":1,"seq":9,"wall":"2026-04-08T12:00:11.6Z","kind":"result","result":{"intent":7,"result":"verified","error":"invocation a -> b"}}
{"v":1,"seq":10,"wall":"2026-04-08T12:0`

func TestTable(t *testing.T) {
	var second []record.Record
	for i := 27; i <= 40; i++ {
		second = append(second, record.Record{At: sec(float64(i)), Node: "pg3", PG: &record.PG{Answered: true, Timeline: 2, Started: start}})
	}
	without := newHalf("pg1", healthy(append(second,
		unit(0, "a", 0), unit(40, "a", 0), totals(3000, 2),
		record.Record{At: sec(28), Node: "hap1", Error: &record.Error{Step: "connect", Text: "refused"}},
		record.Record{At: sec(30), Node: "hap1", Gap: &record.Gap{From: sec(16.7), To: sec(30)}},
	)...), nil)
	with := newHalf("pg1", healthy(unit(0, "a", 0), unit(10.2, "b", 1), unit(40, "b", 1), totals(7000, 0)), map[string][]byte{"pg1": []byte(journal)})
	want := [][2]string{
		{"13.3 s", "under 0.2 s"},
		{"1", "0"},
		{"2, for 13.0 s, until this demonstration ended it", "1"},
		{"1", "0"},
		{"same postmaster, never restarted", "same postmaster, never restarted"},
		{"2 of 3000", "0 of 7000"},
		{"not there", "soft-kill of patroni.service on pg1, 9.50 s after the fault"},
		{"", "PATRONI_HUNG: the main process is stopped (state T)"},
		{"", "verified: invocation a -> b"},
		{"patroni.service active all the time: nothing to heal", "InvocationID of patroni.service changed once, after 10.2 s (NRestarts +1)"},
	}
	var got [][2]string
	for _, r := range rows() {
		got = append(got, [2]string{r.text(without), r.text(with)})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cells (-want +got):\n%s", diff)
	}
	for _, width := range []int{0, 80, 100, 400} {
		var b bytes.Buffer
		printTable(&b, width, without, with)
		for line := range strings.Lines(b.String()) {
			if n := len(line) - 1; n > max(80, min(width, 132)) && width > 0 {
				t.Errorf("width %d: a line of %d: %s", width, n, line)
			}
		}
	}
}

func TestTable_NothingSeenIsNotGoodNews(t *testing.T) {
	h := newHalf("pg1", []record.Record{mark(0, "fault"), mark(40, "end")}, map[string][]byte{})
	got := map[string]string{}
	for _, r := range rows() {
		got[r.name] = r.text(h)
	}
	for name, want := range map[string]string{
		"writable primaries at once": "not seen", "failovers": "not seen", "PostgreSQL on the old leader": "not seen",
		"acknowledged writes lost": "could not be counted", "what systemd saw": "not seen", "what pgpatrol did": "nothing",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

func TestWatcher_SaysWhatIsNews(t *testing.T) {
	var said []string
	w := newWatcher(func(format string, args ...any) { said = append(said, strings.TrimSpace(fmt.Sprintf(format, args...))) })
	beat := func(at float64, n int64) record.Record {
		return record.Record{At: sec(at), Node: "hap1", Beat: &record.Beat{Acknowledged: n}}
	}
	lock := func(at float64, holder string, left int64) record.Record {
		return record.Record{At: sec(at), Node: "hap1", Lock: &record.Lock{Answered: true, Holder: holder, Left: left}}
	}
	pg := func(at float64, node string, writable bool) record.Record {
		return record.Record{At: sec(at), Node: node, PG: &record.PG{Answered: true, Recovery: !writable}}
	}
	if got := w.state(sec(0)); got != "" {
		t.Errorf("state before the first record: %q", got)
	}
	for _, r := range []record.Record{
		pg(0, "pg1", true), pg(0, "pg2", false), unit(0, "a", 0), lock(0, "postgres-1", 25), beat(0, 0), beat(1, 180),
	} {
		w.add(r)
	}
	if got, want := w.state(sec(1)), "healthy: writer: 180 writes/s | writable primary: pg1 | lease of postgres-1: 24 s left"; got != want {
		t.Errorf("state = %q, want %q", got, want)
	}
	w.add(mark(2, "fault"))
	for _, r := range []record.Record{
		{At: sec(20), Node: "hap1", Error: &record.Error{Text: "refused"}},
		{At: sec(20.1), Node: "hap1", Error: &record.Error{Text: "refused"}},
		lock(25, "", 0), lock(27, "postgres-2", 30), pg(28, "pg2", true), beat(28, 181),
	} {
		w.add(r)
	}
	if got := w.state(sec(31)); !strings.Contains(got, "+29 s: ") || !strings.Contains(got, "2 WRITABLE PRIMARIES: pg1, pg2") ||
		!strings.Contains(got, "NOTHING acknowledged for 3 s") {
		t.Errorf("state with two primaries = %q", got)
	}
	for _, r := range []record.Record{
		{At: sec(32), Node: "hap1", Gap: &record.Gap{From: sec(19), To: sec(32)}},
		unit(33, "b", 1), mark(42, "end"), pg(43, "pg1", false), unit(44, "c", 2),
	} {
		w.add(r)
	}
	want := []string{
		"+18.0 s  the writer gets errors: refused",
		"+25.0 s  the leader key went from postgres-1 to postgres-2",
		"+26.0 s  TWO WRITABLE PRIMARIES: pg1 and pg2",
		"+30.0 s  the writer writes again, after 13.0 s without",
		"+31.0 s  systemd has started a fresh Patroni on pg1",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
	if got := w.state(sec(44)); got != "" {
		t.Errorf("state after the end: %q", got)
	}
}

func TestScreen_IsSoberWhereThereIsNoTerminal(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b)
	log := slog.New(handler{s})
	log.Info("start containers", "subnet", "10.0.0.0/24")
	log.Info("mark", "name", "injected", "what", "x")
	log.Warn("witness ended", "node", "pg1", "err", "exit\nstatus 1")
	s.watch(func(time.Time) string { return "writer: 180 writes/s" })
	s.show(s.began.Add(5 * time.Second))
	s.show(s.began.Add(11 * time.Second))
	s.show(s.began.Add(12 * time.Second))
	s.text(func(w io.Writer) { _, _ = io.WriteString(w, "table\n") })
	want := `  0:00  start 7 containers: 3 PostgreSQL nodes with Patroni, 3 etcd members, 1 HAProxy
  0:00  witness ended: pg1: exit status 1
  0:11  writer: 180 writes/s
table
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestScreen_RewritesOneLineOnATerminal(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b)
	s.width = 40
	s.watch(func(time.Time) string { return strings.Repeat("x", 100) })
	s.show(s.began.Add(time.Second))
	s.say("news")
	want := "\r\x1b[K  0:01  " + strings.Repeat("x", 30) + "…" + "\r\x1b[K  0:00  news\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestWrap(t *testing.T) {
	got := wrap("one two  three averyverylongword four", 9)
	if diff := cmp.Diff([]string{"one two", "three", "averyverylongword", "four"}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}
