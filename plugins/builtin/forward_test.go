package builtin_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/pgpatrol/pgpatrol/plugins/builtin"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd/etcdtest"
)

// ends is what both probes of a forwarder see, in short.
type ends struct{ Through, Past string }

// Ends of the faults of FAULTS.md L25 and F71 to F73.
var (
	well          = ends{"answered", "answered"}
	hung          = ends{"timeout", "answered"}
	forwarderDead = ends{"refused", "answered"}
	backendDead   = ends{"broken", "refused"}
)

// TestForwarder_Faults breaks a forwarder, and what is behind it, for every protocol: with socat if there is one, and
// with a forwarder that does the same.
func TestForwarder_Faults(t *testing.T) {
	for _, kind := range []string{"socat", "go"} {
		for _, p := range probe.Protocols() {
			t.Run(kind+"/"+string(p), func(t *testing.T) {
				b := serve(t, p)
				f := start(t, kind, b.addr)
				probes, err := builtin.Forwarder(probe.ForwarderTarget{Listen: f.addr, To: b.addr, Protocol: p})
				if err != nil {
					t.Fatal(err)
				}
				await(t, probes, well)
				f.signal(t, syscall.SIGSTOP)
				await(t, probes, seen(p, hung))
				f.signal(t, syscall.SIGCONT)
				await(t, probes, well)
				b.kill()
				await(t, probes, seen(p, backendDead))
				f.kill(t)
				await(t, probes, ends{"refused", "refused"})
			})
			t.Run(kind+"/"+string(p)+"/dead", func(t *testing.T) {
				b := serve(t, p)
				f := start(t, kind, b.addr)
				probes, err := builtin.Forwarder(probe.ForwarderTarget{Listen: f.addr, To: b.addr, Protocol: p})
				if err != nil {
					t.Fatal(err)
				}
				await(t, probes, well)
				f.kill(t)
				await(t, probes, forwarderDead)
			})
		}
	}
}

// seen is what a protocol shows of a fault. A connect alone shows only that somebody listens.
func seen(p probe.Protocol, e ends) ends {
	if p == probe.ProtocolTCP && e.Through != "refused" {
		e.Through = "answered"
	}
	return e
}

// TestForwarder_Identity: a forwarder that leads to another member of the cluster answers as well as the right one.
func TestForwarder_Identity(t *testing.T) {
	another := etcdtest.Serve(t, etcdtest.Config{Status: func() (*etcdserverpb.StatusResponse, error) {
		s := etcdtest.Healthy()
		s.Header.MemberId = 0xa2
		return s, nil
	}})
	right := serve(t, probe.ProtocolEtcd)
	f := start(t, "go", another.Addr)
	probes, err := builtin.Forwarder(probe.ForwarderTarget{Listen: f.addr, To: right.addr, Protocol: probe.ProtocolEtcd})
	if err != nil {
		t.Fatal(err)
	}
	await(t, probes, well)
	for want, p := range map[string]probe.Prober[probe.Hop]{"c1/a2": probes.Through, "c1/a1": probes.Past} {
		if got, err := p.Probe(t.Context()); err != nil || got != (probe.Hop{Outcome: probe.OutcomeAnswered, Identity: want}) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func TestForwarder_Refused(t *testing.T) {
	for _, p := range append(probe.Protocols(), "udp") {
		for _, target := range []probe.ForwarderTarget{{Listen: "x", To: "x:1", Protocol: p}, {Listen: "x:1", To: "x", Protocol: p}} {
			if got, err := builtin.Forwarder(target); err == nil || got.Through != nil || got.Past != nil {
				t.Errorf("%+v: got %+v, %v", target, got, err)
			}
		}
	}
}

func await(t *testing.T, probes probe.ForwarderProbes, want ends) {
	t.Helper()
	var got ends
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = look(t, probes); got == want {
			return
		}
	}
	t.Fatal(cmp.Diff(want, got))
}

// look asks both ends. What is silent for half a second on this machine is taken for hung.
func look(t *testing.T, probes probe.ForwarderProbes) ends {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var e ends
	var wg sync.WaitGroup
	for p, to := range map[probe.Prober[probe.Hop]]*string{probes.Through: &e.Through, probes.Past: &e.Past} {
		wg.Go(func() {
			hop, err := p.Probe(ctx)
			if *to = string(hop.Outcome); err != nil {
				*to = err.Error()
			}
		})
	}
	wg.Wait()
	return e
}

// backend is what a forwarder leads to.
type backend struct {
	addr string
	kill func()
}

func serve(t *testing.T, p probe.Protocol) backend {
	t.Helper()
	switch p {
	case probe.ProtocolEtcd, probe.ProtocolEtcdPeer:
		m := etcdtest.Serve(t, etcdtest.Config{})
		return backend{m.Addr, m.Close}
	case probe.ProtocolHTTP:
		s := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(s.Close)
		return backend{s.Listener.Addr().String(), s.Close}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = l.Close() }
	t.Cleanup(kill)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() // the client hangs up first
				b := make([]byte, 8)
				if _, err := io.ReadFull(c, b); err == nil {
					_, _ = io.WriteString(c, "N")
					_, _ = c.Read(b)
				}
			}()
		}
	}()
	return backend{l.Addr().String(), kill}
}

// forwarder is a process that takes connections at an address and leads them on.
type forwarder struct {
	addr    string
	process *os.Process
}

// start starts a forwarder of its own. The port is chosen before, and could be lost to another test meanwhile: the test
// would fail then, not pass.
func start(t *testing.T, kind, to string) forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	path, args, env := os.Args[0], []string{"forwarder"}, append(os.Environ(), "TEST_FORWARD="+addr+" "+to)
	if kind == "socat" {
		path = "/usr/bin/socat"
		if _, err := os.Stat(path); err != nil {
			t.Skip("no socat at /usr/bin")
		}
		_, port, _ := net.SplitHostPort(addr)
		args = []string{"socat", "TCP-LISTEN:" + port + ",bind=127.0.0.1,fork,reuseaddr", "TCP:" + to}
	}
	// A group of its own, for socat's children: one that serves a connection outlives its parent.
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: env, Files: []*os.File{nil, nil, nil}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		t.Fatal(err)
	}
	f := forwarder{addr: addr, process: p}
	t.Cleanup(func() { f.kill(t) })
	return f
}

func (f forwarder) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-f.process.Pid, s); err != nil && s != syscall.SIGKILL {
		t.Error(err)
	}
}

func (f forwarder) kill(t *testing.T) {
	t.Helper()
	f.signal(t, syscall.SIGKILL)
	_, _ = f.process.Wait() // twice at times
}

// TestMain is the forwarder when it is started as one.
func TestMain(m *testing.M) {
	if addr, to, found := strings.Cut(os.Getenv("TEST_FORWARD"), " "); found {
		forward(addr, to)
		return
	}
	os.Exit(m.Run())
}

// forward does as socat does with fork: it takes every connection, connects for it, and hangs up if that fails.
func forward(addr, to string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		panic(err)
	}
	for {
		in, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer in.Close() // both ways have ended
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer out.Close() // both ways have ended
			go func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(in, out)
		}()
	}
}
