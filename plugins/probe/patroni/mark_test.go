package patroni

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Lines as Patroni writes them, without the time.
const (
	copied     = "INFO: bootstrapped from leader 'node-1'"
	made       = "INFO: replica has been created using basebackup"
	production = "  Database cluster state: in production"
	standby    = "  Database cluster state: in archive recovery"
	recovery   = "INFO: doing crash recovery in a single user mode"
	leads      = "INFO: no action. I am (node-2), the leader with the lock"
	follows    = "INFO: no action. I am (node-2), a secondary, and following a leader (node-1)"
)

func TestParseMark(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  bool
	}{
		"fresh copy":                         {[]string{made, copied, production, recovery}, true},
		"only one of the two messages":       {[]string{made, production, recovery}, true},
		"copy of a replica":                  {[]string{"INFO: bootstrapped from replica 'node-3'", production, recovery}, true},
		"standby cluster":                    {[]string{"INFO: bootstrapped clone from remote member postgres://10.0.0.1:5432", production, recovery}, true},
		"from a backup":                      {[]string{"INFO: bootstrapped (without leader)", production, recovery}, true},
		"still in progress":                  {[]string{made, copied, production, recovery, recovery + " in progress", follows}, true},
		"says it follows before it starts":   {[]string{made, copied, follows, production, recovery}, true},
		"leads only afterwards":              {[]string{made, copied, production, recovery, follows, leads}, true},
		"log in JSON":                        {[]string{`{"message": "bootstrapped from leader 'a'"}`, `{"message": "pg_controldata:\n  Database cluster state: in production\n  x"}`, `{"message": "doing crash recovery in a single user mode"}`}, true},
		"control file not logged":            {[]string{copied, recovery}, true},
		"crashed primary":                    {[]string{leads, production, recovery}, false},
		"copied long ago, led since":         {[]string{made, copied, follows, "INFO: promoted self to leader by acquiring session lock", production, recovery}, false},
		"led while paused":                   {[]string{copied, "INFO: PAUSE: no action. I am (node-2), the leader with the lock", production, recovery}, false},
		"former standby before pg_rewind":    {[]string{made, copied, follows, standby, recovery}, false},
		"the same in JSON":                   {[]string{copied, `{"message": "pg_controldata:\n  Database cluster state: in archive recovery\n"}`, recovery}, false},
		"initialised":                        {[]string{"INFO: initialized a new cluster", production, recovery}, false},
		"copied again since":                 {[]string{made, copied, production, recovery, made, copied, follows}, false},
		"removed since":                      {[]string{made, copied, production, recovery, "INFO: Removing data directory: /d"}, false},
		"copied again, diverged again":       {[]string{made, copied, production, recovery, made, copied, production, recovery}, true},
		"fixed Patroni":                      {[]string{made, copied, production, "INFO: Skipping single-user crash recovery because backup_label exists; PostgreSQL will handle it during normal startup"}, false},
		"no copy in sight":                   {[]string{production, recovery}, false},
		"nothing":                            {nil, false},
		"a client's words in the server log": {[]string{copied, `2026-11-23 02:26:19 UTC [1] ERROR:  syntax error at "doing crash recovery in a single user mode"`, "\tdoing crash recovery in a single user mode"}, false},
		"a client's words about leading":     {[]string{copied, `LOG:  statement: select '), the leader with the lock'`, production, recovery}, true},
		"standby leader does not write":      {[]string{copied, "INFO: no action. I am (node-2), the standby leader with the lock", production, recovery}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseMark(c.lines)
			if (got != "") != c.want || (c.want && !strings.Contains(got, textCrashRecovery)) {
				t.Errorf("got %q, want a mark: %v", got, c.want)
			}
		})
	}
}

func TestParseMark_Captured(t *testing.T) {
	lines := nonEmptyLines(testdata(t, "log/diverged-copy-4.0.7.txt"))
	if got := parseMark(lines); !strings.Contains(got, textCrashRecovery) {
		t.Errorf("diverged copy: got %q", got)
	}
	for _, name := range []string{"replica-reversed-4.0.7.txt", "leader-reversed-4.0.7.txt"} {
		lines := nonEmptyLines(testdata(t, "log/"+name))
		slices.Reverse(lines)
		if got := parseMark(lines); got != "" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add(string(testdata(f, "log/diverged-copy-4.0.7.txt")))
	f.Add(strings.Join([]string{made, copied, production, recovery}, "\n"))
	f.Fuzz(func(t *testing.T, s string) {
		lines := nonEmptyLines([]byte(s))
		got := parseMark(lines)
		if got != "" && (!slices.Contains(lines, got) || !strings.Contains(got, textCrashRecovery)) {
			t.Errorf("got %q", got)
		}
		if b := bounded(redactText(got)); len([]rune(b)) > maxLine+3 || strings.ContainsRune(b, '\n') {
			t.Errorf("not bounded: %q", b)
		}
	})
}

// runner is a Runner with one answer.
type runner struct {
	out  service.Output
	err  error
	hang bool
	got  service.Command
	do   func()
}

func (r *runner) Run(ctx context.Context, c service.Command) (service.Output, error) {
	if r.hang {
		<-ctx.Done()
		return service.Output{}, ctx.Err()
	}
	if r.do != nil {
		r.do()
		r.got = c
	}
	return r.out, r.err
}

func sameDir(context.Context) (string, error) { return "dir1", nil }

func reversed(lines ...string) []byte {
	slices.Reverse(lines)
	return []byte(strings.Join(lines, "\n") + "\n")
}

func TestLogMark_Journal(t *testing.T) {
	r := &runner{out: service.Output{Stdout: reversed("-- Boot 1234 --", made, copied, production, recovery)}, do: func() {}}
	l, err := NewLogMark(MarkConfig{Unit: "patroni.service"}, MarkDeps{Runner: r, DataDirID: sameDir})
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Probe(t.Context())
	want := probe.LogMark{DataDirID: "dir1", SingleUserOnCopy: true, Line: recovery}
	if got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if !slices.Contains(r.got.Args, "--unit=patroni.service") || r.got.Path != "journalctl" {
		t.Errorf("ran %+v", r.got)
	}
	r.do = nil
	probetest.Run(t, l)
	if _, err := probetest.RunHanging(t, &LogMark{config: l.config, deps: MarkDeps{Runner: &runner{hang: true}, DataDirID: sameDir}}); err == nil {
		t.Error("a journal that hangs gives no error")
	}
}

func TestLogMark_Unknown(t *testing.T) {
	ids := 0
	for name, d := range map[string]MarkDeps{
		"no journalctl":      {Runner: &runner{err: errors.New("not found")}, DataDirID: sameDir},
		"it fails":           {Runner: &runner{out: service.Output{ExitCode: 1, Stderr: []byte("no such file")}}, DataDirID: sameDir},
		"no line":            {Runner: &runner{out: service.Output{Stdout: []byte("-- No entries --\n")}}, DataDirID: sameDir},
		"not allowed":        {Runner: &runner{out: service.Output{Stdout: reversed(follows), Stderr: []byte("Hint: You are currently not seeing messages from other users")}}, DataDirID: sameDir},
		"no identity":        {Runner: &runner{}, DataDirID: func(context.Context) (string, error) { return "", errors.New("permission denied") }},
		"replaced meanwhile": {Runner: &runner{out: service.Output{Stdout: reversed(follows)}}, DataDirID: func(context.Context) (string, error) { ids++; return strings.Repeat("x", ids), nil }},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLogMark(MarkConfig{Unit: "patroni"}, d)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := l.Probe(t.Context()); err == nil {
				t.Errorf("got %+v, want an error", got)
			}
		})
	}
}

func TestLogMark_File(t *testing.T) {
	path := filepath.Join(t.TempDir(), "patroni.log")
	filler := strings.Repeat(follows+"\n", logLines-4)
	old := strings.Join([]string{"x", made, copied, production, recovery}, "\n") + "\n"
	l, err := NewLogMark(MarkConfig{File: path}, MarkDeps{DataDirID: sameDir})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{old: true, old + filler: true, old + filler + filler: false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Probe(t.Context()); err != nil || got.SingleUserOnCopy != want {
			t.Errorf("%d bytes: got %+v, %v, want %v", len(text), got, err, want)
		}
	}
}

func TestMarkConfig_Validate(t *testing.T) {
	for _, c := range []MarkConfig{{}, {Unit: "a", File: "/b"}, {Unit: "-f"}, {Unit: "a b"}, {File: "x.log"}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}
