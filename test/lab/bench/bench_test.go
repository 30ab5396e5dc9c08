package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stat is a captured /proc/PID/stat with a name that was chosen to confuse, 250 ticks of its own and 15 of its children.
const stat = `78 (a) S (b) S 1 78 78 0 -1 4194560 761 0 18 0 200 50 10 5 20 0 1 0 406200 8151040 1000 18446744073709551615 1 1 0 0`

const sampleText = `hz 100
journal 1200
VmRSS 20000
VmHWM 22000
Pss 19000
stat pgpatrol ` + stat + `
stat systemd 1 (systemd) S 0 1 1 0 -1 4194560 761 0 18 0 7 3 0 0 20 0 1 0 4 8 1 1
node 9000000000
now 1800000000000000000
`

func TestParseSample(t *testing.T) {
	got, err := parseSample(sampleText)
	if err != nil {
		t.Fatal(err)
	}
	want := sample{
		now:  time.Unix(1800000000, 0),
		node: 9 * time.Second, rss: 20000 << 10, peak: 22000 << 10, pss: 19000 << 10, journal: 1200,
		programs: map[string]program{
			"pgpatrol": {78, cpu{2500 * time.Millisecond, 150 * time.Millisecond}},
			"systemd":  {1, cpu{100 * time.Millisecond, 0}},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{}, program{}, cpu{})); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
	}
}

func TestParseSample_HalfOfOneIsNone(t *testing.T) {
	for _, text := range []string{"", "hz 100\n", "stat pgpatrol " + stat + "\n", "hz 100\nstat pgpatrol \nnow 1\n", "hz 100\nVmRSS many\nnow 1\n"} {
		if got, err := parseSample(text); err == nil {
			t.Errorf("sample of %q = %+v", text, got)
		}
	}
}

func TestParseRequests(t *testing.T) {
	got, err := parseRequests(`# TYPE grpc_server_msg_received_total counter
grpc_server_msg_received_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 128
grpc_server_msg_received_total{grpc_method="LeaseTimeToLive",grpc_service="etcdserverpb.Lease",grpc_type="unary"} 1.21e+02
grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 128
`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int64{"Range": 128, "LeaseTimeToLive": 121}, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if _, err := parseRequests(`grpc_server_msg_received_total{grpc_method="Range"} lots`); err == nil {
		t.Error("no error for a value that is no number")
	}
}

func FuzzParseSample(f *testing.F) {
	f.Add(sampleText)
	f.Add("hz 1\nstat a )\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseSample(text) })
}

func FuzzParseRequests(f *testing.F) {
	f.Add(`grpc_server_msg_received_total{grpc_method="Range"} 1`)
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseRequests(text) })
}

// report is two minutes of one agent on pg1 with the given processor time.
func report(own time.Duration, rss int64) Report {
	began := time.Unix(1800000000, 0)
	at := func(minutes int, p map[string]program, rss int64, requests int64) moment {
		now := began.Add(time.Duration(minutes) * time.Minute)
		return moment{
			at: now, requests: map[string]int64{"Range": requests},
			nodes: map[string]sample{"pg1": {now: now, programs: p, rss: rss, journal: int64(minutes) * 10}},
		}
	}
	r := Report{Window: 2 * time.Minute, Binaries: []Binary{{"linux/amd64", 17_000_000}}}
	r.without = window{at(0, nil, 0, 0), at(2, nil, 0, 100)}
	r.with = window{
		at(4, map[string]program{"pgpatrol": {7, cpu{}}}, rss, 200),
		at(6, map[string]program{"pgpatrol": {7, cpu{own, 120 * time.Millisecond}}}, rss, 360),
	}
	r.fill()
	return r
}

func TestReport_Figures(t *testing.T) {
	r := report(480*time.Millisecond, 20_000_000)
	want := []Agent{{Node: "pg1", Resident: 20_000_000, CPU: 0.5, Programs: 0.1, Journal: 600}}
	if diff := cmp.Diff(want, r.Agents); diff != "" {
		t.Errorf("agents (-want +got):\n%s", diff)
	}
	if got := (Etcd{Without: 50, With: 80, PerAgent: 30, Methods: map[string]float64{"Range": 30}}); !cmp.Equal(got, r.Etcd) {
		t.Errorf("etcd: %+v", r.Etcd)
	}
}

func TestReport_Bounds(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    Report
		want string
	}{
		{"within", report(480*time.Millisecond, 20_000_000), ""},
		{"too much CPU", report(time.Second, 20_000_000), "of a core on pg1"},
		{"too much memory", report(0, 31_000_000), "31.0 MB of memory on pg1"},
		{"no agent", report(0, 0), "no agent runs on pg1"},
		{"too large", func() Report {
			r := report(0, 1)
			r.Binaries = append(r.Binaries, Binary{"linux/arm64", 26_000_000})
			return r
		}(), "26.0 MB binary for linux/arm64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(tt.r.over(), "; ")
			if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("over: %q, want %q", got, tt.want)
			}
			var b bytes.Buffer
			tt.r.print(&b)
			if within := strings.Contains(b.String(), "within all bounds"); within != (tt.want == "") {
				t.Errorf("printed:\n%s", b.String())
			}
		})
	}
}
