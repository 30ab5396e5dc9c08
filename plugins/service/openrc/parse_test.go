package openrc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

func itoa(n int) string { return strconv.Itoa(n) }

// statLine is a line as the kernel writes it, with what does not count set to 0.
func statLine(pid int, name string, state rune, parent int, start uint64) string {
	return fmt.Sprintf("%d (%s) %c %d%s %d%s\n", pid, name, state, parent, strings.Repeat(" 0", 17), start, strings.Repeat(" 0", 30))
}

func TestParseDaemon(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       daemon
	}{
		{"empty", "", daemon{}},
		{"Alpine's etcd", "exec=/usr/bin/etcd\nargv_0=/usr/bin/etcd\nargv_1=--config-file\nargv_2=/etc/etcd/conf.yml\npidfile=/run/etcd.pid\n", daemon{
			exec: "/usr/bin/etcd", args: []string{"/usr/bin/etcd", "--config-file", "/etc/etcd/conf.yml"}, pidfile: "/run/etcd.pid",
		}},
		{"only a program", "exec=/bin/x\npidfile=\n", daemon{exec: "/bin/x", args: []string{"/bin/x"}}},
		{"an equals sign in an argument", "exec=/bin/x\nargv_0=/bin/x\nargv_1=--a=b=c\n", daemon{exec: "/bin/x", args: []string{"/bin/x", "--a=b=c"}}},
		{"half a file", "exec=/bin/x\nargv_0", daemon{exec: "/bin/x", args: []string{"/bin/x"}}},
		{"nonsense", "\x00\nname\n=\nfuture=1\n", daemon{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, parseDaemon([]byte(tc.text)), cmp.AllowUnexported(daemon{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParsePid(t *testing.T) {
	for text, want := range map[string]int{
		"123\n": 123, "  7": 7, "42 and more": 42, "": 0, "\n": 0, "0": 0, "1": 0, "-5": 0, "x": 0, "99999999999": 0, "12x": 12,
	} {
		if got := parsePid([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestParseOptions(t *testing.T) {
	got := parseOptions(map[string]string{
		"child_pid": "77", "start_count": "3", "respawn_max": "10", "respawn_delay": "1500ms", "respawn_period": "60", "chroot": "/jail",
	})
	want := options{supervised: true, child: 77, starts: 3, limit: 10, delay: 1500 * time.Millisecond, span: time.Minute, chroot: "/jail"}
	if got != want {
		t.Errorf("got %+v", got)
	}
	if got := parseOptions(map[string]string{"respawn_max": "many", "respawn_delay": "-3", "start_count": "-1"}); got != (options{supervised: true}) {
		t.Errorf("got %+v", got)
	}
}

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       process
		ok         bool
	}{
		{"plain", statLine(7, "etcd", 'S', 1, 4242), process{pid: 7, parent: 1, start: 4242, name: "etcd"}, true},
		{"a name that looks like the end", statLine(7, ") Z 5 (", 'R', 3, 1), process{pid: 7, parent: 3, start: 1, name: ") Z 5 ("}, true},
		{"frozen", statLine(7, "etcd", 'T', 1, 9), process{pid: 7, parent: 1, start: 9, name: "etcd"}, true},
		{"zombie", statLine(7, "etcd", 'Z', 1, 9), process{}, false},
		{"dead", statLine(7, "etcd", 'X', 1, 9), process{}, false},
		{"cut", "7 (etcd) S 1 0 0", process{}, false},
		{"empty", "", process{}, false},
		{"no name", "7 S 1", process{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := parseStat([]byte(tc.text)); got != tc.want || ok != tc.ok {
				t.Errorf("got %+v, %v", got, ok)
			}
		})
	}
	own, err := lookup("/proc", os.Getpid())
	if err != nil || own.parent != os.Getppid() {
		t.Errorf("this process: got %+v, %v", own, err)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"etcd", "net.eth0", "postgresql-17", "_x", "a+b", "0"} {
		if err := checkName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-h", ".", "..", "a/b", "a b", "a\n", "functions.sh", "a;b", "ä", "a@b", strings.Repeat("a", 256)} {
		if checkName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// seeds adds the captured files whose name has the given part.
func seeds(f *testing.F, part string) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatal(names, err)
	}
	for _, name := range names {
		ar, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if strings.Contains(file.Name, part) {
				f.Add(file.Data)
			}
		}
	}
}

func FuzzParseDaemon(f *testing.F) {
	seeds(f, "daemons/")
	f.Fuzz(func(t *testing.T, b []byte) {
		d := parseDaemon(b)
		if d.exec != "" && len(d.args) == 0 {
			t.Errorf("a program without arguments: %+v", d)
		}
		for _, s := range append([]string{d.exec, d.pidfile}, d.args...) {
			if strings.Contains(s, "\n") {
				t.Errorf("%q is more than a line", s)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	seeds(f, "/stat")
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseStat(b); ok && p.pid <= 0 || !ok && p != (process{}) {
			t.Errorf("got %+v, %v", p, ok)
		}
	})
}

func FuzzParseOptions(f *testing.F) {
	f.Add("7259", "2", "3", "60")
	f.Add("", "many", "-1", "1h")
	f.Fuzz(func(t *testing.T, child, limit, delay, span string) {
		o := parseOptions(map[string]string{keyChild: child, keyLimit: limit, keyDelay: delay, keySpan: span})
		if o.child < 0 || o.child == 1 || o.limit < 0 || o.delay < 0 || o.span < 0 {
			t.Errorf("got %+v", o)
		}
	})
}
