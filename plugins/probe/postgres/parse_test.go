package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// controldata reads what pg_controldata said of a captured control file.
func controldata(tb testing.TB, name string) control {
	tb.Helper()
	text := string(testdata(tb, "pg_controldata-"+name))
	field := func(label string) string {
		m := regexp.MustCompile(`(?m)^` + label + `:\s+(.*)$`).FindStringSubmatch(text)
		if m == nil {
			tb.Fatalf("%s: no %q", name, label)
		}
		return strings.TrimSpace(m[1])
	}
	number := func(label string) uint64 {
		n, err := strconv.ParseUint(field(label), 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	lsn, err := ParseLSN(field("Latest checkpoint location"))
	if err != nil {
		tb.Fatal(err)
	}
	return control{
		systemID: number("Database system identifier"), state: field("Database cluster state"),
		timeline: uint32(number("Latest checkpoint's TimeLineID")), checkpoint: lsn,
	}
}

// TestParseControl_Captured compares with pg_controldata's own reading of files that real servers wrote.
func TestParseControl_Captured(t *testing.T) {
	for _, name := range []string{"15.shutdown", "17.primary", "17.standby", "18.primary", "18.standby"} {
		t.Run(name, func(t *testing.T) {
			got, err := parseControl(testdata(t, "pg_control-"+name))
			if diff := cmp.Diff(controldata(t, name), got, cmp.AllowUnexported(control{})); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

func TestParseControl_Unintelligible(t *testing.T) {
	good := testdata(t, "pg_control-17.primary")
	change := func(offset int, value uint32, sum bool) []byte {
		b := bytes.Clone(good)
		binary.NativeEndian.PutUint32(b[offset:], value)
		if sum {
			binary.NativeEndian.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
		}
		return b
	}
	for name, in := range map[string][]byte{
		"empty":           {},
		"cut":             good[:288],
		"zeros":           make([]byte, controlSize),
		"torn":            change(48, 7, false),
		"unknown version": change(8, 1900, true),
		"unknown state":   change(16, 7, true),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseControl(in); !errors.Is(err, ErrControl) {
				t.Errorf("got %+v, %v, want ErrControl", got, err)
			}
		})
	}
	if got, err := parseControl(change(48, 7, true)); err != nil || got.timeline != 7 {
		t.Errorf("the test's own checksum is wrong: %+v, %v", got, err)
	}
}

func FuzzParseControl(f *testing.F) {
	for _, name := range []string{"15.shutdown", "17.primary", "18.standby"} {
		f.Add(testdata(f, "pg_control-"+name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseControl(b); (err == nil) == (c.state == "") {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestParseLockFile(t *testing.T) {
	captured := string(testdata(t, "postmaster.pid-17"))
	start := time.Unix(1795399559, 0).UTC()
	head := "220\n/data\n1795399559\n"
	for name, c := range map[string]struct {
		in   string
		want lockFile
		bad  bool
	}{
		"starting, first lines only":    {in: head + "5432\n/run/postgresql\n", want: lockFile{pid: 220, started: start, port: 5432, status: "starting"}},
		"ready":                         {in: head + "5432\n/run\n0.0.0.0\n 804056 4\nready   \n", want: lockFile{pid: 220, started: start, port: 5432, status: "ready"}},
		"no sockets":                    {in: head + "5432\n\n\n\nstopping\n", want: lockFile{pid: 220, started: start, port: 5432, status: "stopping"}},
		"single-user":                   {in: "-220\n/data\n1795399559\n5432\n\n", want: lockFile{pid: 220, single: true, started: start, port: 5432, status: "starting"}},
		"empty, just created":           {in: "", bad: true},
		"only the pid":                  {in: "220\n", bad: true},
		"cut in the start time":         {in: "220\n/data\n17953", bad: true},
		"start time without line break": {in: "220\n/data\n1795399559", bad: true},
		"garbage":                       {in: "a\nb\nc\n", bad: true},
		"pid zero":                      {in: "0\n/data\n1795399559\n", bad: true},
		"unknown status":                {in: head + "5432\n\n\n\nfrozen\n", bad: true},
		"port out of range":             {in: head + "70000\n", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseLockFile([]byte(c.in))
			if (err != nil) != c.bad {
				t.Fatalf("got error %v, want one: %v", err, c.bad)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(lockFile{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	got, err := parseLockFile([]byte(captured))
	if err != nil || got.pid == 0 || got.port != 5432 || got.status != "ready" {
		t.Errorf("captured: got %+v, %v", got, err)
	}
}

func FuzzParseLockFile(f *testing.F) {
	f.Add(testdata(f, "postmaster.pid-17"))
	f.Add([]byte("-220\n/data\n1795399559\n5432\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLockFile(b)
		if err == nil && (l.pid <= 0 || l.port < 0 || l.port > math.MaxUint16 || l.started.Unix() <= 0) {
			t.Errorf("got %+v", l)
		}
	})
}

func TestParseLSN(t *testing.T) {
	for in, want := range map[string]uint64{
		"0/3000060": 0x3000060, "0/0": 0, "1/0": 1 << 32, "ffffffff/FFFFFFFF": math.MaxUint64, "16/B374D848": 0x16B374D848,
	} {
		if got, err := ParseLSN(in); got != want || err != nil {
			t.Errorf("ParseLSN(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "/", "0", "0/", "/0", "0/0/0", "g/0", "-1/0", "+1/0", "1_0/0", "0x1/0", " 0/0", "100000000/0", "0/100000000"} {
		if got, err := ParseLSN(in); err == nil {
			t.Errorf("ParseLSN(%q) = %d, want an error", in, got)
		}
	}
}

func FuzzLSN(f *testing.F) {
	f.Add("0/3000060", uint64(0x3000060))
	f.Add("ffffffff/FFFFFFFF", uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, s string, n uint64) {
		if got, err := ParseLSN(FormatLSN(n)); got != n || err != nil {
			t.Errorf("%d formats as %s and parses as %d, %v", n, FormatLSN(n), got, err)
		}
		if got, err := ParseLSN(s); err == nil {
			if again, err := ParseLSN(FormatLSN(got)); again != got || err != nil {
				t.Errorf("%q parses as %d, and again as %d, %v", s, got, again, err)
			}
		}
	})
}
