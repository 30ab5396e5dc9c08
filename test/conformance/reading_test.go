package conformance

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// story reads a run from lines of readings and tells it in one line.
func story(t *testing.T, lines ...string) string {
	t.Helper()
	r := Run{Leader: "a", Replica: "b"}
	for _, line := range lines {
		var rd Reading
		if err := rd.UnmarshalText([]byte(line)); err != nil {
			t.Fatal(err)
		}
		r.Readings = append(r.Readings, rd)
	}
	var out []string
	for _, e := range r.Events(time.Minute) {
		out = append(out, strings.TrimPrefix(e.String(), "+"))
	}
	return strings.Join(out, "; ")
}

func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"a failover", []string{
			"0 key - a 0", "0 postgres a primary 1", "0 postgres b replica 1", "0 postgres c replica 1", "0 writer - writes 0",
			"20 writer - waits 0", "30 key - nobody 0", "31 key - c 0", "32 postgres c primary 1", "33 writer - writes 0",
		}, "20.0s writer waits; 31.0s leader key is held by the heir; 32.0s PostgreSQL of the heir is promoted; 32.0s second primary begins; 33.0s writer writes"},
		{
			"nobody takes the key",
			[]string{"0 key - a 0", "30 key - nobody 0"},
			"30.0s leader key is held by nobody",
		},
		{
			"a key that vanishes for a moment",
			[]string{"0 key - a 0", "30 key - nobody 0", "31 key - a 0"},
			"",
		},
		{
			"a series of crashes, and somebody starts it",
			[]string{"1 unit a died 0", "1.1 unit a lives 0", "1.2 unit a died 0", "1.3 unit a lives 0", "1.4 unit a died 0", "1.5 unit a given-up 0", "3 unit a lives 0"},
			"1.0s unit of the leader dies; 1.1s unit of the leader has a new life; 1.5s unit of the leader is given up; 3.0s unit of the leader has a new life",
		},
		{
			"two crashes",
			[]string{"1 unit b died 0", "1.1 unit b lives 0", "9 unit b died 0", "9.1 unit b lives 0"},
			"1.0s unit of the replica dies; 1.1s unit of the replica has a new life; 9.0s unit of the replica dies; 9.1s unit of the replica has a new life",
		},
		{
			"a restart of Patroni is no event of its API, a hang is",
			[]string{"0 api a up 0", "1 api a down 0", "3 api a up 0", "10 api a down 0", "20 api a up 0"},
			"10.0s REST API of the leader is down; 20.0s REST API of the leader is up",
		},
		{
			"a session that could not be opened for a moment",
			[]string{"0 postgres a primary 1", "5 postgres a none 0", "7 postgres a primary 1", "59 postgres a none 0"},
			"",
		},
		{
			"a demotion, seen and missed",
			[]string{"0 postgres a primary 1", "0 postgres b primary 1", "5 postgres a none 0", "7 postgres a replica 2", "9 postgres b replica 2"},
			"0.0s second primary begins; 5.0s PostgreSQL of the leader ends; 5.0s second primary ends; 7.0s PostgreSQL of the leader starts as replica; 9.0s PostgreSQL of the replica ends; 9.0s PostgreSQL of the replica starts as replica",
		},
		{
			"a gap that is none, and one that lasts",
			[]string{"0 writer - writes 0", "1 writer - waits 0", "1.5 writer - writes 0", "50 writer - waits 0"},
			"50.0s writer waits",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, story(t, tt.lines...)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestReading_JSON(t *testing.T) {
	want := []Reading{{1234560 * time.Microsecond, Postgres, "pg1", Primary, 2}, {0, Writer, "-", Writes, 0}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got []Reading
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want[0].At = 1230 * time.Millisecond // two digits are kept
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", text, diff)
	}
	for _, bad := range []string{`["1.0 key -"]`, `["x key - a 0"]`, `["1 key - a b"]`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
