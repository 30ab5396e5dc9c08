package patroni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// captured reads one run of the real validator: its exit code on the first line, then what it wrote to stderr. The
// password in all of these files was hunter2, or 12345.
func captured(tb testing.TB, name string) service.Output {
	tb.Helper()
	first, rest, _ := bytes.Cut(testdata(tb, "validate/"+name+".txt"), []byte("\n"))
	out := service.Output{Stderr: rest}
	if _, err := fmt.Sscanf(string(first), "exit %d", &out.ExitCode); err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestInterpret_Captured(t *testing.T) {
	for name, want := range map[string]verdict{
		"good-4.0.7": {},
		"gone-4.0.7": {}, // a data directory that does not exist yet
		"unclosed-4.0.7": {problems: []string{
			"yaml.parser.ParserError: while parsing a flow sequence", `in "/etc/patroni/unclosed.yml", line 25, column 6`,
			"expected ',' or ']', but got '<stream end>'", `in "/etc/patroni/unclosed.yml", line 26, column 1`,
		}},
		"tab-4.0.7": {problems: []string{
			"yaml.scanner.ScannerError: while scanning for the next token", `found character '\t' that cannot start any token`,
			`in "/etc/patroni/tab.yml", line 1, column 1`,
		}},
		"alias-4.0.7": {problems: []string{
			"yaml.composer.ComposerError: found undefined alias '<redacted>'", `in "/etc/patroni/alias.yml", line 21, column 47`,
		}},
		"values-4.0.7": {problems: []string{
			"bootstrap.dcs.ttl 2 didn't pass validation: Wrong value",
			"postgresql.authentication.replication.password <redacted> is not a string",
			"postgresql.authentication.superuser.password <redacted> is not a string",
		}},
		"userattr-4.0.7": {problems: []string{"postgresql.authentication.superuser <redacted> is not a dictionary"}},
		"bindir-4.0.7": {problems: []string{
			"postgresql.data_dir /cap/d1 didn't pass validation: Failed to get postgres version: [Errno 2] No such file or directory: '/nowhere/postgres'",
			"postgresql.bin_dir Directory '/nowhere' does not exist.",
		}},
		"empty-4.0.7":  {problems: []string{"/etc/patroni/empty.yml does not contain a dict", "invalid config file /etc/patroni/empty.yml"}},
		"noread-4.0.7": {problems: []string{"PermissionError: [Errno 13] Permission denied: '/etc/patroni/noread.yml'"}},
		"unreach-4.0.7": {unreachable: []string{
			"etcd3.hosts.1 127.0.0.1:1 didn't pass validation: 127.0.0.1:1 is not reachable",
			"etcd3.hosts.2 127.0.0.3:2 didn't pass validation: 127.0.0.3:2 is not reachable",
		}},
		"unreachcsv-4.0.7": {unreachable: []string{
			"etcd3.hosts 127.0.0.1:2379,127.0.0.1:1 didn't pass validation: 127.0.0.1:1 is not reachable",
		}},
		"dns-4.0.7": {unreachable: []string{
			"etcd3.host nosuch.invalid:2379 didn't pass validation: [Errno -3] Temporary failure in name resolution",
		}},
		"mix-4.0.7": {
			problems:    []string{"bootstrap.dcs.ttl 2 didn't pass validation: Wrong value"},
			unreachable: []string{"etcd3.hosts.1 nosuch.invalid:1 didn't pass validation: [Errno -3] Temporary failure in name resolution"},
		},
		"restapi-4.0.7": {
			problems:  []string{`restapi.connect_address 127.0.0.1 didn't pass validation: must not contain "127.0.0.1", "0.0.0.0", "*", "::1", "localhost"`},
			unsettled: []string{"restapi.listen nope didn't pass validation: [Errno -3] Temporary failure in name resolution"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := interpret(captured(t, name))
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(verdict{})); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
	// 4.1.5 words its complaints as 4.0.7 does.
	for _, name := range []string{"unclosed", "values", "unreach"} {
		old, err := interpret(captured(t, name+"-4.0.7"))
		recent, err2 := interpret(captured(t, name+"-4.1.5"))
		if diff := cmp.Diff(old, recent, cmp.AllowUnexported(verdict{})); diff != "" {
			t.Error(name, err, err2, diff)
		}
	}
}

// TestInterpret_NoSecret: the validator repeats what it does not like.
func TestInterpret_NoSecret(t *testing.T) {
	names, err := filepath.Glob("testdata/validate/*.txt")
	if err != nil || len(names) < 20 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		v, err := interpret(captured(t, strings.TrimSuffix(filepath.Base(name), ".txt")))
		if text := fmt.Sprint(v, err); strings.Contains(text, "hunter2") || strings.Contains(text, "12345") {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, line := range []string{
		"name {'password': 'hunter2'} is not a string",
		"restapi.keyfile_password hunter2 is not a string",
		"etcd3.url http://root:hunter2@10.0.0.1 didn't pass validation: http://root:hunter2@10.0.0.1 is not reachable",
		"postgresql.authentication.superuser.password is not a dictionary hunter2 is not a string",
		"postgresql.authentication hunter2",
		"restapi {'authentication': {'username': 'a', 'password': 'hunter2'}} is not an array",
		"something password: hunter2 else",
		"could not connect to postgres://a:hunter2@b/c",
	} {
		if got := cleanLine(line); strings.Contains(got, "hunter2") {
			t.Errorf("%q becomes %q", line, got)
		}
	}
	for _, line := range []string{
		"yaml.composer.ComposerError: found undefined alias 'hunter2'",
		"ValueError: invalid literal for int() with base 10: 'hunter2'",
		"KeyError: 'hunter2'",
		`yaml.constructor.ConstructorError: could not determine a constructor for the tag '!hunter2\'s'`,
		"ValueError: password=hunter2",
	} {
		if got := redactException(line, false); strings.Contains(got, "hunter2") {
			t.Errorf("%q becomes %q", line, got)
		}
	}
}

func TestInterpret_NoVerdict(t *testing.T) {
	traceback := "Traceback (most recent call last):\n  File \"x\", line 1, in <module>\n"
	for name, out := range map[string]service.Output{
		"base backup in progress":   captured(t, "half-4.0.7"),
		"unknown option":            {ExitCode: 2, Stderr: []byte("usage: patroni\npatroni: error: unrecognized arguments: --ignore-listen-port\n")},
		"killed":                    {ExitCode: 137},
		"silent":                    {ExitCode: 1},
		"python module is missing":  {ExitCode: 1, Stderr: []byte(traceback + "ModuleNotFoundError: No module named 'yaml'\n")},
		"package is missing":        {ExitCode: 1, Stderr: []byte(traceback + "importlib.metadata.PackageNotFoundError: patroni\n")},
		"name service is not there": {ExitCode: 1, Stderr: []byte("postgresql.listen pg1:5432 didn't pass validation: [Errno -3] Temporary failure in name resolution\n")},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := interpret(out); err == nil {
				t.Errorf("got %+v, want an error", got)
			}
		})
	}
	for name, out := range map[string]service.Output{
		"file crashes the validator": {ExitCode: 1, Stderr: []byte(traceback + "AttributeError: 'str' object has no attribute 'get'\n")},
		"cut off":                    {ExitCode: 1, Stderr: []byte(traceback)},
		"second of two tracebacks":   {ExitCode: 1, Stderr: []byte(traceback + "ImportError: x\n\nDuring handling of the above exception, another exception occurred:\n\n" + traceback + "TypeError: y\n")},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := interpret(out); err != nil || len(got.problems) != 1 {
				t.Errorf("got %+v, %v, want one problem", got, err)
			}
		})
	}
}

func FuzzInterpret(f *testing.F) {
	names, err := filepath.Glob("testdata/validate/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		f.Add(captured(f, strings.TrimSuffix(filepath.Base(name), ".txt")).Stderr)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := interpret(service.Output{ExitCode: 1, Stderr: b})
		if err == nil && len(v.problems)+len(v.unreachable) == 0 {
			t.Error("neither a verdict nor an error")
		}
		for _, line := range append(atMost(v.problems), atMost(v.unreachable)...) {
			if len([]rune(line)) > maxLine+3 || strings.ContainsAny(line, "\n\r\x00\x1b") {
				t.Errorf("%q", line)
			}
		}
	})
}

func TestParseIdentity(t *testing.T) {
	for name, c := range map[string]struct{ in, name, scope string }{
		"usual":             {"scope: nocodb-cluster\nnamespace: /patroni\nname: postgres-1\nrestapi:\n  name: no\n", "postgres-1", "nocodb-cluster"},
		"quoted":            {"scope: \"a b\"\nname: 'postgres-1'\n", "postgres-1", ""},
		"comments":          {"name: postgres-1 # us\n#scope: x\nscope: main   # all\n", "postgres-1", "main"},
		"last one counts":   {"name: a\nname: b\n", "b", ""},
		"line ends of DOS":  {"name: a\r\nscope: b\r\n", "a", "b"},
		"indented":          {"x:\n  name: a\n", "", ""},
		"no value":          {"name:\nscope: \n", "", ""},
		"hostile":           {"name: a;b\nscope: a/../b\n", "", ""},
		"no space":          {"name:a\n", "", ""},
		"another key":       {"names: a\nmyscope: b\n", "", ""},
		"without line end":  {"name: a", "a", ""},
		"quoted key":        {"\"name\": a\n", "a", ""},
		"block is no name":  {"name: |\n  a\n", "", ""},
		"empty":             {"", "", ""},
		"over two lines":    {"name: \"a\nb\"\n", "", ""},
		"value with spaces": {"name: a b\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name, scope := parseIdentity([]byte(c.in)); name != c.name || scope != c.scope {
				t.Errorf("got %q, %q, want %q, %q", name, scope, c.name, c.scope)
			}
		})
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add([]byte("scope: nocodb-cluster\nname: 'postgres-1' # x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range []func() string{
			func() string { n, _ := parseIdentity(b); return n }, func() string { _, s := parseIdentity(b); return s },
		} {
			if got := s(); got != "" && !wholeName.MatchString(got) {
				t.Errorf("got %q", got)
			}
		}
	})
}

// checkFor returns a ConfigCheck of a file with this text, whose validator is r.
func checkFor(t *testing.T, text string, r *runner) (*ConfigCheck, string) {
	t.Helper()
	dir := t.TempDir()
	file, program := filepath.Join(dir, "patroni.yml"), filepath.Join(dir, "patroni")
	for name, text := range map[string]string{file: text, program: ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := NewConfigCheck(CheckConfig{File: file, Patroni: program, Env: []string{"PATRONI_X=y"}}, CheckDeps{
		Runner: r, User: func(context.Context) (string, error) { return "postgres", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, file
}

func TestConfigCheck(t *testing.T) {
	r := &runner{do: func() {}}
	c, file := checkFor(t, "name: node-1\nscope: demo\n", r)
	id, err := FileID(file)
	if err != nil {
		t.Fatal(err)
	}
	want := probe.ConfigCheck{File: file, FileID: id, Valid: true, Name: "node-1", Scope: "demo"}
	got, err := c.Probe(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	command := service.Command{
		Path: c.config.Patroni, Args: []string{"--validate-config", "--ignore-listen-port", file},
		User: "postgres", Env: []string{"PATRONI_X=y"}, Limit: maxOutput,
	}
	if diff := cmp.Diff(command, r.got); diff != "" {
		t.Error(diff)
	}
	r.do = nil
	r.out = captured(t, "mix-4.0.7")
	got, err = c.Probe(t.Context())
	if err != nil || got.Valid || len(got.Problems) != 1 || len(got.Unreachable) != 1 {
		t.Errorf("broken: got %+v, %v", got, err)
	}
	r.out = captured(t, "unreach-4.0.7")
	if got, err = c.Probe(t.Context()); err != nil || !got.Valid || len(got.Unreachable) != 2 {
		t.Errorf("etcd is down: got %+v, %v", got, err)
	}
	if seen, err := c.FileID(t.Context()); seen != id || err != nil {
		t.Errorf("identity: got %q, %v", seen, err)
	}
	probetest.Run(t, c)
	r.hang = true
	if _, err := probetest.RunHanging(t, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: got %v", err)
	}
}

func TestConfigCheck_ChangedMeanwhile(t *testing.T) {
	r := &runner{}
	c, file := checkFor(t, "name: a\n", r)
	r.do = func() {
		if err := os.WriteFile(file, []byte("name: a\nscope: half-writ"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if got, err := c.Probe(t.Context()); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}

func TestConfigCheck_NoFile(t *testing.T) {
	for name, put := range map[string]func(file string) error{
		"absent": os.Remove,
		"pipe":   func(file string) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			c, file := checkFor(t, "", &runner{err: errors.New("must not run")})
			if err := put(file); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if got, err := c.Probe(ctx); err != nil || got.Valid || len(got.Problems) != 1 || got.FileID == "" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// stuck is a validator that waits for Patroni's own API for good, unless it is told that it listens elsewhere.
type stuck struct{ runs []service.Command }

func (s *stuck) Run(ctx context.Context, c service.Command) (service.Output, error) {
	s.runs = append(s.runs, c)
	if !slices.Contains(c.Env, apiElsewhere) {
		<-ctx.Done()
		return service.Output{}, ctx.Err()
	}
	return service.Output{}, nil
}

func TestConfigCheck_PatroniHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := checkFor(t, "name: a\nscope: b\n", &runner{})
		r := &stuck{}
		c.deps.Runner = r
		began := time.Now()
		got, err := c.Probe(t.Context())
		if err != nil || !got.Valid || len(r.runs) != 2 {
			t.Errorf("got %+v, %v after %d runs", got, err, len(r.runs))
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestConfigCheck_CannotRun(t *testing.T) {
	c, _ := checkFor(t, "", &runner{err: service.ErrPermission})
	if _, err := c.Probe(t.Context()); !errors.Is(err, service.ErrPermission) {
		t.Errorf("got %v", err)
	}
	c.config.Patroni = "/nowhere/patroni"
	if _, err := c.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "/nowhere/patroni") {
		t.Errorf("got %v", err)
	}
}

func TestFileID(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id := func(path string) string {
		t.Helper()
		s, err := FileID(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	file := filepath.Join(dir, "a.yml")
	if got := id(file); got != "absent" {
		t.Errorf("got %q", got)
	}
	write("a.yml", "name: a\n")
	first := id(file)
	if again := id(file); again != first {
		t.Errorf("%q changed to %q by itself", first, again)
	}
	whole := id(dir)
	write("notes.txt", "x")
	if got := id(dir); got != whole {
		t.Errorf("a file that Patroni does not read changed %q to %q", whole, got)
	}
	write("b.yaml", "scope: b\nname: b\n")
	if got := id(dir); got == whole {
		t.Error("a second file changed nothing")
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "c.yml"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := readConfig(probe.Tree{}, dir)
	if name, scope := parseIdentity(text); name != "b" || scope != "b" || err != nil {
		t.Errorf("directory: got %q, %q, %v", name, scope, err)
	}
	write("a.yml", "name: aa\n")
	if got := id(file); got == first {
		t.Error("a longer text changed nothing")
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	for i := range maxConfigFiles {
		write(fmt.Sprintf("n%d.yml", i), "")
	}
	if got, err := FileID(dir); !errors.Is(err, errTooMany) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCheckConfig_Validate(t *testing.T) {
	for _, c := range []CheckConfig{
		{}, {File: "patroni.yml"}, {File: "/a", Patroni: "patroni"}, {File: "/a", Timeout: -1}, {File: "/a", Env: []string{"hunter2"}}, {File: "/a", Env: []string{"=hunter2"}},
	} {
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
