package judge

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/test/conformance"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

func TestReadings(t *testing.T) {
	since := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	at := func(s float64, node string, r record.Record) record.Record {
		r.At, r.Node = since.Add(time.Duration(s*float64(time.Second))), node
		return r
	}
	pg := func(primary bool, started float64) record.Record {
		return record.Record{PG: &record.PG{Answered: true, Recovery: !primary, Started: since.Add(time.Duration(started * float64(time.Second)))}}
	}
	recs := []record.Record{
		at(-3, "pg1", pg(false, -9)),
		at(-2, "pg1", pg(true, -9)),
		at(-1, "hap1", record.Record{Lock: &record.Lock{Answered: true, Holder: "postgres-1"}}),
		at(-1, "pg1", record.Record{Life: &record.Life{What: conformance.Lives}}), // before the script
		at(0.5, "pg1", pg(true, -9)),
		at(1, "pg1", record.Record{REST: &record.REST{Status: 503}}),
		at(2, "pg1", record.Record{REST: &record.REST{}}),
		at(3, "pg1", record.Record{Life: &record.Life{What: conformance.Died}}),
		at(3.2, "pg1", record.Record{PG: &record.PG{}}),
		at(4, "hap1", record.Record{Lock: &record.Lock{}}), // no answer tells nothing
		at(5, "pg1", pg(false, 4)),
		at(6, "hap1", record.Record{Lock: &record.Lock{Answered: true}}),
		at(8, "hap1", record.Record{Gap: &record.Gap{From: since.Add(3 * time.Second), To: since.Add(8 * time.Second)}}),
		at(9, "hap1", record.Record{Gap: &record.Gap{From: since.Add(8500 * time.Millisecond), To: since.Add(9 * time.Second), Open: true}}),
	}
	var got []string
	for _, r := range Readings(recs, since, func(m string) string { return "pg" + m[len(m)-1:] }) {
		text, err := r.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	want := []string{
		"0.00 writer - writes 0", "0.00 postgres pg1 primary 1", "0.00 key - pg1 0", "1.00 api pg1 up 0", "2.00 api pg1 down 0",
		"3.00 writer - waits 0", "3.00 unit pg1 died 0", "3.20 postgres pg1 none 0", "5.00 postgres pg1 replica 2", "6.00 key - nobody 0",
		"8.00 writer - writes 0", "8.50 writer - waits 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
