//go:build e2e

package incus

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// The e2e tests make instances of a real Incus, named pgpatrol-e2e-PID-N, whose first process is this very program: compile
// it static. They want the daemon's socket (PGPATROL_E2E_INCUS=/var/lib/incus/unix.socket), the incus command, a default
// profile with a root disk, and root on the daemon's own machine, to kill and freeze first processes from outside:
//
//	PGPATROL_E2E_INCUS=/var/lib/incus/unix.socket CGO_ENABLED=0 go test -tags e2e -run TestE2E ./plugins/service/incus
//
// It takes three minutes. Seen to pass with Incus 6.0.4.
func TestMain(m *testing.M) {
	if arg := os.Getenv("PGPATROL_E2E_SERVICE"); arg != "" {
		os.Exit(serve(arg))
	}
	socket = os.Getenv("PGPATROL_E2E_INCUS")
	if socket == "" || os.Geteuid() != 0 {
		fmt.Println("set PGPATROL_E2E_INCUS to the daemon's socket, as root on the daemon's machine")
		os.Exit(1)
	}
	if err := importImage(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		sweep()
		os.Exit(1)
	}()
	code := m.Run()
	sweep()
	os.Exit(code)
}

// sweep removes what is left of these tests: their image, and after an interrupt their instances.
func sweep() {
	for n := range made.Load() {
		_, _ = incus("delete", "--force", fmt.Sprintf("pgpatrol-e2e-%d-%d", os.Getpid(), n+1))
	}
	_, _ = incus("image", "delete", image)
}

var (
	socket string
	image  = fmt.Sprintf("pgpatrol-e2e-%d", os.Getpid())
	made   atomic.Int64
)

// ready is what the service calls itself once it hears signals. Before, as process 1, it is deaf.
const ready = "ready"

// rtmin3 is what LXC asks a first process to end with if it finds that signal blocked, as systemd has it; otherwise SIGPWR.
const rtmin3 = syscall.Signal(37)

// serve is the first process of an instance.
func serve(arg string) int {
	var s servicetest.Service
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return 99
	}
	asked := make(chan os.Signal, 10)
	signal.Notify(asked, syscall.SIGPWR, rtmin3)
	if err := os.WriteFile("/proc/self/comm", []byte(ready), 0); err != nil {
		return 98
	}
	for range asked {
		if !s.Deaf {
			break
		}
	}
	time.Sleep(s.StopTakes)
	return s.ExitOnStop
}

// incus runs the incus command, as a person would.
func incus(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := service.Runner{}.Run(ctx, service.Command{Path: "incus", Args: args, Env: []string{"INCUS_SOCKET=" + socket}})
	if err == nil && out.ExitCode != 0 {
		err = fmt.Errorf("exit code %d, %s", out.ExitCode, out.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("incus %v: %w", args, err)
	}
	return strings.TrimSpace(string(out.Stdout)), nil
}

// do is incus that fails t.
func do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := incus(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// importImage makes an image of this program and nothing else.
func importImage() error {
	dir, err := os.MkdirTemp("", "pgpatrol-e2e-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "image.tar")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	for _, e := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"metadata.yaml", 0o644, []byte("architecture: x86_64\ncreation_date: 1\n")},
		{"rootfs/", 0o755, nil},
		{"rootfs/dev/", 0o755, nil},
		{"rootfs/proc/", 0o755, nil},
		{"rootfs/sys/", 0o755, nil},
		{"rootfs/sbin/", 0o755, nil},
		{"rootfs/sbin/init", 0o755, self},
	} {
		kind := byte(tar.TypeReg)
		if e.data == nil {
			kind = tar.TypeDir
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: kind, Name: e.name, Mode: e.mode, Size: int64(len(e.data))}); err != nil {
			return err
		}
		if _, err := w.Write(e.data); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		return err
	}
	_, err = incus("image", "import", path, "--alias", image)
	return err
}

// daemon is the machine with the real daemon.
type daemon struct{ gate *servicetest.Gate }

func (d daemon) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	name := fmt.Sprintf("pgpatrol-e2e-%d-%d", os.Getpid(), made.Add(1))
	arg, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"init", image, name, "-c", "environment.PGPATROL_E2E_SERVICE=" + string(arg), "-c", "security.privileged=true"}
	if s.Restart != "" && s.Restart != "no" {
		args = append(args, "-c", "boot.autorestart=true")
	}
	if s.StopLimit > 0 {
		args = append(args, "-c", fmt.Sprintf("boot.host_shutdown_timeout=%d", int(s.StopLimit.Seconds())))
	}
	do(t, args...)
	t.Cleanup(func() { do(t, "delete", "--force", name) })
	return name
}

func (d daemon) Operate(t testing.TB, verb servicetest.Verb, unit string) {
	t.Helper()
	if verb == servicetest.Stop || verb == servicetest.BeginRestart {
		mainPID(t, unit)
	}
	switch verb {
	case servicetest.Start, servicetest.Stop:
		do(t, string(verb), unit)
	case servicetest.Disable:
		do(t, "config", "set", unit, "boot.autostart=false")
	case servicetest.BeginRestart:
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := incus("restart", unit); err != nil {
				t.Error(err)
			}
		}()
		t.Cleanup(func() { <-done })
	default:
		t.Fatalf("no %s in Incus", verb)
	}
}

func (d daemon) Crash(t testing.TB, unit string) { signalMain(t, unit, syscall.SIGKILL) }

func (d daemon) Freeze(t testing.TB, unit string) { signalMain(t, unit, syscall.SIGSTOP) }

func signalMain(t testing.TB, unit string, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(mainPID(t, unit), sig); err != nil {
		t.Fatal(err)
	}
}

// mainPID returns the pid of an instance's first process here, once it is ready.
func mainPID(t testing.TB, unit string) int {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var state struct{ PID int }
		// While it starts the daemon may answer with an error, "Invalid PID".
		out, err := incus("query", "/1.0/instances/"+unit+"/state")
		if err == nil {
			err = json.Unmarshal([]byte(out), &state)
		}
		if err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
		comm, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(state.PID), "comm"))
		if string(comm) == ready+"\n" {
			return state.PID
		}
		if time.Now().After(deadline) {
			t.Fatalf("pid %d of the instance is %q here: these tests have to run on the daemon's own machine", state.PID, comm)
		}
	}
}

func (d daemon) Children(testing.TB, string) []int { return nil }

func (d daemon) Disconnect(t testing.TB, hang bool) func() {
	if hang {
		return d.gate.Hang()
	}
	d.gate.Close()
	return func() { d.gate.Open(t) }
}

const (
	noCause = "Incus does not tell the death of an instance's first process from a shutdown from inside: unexplained, and left alone"
	noKill  = "to Incus a stop by force is a stop by a person; it restarts instead"
	noReady = "Incus does not wait until an instance says that it is up"
)

var lacks = map[string]string{
	"policies": "an instance has no delay and no limit to set, and nothing survives its first process",
	"crashed":  noCause,
	"stopped by force, never a crash to a new agent": "the tests' operator waits without end for an instance that does not shut down",
	"stopped by operator, told to a new agent":       "who ended an instance stands in the events alone: unexplained to an agent that was not there, and left alone",
	"crashed, told to a new agent":                   noCause,
	"crash explained":                                noCause,
	"restarts counted":                               "Incus does not count",
	"masked":                                         "Incus knows no mask",
	"start joins a start":                            noReady,
	"deadline during start":                          noReady,
	"kill main":                                      noKill,
	"kill main only":                                 noKill,
	"kill main, changed":                             noKill,
	"kill main, not running":                         noKill,
	"kill main, permission":                          noKill,
}

// attend watches as the agent does for as long as it runs: by whom an instance was ended is in the events alone.
func attend(t *testing.T, m *Manager) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	begun, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = m.Watch(ctx, []string{"any"}, func() {
				select {
				case begun <- struct{}{}:
				default:
				}
			})
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	<-begun
}

// TestE2E_Conformance runs behind a proxy that refuses whatever the package comment does not name.
func TestE2E_Conformance(t *testing.T) {
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		m, g := behind(t, socket, nil)
		attend(t, m)
		reader, _ := behind(t, socket, func(r *http.Request) bool { return r.Method != http.MethodGet })
		t.Cleanup(func() {
			if refused := g.Refused(); len(refused) > 0 {
				t.Errorf("calls that are not documented: %q", refused)
			}
		})
		return servicetest.Harness{Manager: m, Unprivileged: reader, Host: daemon{g}, Lacks: lacks, Again: func(t *testing.T) service.Manager { return through(t, g) }}
	})
}
