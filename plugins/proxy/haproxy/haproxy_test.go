package haproxy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

const state = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 bk 1 pg1 10.213.1.11 2 0 1 1 75 15 3 4 6 0 0 0 - 5432 - 0 8008 - - 0
3 bk 2 pg2 10.213.1.12 0 1 1 1 3 8 2 0 14 0 0 0 db.example 5432 - 0 8008 - - 0
3 bk 3 pg3 - 1 8 1 1 0 6 3 1 14 0 0 0 - 0 - 0 8008 - - 0
`

const stat = `# pxname,svname,qcur,qmax,scur,smax,slim
ft,FRONTEND,,,7,9,2000
bk,pg1,0,0,7,9,
bk,pg2,0,0,2,4,
bk,BACKEND,0,0,9,9,200
`

func id(server string) proxy.ID { return proxy.ID{Backend: "bk", Server: server} }

// fake answers like a runtime socket, and keeps the lines that it was sent.
func fake(t *testing.T, answer func(line string) string) (*Runtime, *[]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	lines, done := &[]string{}, make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				*lines = append(*lines, strings.TrimSpace(line))
				_, _ = c.Write([]byte(answer(strings.TrimSpace(line))))
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	r, err := New(path)
	if err != nil {
		t.Fatal(err)
	}
	return r, lines
}

func TestTable(t *testing.T) {
	r, _ := fake(t, func(line string) string {
		if line == "show stat" {
			return stat
		}
		return state
	})
	got, err := r.Table(t.Context(), "bk")
	if err != nil {
		t.Fatal(err)
	}
	want := []proxy.Server{
		{ID: id("pg1"), Address: "10.213.1.11", Port: 5432, Up: true, Sessions: 7, Since: 75 * time.Second},
		{ID: id("pg2"), Address: "10.213.1.12", Port: 5432, Admin: 1, Sessions: 2, Since: 3 * time.Second},
		{ID: id("pg3"), Up: true, Admin: 8},
	}
	if d := cmp.Diff(want, got.Of("bk")); d != "" {
		t.Error(d)
	}
}

func TestMark_DeadFirstOnOneLine(t *testing.T) {
	r, lines := fake(t, func(string) string { return "\n\n" })
	if err := r.Mark(t.Context(), []proxy.ID{id("pg1"), id("pg3")}, []proxy.ID{id("pg2")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Drop(t.Context(), []proxy.ID{id("pg1")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Mark(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"set server bk/pg1 health down; set server bk/pg3 health down; set server bk/pg2 health up",
		"shutdown sessions server bk/pg1",
	}
	if d := cmp.Diff(want, *lines); d != "" {
		t.Error(d)
	}
}

func TestMark_NamesThatWouldBeCommands(t *testing.T) {
	r, lines := fake(t, func(string) string { return "\n" })
	for _, name := range []string{"", "a b", "a;b", "a\nb", "a/b", "../x", "-x", strings.Repeat("x", 129), "ä"} {
		if err := r.Mark(t.Context(), nil, []proxy.ID{{Backend: "bk", Server: name}}); err == nil {
			t.Errorf("server %q was accepted", name)
		}
		if err := r.Drop(t.Context(), []proxy.ID{{Backend: name, Server: "pg1"}}); err == nil {
			t.Errorf("backend %q was accepted", name)
		}
		if _, err := r.Table(t.Context(), name); err == nil {
			t.Errorf("table of %q was asked for", name)
		}
	}
	if len(*lines) > 0 {
		t.Errorf("sent %q", *lines)
	}
}

func TestErrors(t *testing.T) {
	denied, _ := fake(t, func(string) string { return "Permission denied\n" })
	if err := denied.Mark(t.Context(), nil, []proxy.ID{id("pg1")}); !errors.Is(err, ErrNotAllowed) || !errors.Is(err, proxy.ErrNotUsable) {
		t.Errorf("denied: %v", err)
	}
	unknown, _ := fake(t, func(string) string { return "No such server.\n" })
	if err := unknown.Mark(t.Context(), nil, []proxy.ID{id("pg9")}); err == nil || !strings.Contains(err.Error(), `"No such server."`) {
		t.Errorf("unknown server: %v", err)
	}
	nothing, _ := New("/nonexistent/socket")
	if _, err := nothing.Table(t.Context(), "bk"); !errors.Is(err, ErrNoSocket) || !errors.Is(err, proxy.ErrNotUsable) {
		t.Errorf("no socket: %v", err)
	}
	backend, _ := fake(t, func(string) string { return "Can't find backend.\n" })
	if _, err := backend.Table(t.Context(), "nope"); err == nil || !strings.Contains(err.Error(), "Can't find backend.") {
		t.Errorf("unknown backend: %v", err)
	}
	dead := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	gone, _ := New(dead)
	if _, err := gone.Table(t.Context(), "bk"); !errors.Is(err, ErrNobody) || errors.Is(err, proxy.ErrNotUsable) {
		t.Errorf("nobody listens: %v", err)
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(dead, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := gone.Table(t.Context(), "bk"); !errors.Is(err, ErrForbidden) {
			t.Errorf("forbidden: %v", err)
		}
	}
}

// A HAProxy that is stopped takes the connection and says nothing (FAULTS.md F87).
func TestTable_Silent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, _ := New(path)
	r.limit = 50 * time.Millisecond
	if _, err := r.Table(t.Context(), "bk"); !errors.Is(err, proxy.ErrSilent) {
		t.Errorf("silent: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Table(ctx, "bk"); err == nil {
		t.Error("an ended context gave a table")
	}
}

func TestNew(t *testing.T) {
	for _, bad := range []string{"", "haproxy.sock", "localhost"} {
		if _, err := New(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseState_Nonsense(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "another version": "2\n# x\n", "no header": "1\n", "no columns": "1\n# a b\n", "short": "1\n# " + strings.Join(stateFields, " ") + "\nbk pg1\n",
		"number": "1\n# " + strings.Join(stateFields, " ") + "\nbk pg1 10.0.0.1 x 0 0 1\n",
		"name":   "1\n# " + strings.Join(stateFields, " ") + "\nbk pg1;x 10.0.0.1 2 0 0 1\n",
	} {
		if got, err := parseState(text); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(state)
	f.Add(stat)
	f.Add("1\n# be_name srv_name\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		servers, err := parseState(text)
		for _, s := range servers {
			if err == nil && s.Check() != nil {
				t.Errorf("name %q got through", s.ID)
			}
		}
		_, _ = parseSessions(text)
		if p := printable(text); strings.ContainsAny(p, "\n\x1b") {
			t.Errorf("%q is not printable", p)
		}
	})
}
