package etcd

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd/etcdtest"
)

// captured returns what real members answered (real_test.go), by scenario and version.
func captured(tb testing.TB, kind string) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob("testdata/" + kind + "/*")
	if err != nil || len(names) < 10 {
		tb.Fatal(names, err)
	}
	out := make(map[string][]byte)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		out[filepath.Base(name)] = b
	}
	return out
}

func TestParseStatus_Captured(t *testing.T) {
	for name, b := range captured(t, "status") {
		scenario, version, _ := strings.Cut(name, "-")
		got, err := parseStatus(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Version != version || got.ClusterID == "" || got.MemberID == "" || got.RaftTerm == 0 || got.RaftIndex == 0 ||
			got.DBSize < got.DBInUse || got.DBInUse == 0 || (got.DBQuota > 0) != (version > "3.6") {
			t.Errorf("%s: %+v", name, got)
		}
		if (got.LeaderID == "") != (scenario == "noleader") || got.Learner != (scenario == "learner") {
			t.Errorf("%s: %+v", name, got)
		}
		var alarms []string
		if scenario == "nospace" || scenario == "corrupt" {
			alarms = []string{strings.ToUpper(scenario)}
		}
		if diff := cmp.Diff(alarms, got.Alarms); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseStatus_Strange(t *testing.T) {
	for name, change := range map[string]func(*etcdserverpb.StatusResponse){
		"no header":     func(s *etcdserverpb.StatusResponse) { s.Header = nil },
		"no cluster":    func(s *etcdserverpb.StatusResponse) { s.Header.ClusterId = 0 },
		"no member":     func(s *etcdserverpb.StatusResponse) { s.Header.MemberId = 0 },
		"no version":    func(s *etcdserverpb.StatusResponse) { s.Version = "" },
		"strange":       func(s *etcdserverpb.StatusResponse) { s.Version = "3.6.1\nsecret" },
		"negative size": func(s *etcdserverpb.StatusResponse) { s.DbSize = -1 },
		"negative use":  func(s *etcdserverpb.StatusResponse) { s.DbSizeInUse = -1 },
	} {
		s := etcdtest.Healthy()
		change(s)
		b, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseStatus(b); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := parseStatus([]byte("secret")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("garbage: %+v, %v", got, err)
	}
}

func TestAlarms(t *testing.T) {
	got := alarms([]string{
		"etcdserver: no leader", "memberID:1 alarm:NOSPACE ", "memberID:2  alarm:NOSPACE", "memberID:2 alarm: CORRUPT",
		"memberID:3 alarm:7", "alarm:<script>", "noalarm:NOSPACE2",
	})
	if diff := cmp.Diff([]string{"CORRUPT", "NOSPACE"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseHealth_Captured(t *testing.T) {
	for name, b := range captured(t, "health") {
		scenario, version, _ := strings.Cut(name, "-")
		want, status, reason := true, 200, ""
		switch scenario {
		case "nospace", "corrupt":
			want, status, reason = false, 503, "ALARM "+strings.ToUpper(scenario)
		case "noleader":
			want, status, reason = false, 503, "RAFT NO LEADER"
		}
		if version == "3.4.23" {
			reason = ""
		}
		got, why, err := parseHealth(status, b)
		if err != nil || got != want || why != reason {
			t.Errorf("%s: %v, %q, %v", name, got, why, err)
		}
	}
}

func TestParseHealth(t *testing.T) {
	for _, c := range []struct {
		status  int
		body    string
		healthy bool
		reason  string
	}{
		{200, ` { "health" : "true" } `, true, ""},
		{200, `{"health":"true","reason":"x","news":[1,{"a":null}]}`, true, ""},
		{503, `{"health":"true"}`, false, ""},
		{200, `{"health":"false","reason":"a\u001bb"}`, false, "a?b"},
		{503, `{"health":"false","reason":7}`, false, ""},
	} {
		if healthy, reason, err := parseHealth(c.status, []byte(c.body)); err != nil || healthy != c.healthy || reason != c.reason {
			t.Errorf("%d %s: %v, %q, %v", c.status, c.body, healthy, reason, err)
		}
	}
	for status, body := range map[int]string{404: `{"health":"true"}`, 200: `{"health":"secret"}`} {
		if healthy, _, err := parseHealth(status, []byte(body)); err == nil || healthy || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d %s: %v, %v", status, body, healthy, err)
		}
	}
	for _, body := range []string{
		"", "secret", "null", "[]", "{}", `{"health":true}`, `{"Health":"true"}`, `{"health":"true"}}`, `{"health":"true"}{}`, `{"health":"true"`,
		`{"health":"true","x":"` + strings.Repeat("a", maxBody) + `"}`,
	} {
		if healthy, _, err := parseHealth(200, []byte(body)); err == nil || healthy || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40s: %v, %v", body, healthy, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for name, b := range captured(t, "version") {
		if err := parseVersion(200, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := parseVersion(200, []byte(`{"etcdserver":"3.5.16","etcdcluster":"not_decided"}`)); err != nil {
		t.Error(err)
	}
	for body, status := range map[string]int{
		`{"etcdserver":"3.5.16","etcdcluster":"3.5.0"} `: 404,
		`{"etcdserver":"3.5.16"}`:                        200,
		`{"etcdserver":"3.5.16","etcdcluster":"secret"}`: 200,
		`{"version":"17"}`:                               200,
		`404 page not found`:                             200,
	} {
		if err := parseVersion(status, []byte(body)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// stream returns all that a member sends in answer to a Status.
func stream(tb testing.TB) []byte {
	tb.Helper()
	var b bytes.Buffer
	canned := canned(tb)
	client, server := net.Pipe()
	defer client.Close() // the server ends with it
	go func() { canned(server); _ = server.Close() }()
	if _, err := client.Write([]byte("PRI")); err != nil {
		tb.Fatal(err)
	}
	if _, err := readReply(io.Discard, io.TeeReader(client, &b)); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// TestReadReply_Cut reads an answer that ends at every place.
func TestReadReply_Cut(t *testing.T) {
	whole := stream(t)
	if got, err := readReply(io.Discard, bytes.NewReader(whole)); err != nil || len(got.message) == 0 {
		t.Fatal(got, err)
	}
	for i := range whole {
		if got, err := readReply(io.Discard, bytes.NewReader(whole[:i])); err == nil {
			t.Errorf("cut at %d of %d: got %+v", i, len(whole), got)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add(stream(f))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readReply(io.Discard, io.LimitReader(bytes.NewReader(b), maxAnswer))
		if err == nil {
			_, err = understand(got)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("long error: %v", err)
		}
		checkText(t, got.text)
	})
}

func FuzzParseStatus(f *testing.F) {
	for _, b := range captured(f, "status") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseStatus(b)
		if err != nil {
			return
		}
		for _, s := range append(got.Alarms, got.Version, got.ClusterID, got.MemberID) {
			checkText(t, s)
			if s == "" {
				t.Errorf("got %+v", got)
			}
		}
		if got.DBSize < 0 || got.DBInUse < 0 || got.DBQuota < 0 || got.Outcome != "" {
			t.Errorf("got %+v", got)
		}
	})
}

func FuzzParseHealth(f *testing.F) {
	for _, b := range captured(f, "health") {
		f.Add(200, b)
		f.Add(503, b)
	}
	for _, b := range captured(f, "version") {
		f.Add(200, b)
	}
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		healthy, reason, err := parseHealth(status, b)
		if healthy && (err != nil || status != 200 || reason != "") {
			t.Errorf("healthy: %d %q, %q, %v", status, b, reason, err)
		}
		checkText(t, reason)
		if err := parseVersion(status, b); err != nil && len(err.Error()) > 100 {
			t.Errorf("long error: %v", err)
		}
	})
}

// checkText checks that a text is fit for logs and pages.
func checkText(t *testing.T, s string) {
	t.Helper()
	if clean(s) != s {
		t.Errorf("%q got through", s)
	}
}
