package builtin

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/incus"
)

// incusOf returns the manager of a daemon with one instance that runs, postgres-1, whose first process is what pid says.
func incusOf(t *testing.T, pid *atomic.Int64) *incus.Manager {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		metadata := `{}`
		switch r.URL.Path {
		case "/1.0/instances/postgres-1":
			metadata = `{"name":"postgres-1","status":"Running","last_used_at":"2026-04-08T00:00:00Z","expanded_config":{"volatile.last_state.power":"RUNNING"}}`
		case "/1.0/instances/postgres-1/state":
			metadata = fmt.Sprintf(`{"status":"Running","pid":%d}`, pid.Load())
		}
		_, _ = w.Write([]byte(`{"type":"sync","metadata":` + metadata + `}`))
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	m, err := Manager("incus", ManagerConfig{IncusSocket: socket, IncusProject: "default", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return m.(*incus.Manager)
}

// TestRoom: a Patroni inside an instance is looked at below the root of the instance's first process, whichever that is, and
// never below that of another process.
func TestRoom(t *testing.T) {
	const dataDir = "/var/lib/postgresql/17/main"
	var pid atomic.Int64
	pid.Store(100)
	daemon := incusOf(t, &pid)
	probes, err := Patroni(probe.PatroniTarget{
		API: "http://192.0.2.1:8008", DataDir: dataDir, ConfigFile: "/etc/patroni.yml", Unit: "postgres-1/systemd/patroni.service",
	}, daemon)
	if err != nil {
		t.Fatal(err)
	}
	proc := t.TempDir()
	probes.Files.(moving[probe.Postgres]).r.proc = proc
	for n, environ := range map[int]string{100: "container=lxc\x00", 200: "TERM=linux\x00container=lxc\x00", 300: "HOME=/root\x00notcontainer=lxc\x00"} {
		root := filepath.Join(proc, fmt.Sprint(n), "root")
		err := errors.Join(
			os.MkdirAll(filepath.Join(root, dataDir), 0o755),
			os.WriteFile(filepath.Join(proc, fmt.Sprint(n), "environ"), []byte(environ), 0o600),
			os.WriteFile(filepath.Join(root, dataDir, "PG_VERSION"), []byte("17\n"), 0o600),
			os.MkdirAll(filepath.Join(root, "etc"), 0o755),
			os.WriteFile(filepath.Join(root, "etc/patroni.yml"), []byte("name: postgres-1\n"), 0o600),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := probes.ConfigID(); !errors.Is(err, service.ErrUnavailable) {
		t.Errorf("configuration before the instance was seen: %v", err)
	}
	ids := map[string]bool{}
	for _, n := range []int64{100, 200} {
		pid.Store(n)
		v, err := probes.Files.Probe(t.Context())
		if err != nil || v.DataDir != dataDir || v.DataDirID == "" {
			t.Errorf("got %+v, %v", v, err)
		}
		config, err := probes.ConfigID()
		if err != nil {
			t.Error(err)
		}
		ids[v.DataDirID], ids[config] = true, true
	}
	if len(ids) != 4 {
		t.Errorf("another run of the instance is looked at as the one before: %v", ids)
	}
	for n, want := range map[int64]string{300: "no instance", 400: "no such file"} {
		pid.Store(n)
		if v, err := probes.Files.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("process %d: got %+v, %v", n, v, err)
		}
	}
}

func TestRoom_NamesUnitsAsTheManagerDoes(t *testing.T) {
	r := &room{prefix: "postgres-1/systemd/"}
	unit, none := "patroni.service", ""
	r.rename(&unit)
	r.rename(&none)
	if unit != "postgres-1/systemd/patroni.service" || none != "" {
		t.Errorf("got %q, %q", unit, none)
	}
}
