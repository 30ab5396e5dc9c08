package record

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Captured from HAProxy 3.0.11, shortened to the first columns.
const stat = `# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight
ft_postgres,FRONTEND,,,1,1,262126,3,12,34,0,0,0,,,,,OPEN,
bk_postgres_primary,postgres-1,0,0,1,1,,3,12,34,,0,,0,0,0,0,UP,1
bk_postgres_primary,postgres-2,0,0,0,0,,0,0,0,,0,,0,0,0,0,DOWN 1/2,1
bk_postgres_primary,BACKEND,0,0,1,1,26213,3,12,34,0,0,,0,0,0,0,UP,1

`

func TestParseStat(t *testing.T) {
	got, err := ParseStat([]byte(stat))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"postgres-1": "UP", "postgres-2": "DOWN 1/2"}, got); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		ok         bool
	}{
		{"a record", `{"at":"2026-04-08T12:00:00.5Z","node":"pg1","pg":{"answered":true}}`, true},
		{"no time", `{"node":"pg1"}`, false},
		{"half a line", `{"at":"2026-04-08T12:`, false},
		{"not a record", `Error response from daemon`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.line)); (err == nil) != tt.ok {
				t.Errorf("parse: %v, want ok %t", err, tt.ok)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"at":"2026-04-08T12:00:00Z","node":"pg1","unit":{"n_restarts":3}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := Parse(line); err == nil && r.At.IsZero() {
			t.Error("a record without a time")
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(stat))
	f.Fuzz(func(t *testing.T, text []byte) {
		servers, err := ParseStat(text)
		if err == nil && servers == nil {
			t.Error("neither servers nor an error")
		}
	})
}
