package stack

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// The first user's etcd, one member on each of three machines that have nothing in common:
//
//	nas   the container etcd-nas with restart=always. The agent is a container too (nas) and speaks to the engine
//	      through a gate (nas-docker), whose socket is all that it gets.
//	mbp   the container etcd-mbp, on mbp's loopback only. Two socat units of systemd, which stands for launchd, carry
//	      mbp's address to it. The engine is in a virtual machine: the gate mbp-docker stands for it.
//	jp1   a machine that OpenRC runs, etcd as Alpine starts it: in the background, without a supervisor.
//
// The container engine is the lab's own engine. It has no address: the agents get it through the gates, and the lab's own
// witness of it through its socket.
const (
	EtcdNAS   = "etcd-nas"
	EtcdMBP   = "etcd-mbp"
	NAS       = "nas"
	MBP       = "mbp"
	JP1       = "jp1"
	NASDocker = "nas-docker"
	MBPDocker = "mbp-docker"
	TheEngine = "engine"
)

// The units on mbp and jp1.
const (
	Socat     = "etcd-socat.service"
	SocatPeer = "etcd-socat-peer.service"
	EtcdJP1   = "etcd"           // of OpenRC
	VM        = "lab-vm.service" // stands for the virtual machine on mbp, where a scenario has set it up
)

// EtcdQuota is the size in bytes at which a member of the homelab refuses writes: one that can be filled in a moment.
const EtcdQuota = 32 << 20

const (
	engineSocket = "/var/run/docker.sock"
	gatePath     = "/usr/local/bin/lab-gate"
	gateDir      = "/opt/engine" // in a gate and in the agent's container: the gate's socket is there
	gateSocket   = gateDir + "/docker.sock"

	// GateRefuses is the file in a gate with orders that it is told to refuse.
	GateRefuses = "/etc/lab-gate.refuse"
	// SocatAddress is the file on mbp with the address that the forwarders listen on.
	SocatAddress = "/etc/etcd-socat.env"
)

//go:embed files/etcd.openrc
var etcdOpenRC string

//go:embed files/restore-mbp.sh
var restoreMBP string

//go:embed files/restore-jp1.sh
var restoreJP1 string

func (s *Stack) homelab() []Node {
	return []Node{
		{Name: EtcdNAS, Kind: Etcd, Member: "etcd-nas", Addr: s.host(21)},
		{Name: EtcdMBP, Kind: Etcd, Member: "etcd-mbp", Addr: s.host(22)},
		{Name: JP1, Kind: Etcd, Init: OpenRC, Member: "etcd-jp1", Addr: s.host(23)},
		{Name: MBP, Kind: Machine, Init: Systemd, Addr: s.host(22)},
		{Name: NAS, Kind: Agent, Addr: s.host(25)},
		{Name: NASDocker, Kind: Gate},
		{Name: MBPDocker, Kind: Gate},
		{Name: TheEngine, Kind: Engine, Addr: s.host(26)},
	}
}

// Must returns the node of that name in a stack that has one.
func (s *Stack) Must(name string) Node {
	n, err := s.Node(name)
	if err != nil {
		panic(err) // a name that is written in the lab's own code
	}
	return n
}

// startHomelab starts the members of etcd and what stands before them.
func (s *Stack) startHomelab(ctx context.Context, tags images, extra []string) error {
	bin, err := build(ctx, "./test/lab/gate/cmd", "lab-gate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(bin)) }()
	for _, n := range s.Of(Gate) {
		if _, err := s.docker.Output(ctx, "volume", "create", "--label", s.label(), s.Container(n)); err != nil {
			return fmt.Errorf("make volume of %s: %w", n.Name, err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range s.Of(Gate) {
		g.Go(func() error { return s.startGate(gctx, n, tags.node, bin) })
	}
	g.Go(func() error {
		return s.startEtcd(gctx, s.Must(EtcdNAS), tags.node, "0.0.0.0", s.netFlags(s.Must(EtcdNAS))...)
	})
	g.Go(func() error { return s.startMBP(gctx, tags.node, extra) })
	g.Go(func() error { return s.startJP1(gctx, tags.openrc, extra) })
	g.Go(func() error { return s.startEngine(gctx, tags.node) })
	return g.Wait()
}

// startGate starts the proxy that lets an agent look after one container of the engine.
func (s *Stack) startGate(ctx context.Context, n Node, tag, bin string) error {
	member := map[string]string{NASDocker: EtcdNAS, MBPDocker: EtcdMBP}[n.Name]
	args := append(s.runFlags(n), "--network", "none", "--stop-signal", "SIGTERM", "-v", engineSocket+":"+engineSocket,
		"-v", s.Container(n)+":"+gateDir, tag, gatePath, "-engine", engineSocket, "-listen", gateSocket, "-refuse", GateRefuses,
		// The second name is one that no container can have: an agent tries with it what it may do.
		"-containers", s.Container(s.Must(member))+",_pgpatrol")
	args = append([]string{"create"}, args[2:]...) // in place of run -d
	if _, err := s.docker.Output(ctx, args...); err != nil {
		return fmt.Errorf("make %s: %w", n.Name, err)
	}
	if err := s.copyTo(ctx, n, bin, gatePath); err != nil {
		return err
	}
	if _, err := s.docker.Output(ctx, "start", s.Container(n)); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return nil
}

// startEngine starts the container that sees every process of the engine's machine.
func (s *Stack) startEngine(ctx context.Context, tag string) error {
	n := s.Must(TheEngine)
	args := append(append(s.runFlags(n), s.netFlags(n)...), "--pid", "host", "-v", engineSocket+":"+engineSocket, tag, "sleep", "infinity")
	if _, err := s.docker.Output(ctx, args...); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return nil
}

// startMBP starts the forwarders, and the member behind them.
func (s *Stack) startMBP(ctx context.Context, tag string, extra []string) error {
	n := s.Must(MBP)
	if err := s.startSystemd(ctx, n, tag, extra, "-v", s.Container(s.Must(MBPDocker))+":"+gateDir); err != nil {
		return err
	}
	if err := s.startEtcd(ctx, s.Must(EtcdMBP), tag, "127.0.0.1", "--network", "container:"+s.Container(n)); err != nil {
		return err
	}
	address := []byte("ADDRESS=" + n.Addr.String() + "\n")
	files := []file{
		{Path: SocatAddress, Mode: 0o644, Data: address},
		{Path: "/etc/lab/etcd-socat.env", Mode: 0o644, Data: address},
		{Path: "/usr/lib/systemd/system/" + Socat, Mode: 0o644, Data: socatUnit(2379)},
		{Path: "/usr/lib/systemd/system/" + SocatPeer, Mode: 0o644, Data: socatUnit(2380)},
	}
	if err := s.put(ctx, n, files); err != nil {
		return err
	}
	if _, err := s.Exec(ctx, n, "systemctl daemon-reload; systemctl enable -q --now "+Socat+" "+SocatPeer); err != nil {
		return fmt.Errorf("start the forwarders of %s: %w", n.Name, err)
	}
	return nil
}

// socatUnit is a job that nothing starts again: a launchd job without KeepAlive.
func socatUnit(port int) []byte {
	return fmt.Appendf(nil, `[Unit]
Description=Carries port %[1]d to the etcd on this machine's loopback
[Service]
EnvironmentFile=%[2]s
ExecStart=/usr/bin/socat TCP-LISTEN:%[1]d,bind=${ADDRESS},fork,reuseaddr TCP:127.0.0.1:%[1]d
[Install]
WantedBy=multi-user.target
`, port, SocatAddress)
}

func (s *Stack) startJP1(ctx context.Context, tag string, extra []string) error {
	n := s.Must(JP1)
	if err := s.startInit(ctx, n, tag, "/sbin/openrc-init", append(append(s.netFlags(n), "-v", "/var/lib/etcd"), extra...)); err != nil {
		return err
	}
	if err := s.waitOpenRC(ctx, n); err != nil {
		return err
	}
	conf := []byte(`command_args="` + strings.Join(s.etcdFlags(n, "0.0.0.0"), " ") + "\"\n")
	files := []file{
		{Path: "/etc/init.d/etcd", Mode: 0o755, Data: []byte(etcdOpenRC)},
		{Path: "/etc/conf.d/etcd", Mode: 0o644, Data: conf},
		{Path: "/etc/lab/etcd.conf", Mode: 0o644, Data: conf},
	}
	if err := s.put(ctx, n, files); err != nil {
		return err
	}
	if out, err := s.Exec(ctx, n, "rc-update -q add etcd default && rc-service etcd start"); err != nil {
		return fmt.Errorf("start etcd on %s: %w: %s", n.Name, err, oneLine(out))
	}
	return nil
}

func (s *Stack) waitOpenRC(ctx context.Context, n Node) error {
	const wait = `for i in $(seq 150); do [ "$(cat /run/openrc/softlevel 2>/dev/null)" = default ] && [ ! -e /run/openrc/rc.starting ] && exit 0; sleep .2; done; ls /run/openrc; exit 1`
	if out, err := s.Exec(ctx, n, wait); err != nil {
		return fmt.Errorf("wait for OpenRC on %s (%s): %w", n.Name, oneLine(out), err)
	}
	return nil
}

// restoreHomelab undoes every fault of the machines and members of etcd.
func (s *Stack) restoreHomelab(ctx context.Context) error {
	for _, n := range s.Nodes() {
		switch n.Kind {
		case Gate, Engine, Machine:
			if err := s.revive(ctx, n); err != nil {
				return err
			}
		}
	}
	for _, n := range s.Of(Gate) {
		if _, err := s.Exec(ctx, n, `rm -f `+GateRefuses); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.thaw(gctx, s.Must(EtcdNAS)) })
	g.Go(func() error {
		if err := s.rejoinNetwork(gctx); err != nil {
			return err
		}
		return s.thaw(gctx, s.Must(EtcdMBP))
	})
	g.Go(func() error {
		_, err := s.ExecInput(gctx, s.Must(MBP), strings.NewReader(restoreMBP), "sh -s")
		return err
	})
	g.Go(func() error {
		if err := s.revive(gctx, s.Must(JP1)); err != nil {
			return err
		}
		_, err := s.ExecInput(gctx, s.Must(JP1), strings.NewReader(restoreJP1), "sh -s")
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.rejoin(ctx); err != nil {
		return err
	}
	return s.shrink(ctx)
}

// thaw brings a member's container back and continues its process.
func (s *Stack) thaw(ctx context.Context, n Node) error {
	if err := s.restoreContainer(ctx, n); err != nil {
		return err
	}
	return s.Signal(ctx, n, "CONT")
}

// rejoinNetwork restarts etcd-mbp where mbp has another network than the one that it was started in.
func (s *Stack) rejoinNetwork(ctx context.Context) error {
	const same = `[ "$(readlink /proc/$1/ns/net)" = "$(readlink /proc/$2/ns/net)" ]`
	pids, err := s.docker.Output(ctx, "inspect", "--format", "{{.State.Pid}}", s.Container(s.Must(MBP)), s.Container(s.Must(EtcdMBP)))
	if err != nil {
		return err
	}
	both := strings.Fields(pids)
	if len(both) == 2 && both[1] != "0" {
		if _, err := s.Exec(ctx, s.Must(TheEngine), same, both...); err == nil {
			return nil
		}
	}
	_, err = s.docker.Output(ctx, "restart", "-t", "3", s.Container(s.Must(EtcdMBP)))
	return err
}

// rejoin adds jp1's member again where the cluster does not list it any more, with an empty data directory, as a person
// does after a removal.
func (s *Stack) rejoin(ctx context.Context) error {
	const add = `for i in $(seq 40); do
  list=$(etcdctl --command-timeout=2s member list 2>/dev/null) && break; sleep .5
done
[ -n "$list" ] || { echo "no quorum"; exit 1; }
case $list in *"$2"*) exit 0;; esac
for i in $(seq 40); do # not while the others think ill of each other
  said=$(etcdctl member add "$1" --peer-urls="$2" 2>&1) && { echo added; exit 0; }; sleep .5
done; echo "$said"; exit 1`
	n := s.Must(JP1)
	out, err := s.Exec(ctx, s.Must(EtcdNAS), add, n.Member, "http://"+n.Addr.String()+":2380")
	if err != nil {
		return fmt.Errorf("add %s to etcd: %w: %s", n.Name, err, out)
	}
	if strings.TrimSpace(out) != "added" {
		return nil
	}
	const fresh = `rc-service -q etcd stop; rc-service -q etcd zap; rm -rf /var/lib/etcd/data
sed -i 's/--initial-cluster-state new/--initial-cluster-state existing/' /etc/conf.d/etcd && cp /etc/conf.d/etcd /etc/lab/etcd.conf
rc-service -q etcd start`
	if out, err := s.Exec(ctx, n, fresh); err != nil {
		return fmt.Errorf("join etcd on %s: %w: %s", n.Name, err, oneLine(out))
	}
	return nil
}

// shrink makes the database small again where a fault filled it.
func (s *Stack) shrink(ctx context.Context) error {
	const small = `status() { etcdctl endpoint status -w json | sed 's/.*"'$1'":\([0-9]*\).*/\1/'; }
[ "$(status dbSize)" -gt "$1" ] || exit 0
shift
etcdctl del --prefix /lab/ >/dev/null && etcdctl compact "$(status revision)" >/dev/null
for e in "$@"; do etcdctl --endpoints="$e" defrag >/dev/null || exit 1; done`
	args := append([]string{fmt.Sprint(EtcdQuota / 2)}, s.EtcdURLs()...)
	if out, err := s.Exec(ctx, s.Must(EtcdNAS), small, args...); err != nil {
		return fmt.Errorf("shrink etcd's database: %w: %s", err, oneLine(out))
	}
	return nil
}

// homelabConfig is the example that the first user gets, with this stack's addresses and names in place of theirs.
func (s *Stack) homelabConfig(n Node, policy map[string]string, root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, "packaging/examples/homelab/etcd-"+n.Name+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("read example: %w", err)
	}
	replaced := strings.NewReplacer(
		"192.168.9.100", s.Must(EtcdNAS).Addr.String(), "100.115.154.78", s.Must(EtcdMBP).Addr.String(), "10.253.101.233", s.Must(JP1).Addr.String(),
		"{docker: etcd-nas}", "{docker: "+s.Container(s.Must(EtcdNAS))+"}", "{docker: etcd}", "{docker: "+s.Container(s.Must(EtcdMBP))+"}",
		"{launchd: gui/501/com.kaffa.etcd-socat}", "{systemd: "+Socat+"}", "{launchd: gui/501/com.kaffa.etcd-socat-peer}", "{systemd: "+SocatPeer+"}",
		"policy: {revive: auto}", "",
	).Replace(string(text))
	var b strings.Builder
	b.WriteString(replaced + "policy:\n")
	for _, class := range slices.Sorted(maps.Keys(policy)) {
		fmt.Fprintf(&b, "  %s: %q\n", class, policy[class])
	}
	if n.Name != JP1 {
		fmt.Fprintf(&b, "docker: {host: %q}\n", "unix://"+gateSocket)
	}
	return []byte(b.String()), nil
}

// Signal sends a signal to the main process of a container from outside, which is no docker kill: to the engine a kill is
// a stop by a person.
func (s *Stack) Signal(ctx context.Context, n Node, signal string) error {
	pid, err := s.docker.Output(ctx, "inspect", "--format", "{{.State.Pid}}", s.Container(n))
	if err != nil {
		return fmt.Errorf("inspect %s: %w", n.Name, err)
	}
	if pid == "0" {
		return fmt.Errorf("send %s to %s: it does not run", signal, n.Name)
	}
	if out, err := s.Exec(ctx, s.Must(TheEngine), `kill -s "$1" "$2"`, signal, pid); err != nil {
		return fmt.Errorf("send %s to %s: %w: %s", signal, n.Name, err, out)
	}
	return nil
}

// Refusals returns the lines of a gate since then: the calls that it refused.
func (s *Stack) Refusals(ctx context.Context, gate Node, since time.Time) (string, error) {
	out, err := s.docker.Output(ctx, "logs", "--since", since.UTC().Format(time.RFC3339Nano), s.Container(gate))
	if err != nil {
		return "", fmt.Errorf("read what %s refused: %w", gate.Name, err)
	}
	return out, nil
}
