//go:build e2e

package forward

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// TestReal_Postgres asks a real server, without and with TLS: it must not log a line for a hundred questions. It needs
// PostgreSQL's programs in PATH and is skipped without them.
func TestReal_Postgres(t *testing.T) {
	for _, ssl := range []string{"off", "on"} {
		t.Run("ssl "+ssl, func(t *testing.T) {
			addr, logFile, cmd := startPostgres(t, ssl)
			h := hop(t, probe.ProtocolPostgres, addr)
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				if got, err := h.Probe(t.Context()); err == nil && got.Outcome == probe.OutcomeAnswered && strings.Contains(read(t, logFile), "ready to accept") {
					break
				} else if time.Now().After(end) {
					t.Fatal(got, err, read(t, logFile))
				}
			}
			before := read(t, logFile)
			for range 100 {
				if got, err := h.Probe(t.Context()); err != nil || got != (probe.Hop{Outcome: probe.OutcomeAnswered}) {
					t.Fatal(got, err)
				}
			}
			time.Sleep(500 * time.Millisecond)
			if after := read(t, logFile); after != before {
				t.Errorf("the server logged:\n%s", strings.TrimPrefix(after, before))
			}
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
			if got, err := h.Probe(t.Context()); err != nil || got.Outcome != probe.OutcomeTimeout {
				t.Errorf("stopped: got %+v, %v", got, err)
			}
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func startPostgres(t *testing.T, ssl string) (addr, logFile string, cmd *exec.Cmd) {
	t.Helper()
	for _, program := range []string{"initdb", "postgres", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program + " in PATH")
		}
	}
	dir, err := os.MkdirTemp("/tmp", "hop")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // PostgreSQL refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	run := func(program string, args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), program, args...)
		c.SysProcAttr, c.Dir = as, dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-N", "-A", "trust")
	run("openssl", "req", "-new", "-x509", "-days", "1", "-nodes", "-subj", "/CN=x", "-out", data+"/server.crt", "-keyout", data+"/server.key")
	run("chmod", "600", data+"/server.key")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_ = l.Close()
	logFile = filepath.Join(dir, "log")
	out, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd = exec.CommandContext(t.Context(), "postgres", "-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "ssl="+ssl)
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = as, dir, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		_ = cmd.Wait()
		_ = out.Close()
	})
	return addr, logFile, cmd
}
