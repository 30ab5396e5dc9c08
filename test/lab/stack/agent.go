package stack

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
)

//go:embed files/agent.yaml.tmpl
var agentText string

// Where an installed agent keeps its things, the same on every machine of a user.
const (
	AgentBinary  = "/usr/local/bin/pgpatrol"
	AgentConfig  = "/etc/pgpatrol/pgpatrol.yaml"
	AgentJournal = "/var/lib/pgpatrol/journal.jsonl"

	// AgentKillSwitch is the file that forbids the agent everything while it is there.
	AgentKillSwitch = "/var/lib/pgpatrol/kill-switch"
)

// unpacked is where the lab puts what a user would have downloaded.
const unpacked = "/opt/pgpatrol"

// AgentOptions say how agents are installed.
type AgentOptions struct {
	Binary string            // a static Linux binary; built from ./cmd/pgpatrol where empty
	Tags   string            // build tags, for example "failpoint"
	Policy map[string]string // by action class; what is not named: revive auto, expedite off, the rest observe
	Extra  string            // YAML lines appended to every configuration, at the top level
	Env    map[string]string // environment of the service, for failpoints
	Nodes  []string          // nodes to start an agent on; all where empty
	Ready  time.Duration     // how long to wait for the agents' sockets; 30 s where zero

	// Edit has the last word on a node's configuration, to make it wrong on purpose; nil means nothing.
	Edit func(n Node, yaml string) string
}

// AgentNodes lists the nodes that an agent can run on.
func (s *Stack) AgentNodes() []Node {
	nodes := append(s.Of(Postgres), s.Proxy())
	if s.Homelab {
		nodes = append(nodes, s.Must(NAS), s.Must(MBP), s.Must(JP1))
	}
	return nodes
}

// InstallAgents installs fresh agents the way a user would (binary, unit file, configuration), starts them as systemd
// services and waits until they answer. What an earlier agent left (its journal, its budgets, its locks in etcd) is
// removed first, so that one run does not borrow from another.
func (s *Stack) InstallAgents(ctx context.Context, o AgentOptions) error {
	if o.Binary == "" {
		bin, err := build(ctx, "./cmd/pgpatrol", "pgpatrol", tagFlags(o.Tags)...)
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(filepath.Dir(bin)) }()
		o.Binary = bin
	}
	root, err := binary.Root(ctx)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(o.Binary)
	if err != nil {
		return fmt.Errorf("read agent: %w", err)
	}
	sum := sha256.Sum256(data)
	if _, err := s.Exec(ctx, s.Of(Etcd)[0], `etcdctl del --prefix /pgpatrol/`); err != nil {
		return fmt.Errorf("clear the agents' keys: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range s.AgentNodes() {
		if len(o.Nodes) == 0 || slices.Contains(o.Nodes, n.Name) {
			g.Go(func() error { return s.installAgent(gctx, n, o, root, hex.EncodeToString(sum[:])) })
		}
	}
	return g.Wait()
}

func tagFlags(tags string) []string {
	if tags == "" {
		return nil
	}
	return []string{"-tags", tags}
}

// installAgent installs an agent on a node and starts it.
func (s *Stack) installAgent(ctx context.Context, n Node, o AgentOptions, root, sum string) error {
	cfg, err := s.agentConfig(n, o, root)
	if err != nil {
		return err
	}
	if n.Kind == Agent {
		return s.installContainer(ctx, n, o, cfg)
	}
	files := []file{{Path: AgentConfig, Mode: 0o640, Data: cfg}}
	if n.Init == Systemd {
		files = append(files, file{Path: "/etc/systemd/system/pgpatrol.service.d/lab-env.conf", Mode: 0o644, Data: environment(o.Env)})
	}
	if err := s.put(ctx, n, files); err != nil {
		return err
	}
	// The binary is large: copied only when it changed.
	have, err := s.Exec(ctx, n, `mkdir -p `+unpacked+`; rm -rf `+unpacked+`/packaging; sha256sum `+unpacked+`/pgpatrol 2>/dev/null | cut -d' ' -f1`)
	if err != nil || have != sum {
		if err := s.copyTo(ctx, n, o.Binary, unpacked+"/pgpatrol"); err != nil {
			return err
		}
	}
	if err := s.copyTo(ctx, n, filepath.Join(root, "packaging"), unpacked+"/packaging"); err != nil {
		return err
	}
	start := startSystemdAgent
	if n.Init == OpenRC {
		start = startOpenRCAgent
	}
	out, err := s.Exec(ctx, n, start, o.tries())
	if err != nil {
		return fmt.Errorf("start agent on %s: %w: %s", n.Name, err, oneLine(out))
	}
	return nil
}

// tries is how often one looks for an agent's socket, every 200 ms.
func (o AgentOptions) tries() string {
	ready := o.Ready
	if ready == 0 {
		ready = 30 * time.Second
	}
	return fmt.Sprint(int(ready / (200 * time.Millisecond)))
}

const awaitSocket = `for i in $(seq "$1"); do [ -S /run/pgpatrol/pgpatrol.sock ] && exit 0; sleep .2; done
`

// startSystemdAgent runs packaging/install inside the node, as a user would, and starts the service.
const startSystemdAgent = `set -e
systemctl stop pgpatrol.service 2>/dev/null || true
rm -rf /var/lib/pgpatrol/* /run/pgpatrol/pgpatrol.sock
sh ` + unpacked + `/packaging/install ` + unpacked + `/pgpatrol > ` + unpacked + `/install.log 2>&1 || { cat ` + unpacked + `/install.log; exit 1; }
systemctl reset-failed pgpatrol.service 2>/dev/null || true
systemctl enable -q --now pgpatrol.service || set -- 0
` + awaitSocket + `journalctl --no-pager -o cat -n 8 -u pgpatrol.service; exit 1`

// startOpenRCAgent does the same with the init script of packaging/openrc.
const startOpenRCAgent = `set -e
[ ! -e /etc/init.d/pgpatrol ] || rc-service -q pgpatrol stop >/dev/null 2>&1 || true
rm -rf /var/lib/pgpatrol/* /run/pgpatrol/pgpatrol.sock /var/log/pgpatrol.log
install -m 0755 ` + unpacked + `/pgpatrol ` + AgentBinary + `.new && mv -f ` + AgentBinary + `.new ` + AgentBinary + `
install -m 0755 ` + unpacked + `/packaging/openrc/pgpatrol /etc/init.d/pgpatrol
rc-update -q add pgpatrol default >/dev/null
rc-service -q pgpatrol start || set -- 0
` + awaitSocket + `tail -n 8 /var/log/pgpatrol.log; exit 1`

// installContainer runs the agent as the main process of a container that has nothing but the gate's socket, and what it
// keeps in a volume.
func (s *Stack) installContainer(ctx context.Context, n Node, o AgentOptions, cfg []byte) error {
	if err := s.removeContainer(ctx, n); err != nil {
		return err
	}
	tags, err := s.images(ctx)
	if err != nil {
		return err
	}
	args := append(append(s.runFlags(n), s.netFlags(n)...), "--restart=always", "--stop-signal", "SIGTERM", "-v", "/var/lib/pgpatrol",
		"--tmpfs", "/run/pgpatrol", "-v", s.Container(s.Must(NASDocker))+":"+gateDir, "-e", "GOMAXPROCS=2", "-e", "GOMEMLIMIT=20MiB")
	for k, v := range o.Env {
		args = append(args, "-e", k+"="+v)
	}
	args = append(append([]string{"create"}, args[2:]...), tags.node,
		"sh", "-c", `exec "$@" 2>&1`, "sh", AgentBinary, "agent", "--config", AgentConfig)
	if _, err := s.docker.Output(ctx, args...); err != nil {
		return fmt.Errorf("make %s: %w", n.Name, err)
	}
	if err := s.copyTo(ctx, n, o.Binary, AgentBinary); err != nil {
		return err
	}
	b, err := archive([]file{{Path: AgentConfig, Mode: 0o640, Data: cfg}})
	if err != nil {
		return err
	}
	if _, err := s.docker.Input(ctx, b, "cp", "-", s.Container(n)+":/"); err != nil {
		return fmt.Errorf("copy configuration to %s: %w", n.Name, err)
	}
	if _, err := s.docker.Output(ctx, "start", s.Container(n)); err != nil {
		return fmt.Errorf("start agent on %s: %w", n.Name, err)
	}
	if _, err := s.Exec(ctx, n, awaitSocket+"exit 1", o.tries()); err != nil {
		return fmt.Errorf("start agent on %s: %w: %s", n.Name, err, oneLine(s.AgentLog(ctx, n)))
	}
	return nil
}

// removeContainer removes a container that may not be there.
func (s *Stack) removeContainer(ctx context.Context, n Node) error {
	if _, err := s.docker.Output(ctx, "rm", "-fv", s.Container(n)); err != nil && !strings.Contains(err.Error(), "No such container") {
		return fmt.Errorf("remove %s: %w", n.Name, err)
	}
	return nil
}

// AgentLog returns what Patroni, pgpatrol and HAProxy wrote lately on a node; an error stands in its place.
func (s *Stack) AgentLog(ctx context.Context, n Node) string {
	read := `journalctl --no-pager -o short-iso-precise --since -10min -u patroni -u pgpatrol -u haproxy -u 'etcd-socat*' | tail -n 4000`
	switch {
	case n.Kind == Agent:
		out, err := s.docker.Output(ctx, "logs", "--tail", "4000", s.Container(n))
		return out + because(err)
	case n.Init == OpenRC:
		read = `tail -n 4000 /var/log/pgpatrol.log; tail -n 1000 /var/log/etcd.log`
	}
	text, err := s.Exec(ctx, n, read)
	return text + because(err)
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return "\n" + err.Error()
}

func environment(env map[string]string) []byte {
	var b strings.Builder
	b.WriteString("[Service]\n")
	for k, v := range env {
		fmt.Fprintf(&b, "Environment=%q\n", k+"="+v)
	}
	return []byte(b.String())
}

func (s *Stack) agentConfig(n Node, o AgentOptions, root string) ([]byte, error) {
	policy := map[string]string{"adjust": "observe", "revive": "auto", "disrupt": "observe", "expedite": "off"}
	maps.Copy(policy, o.Policy)
	var cfg []byte
	var err error
	switch n.Name {
	case NAS, MBP, JP1:
		cfg, err = s.homelabConfig(n, policy, root)
	default:
		cfg, err = render("agent.yaml", agentText, map[string]any{
			"Node": n.Name, "Scope": Scope, "Namespace": Namespace, "Etcd": s.EtcdURLs(), "Policy": policy,
			"Patroni": n.Kind == Postgres, "Proxy": n.Name == s.Proxy().Name, "Member": n.Member, "Addr": n.Addr.String(),
		})
	}
	if err != nil {
		return nil, err
	}
	cfg = append(cfg, o.Extra...)
	if o.Edit != nil {
		cfg = []byte(o.Edit(n, string(cfg)))
	}
	return cfg, nil
}

// StopAgents stops the agents that are installed, quickly. Nodes without one are left alone.
func (s *Stack) StopAgents(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.AgentNodes() {
		g.Go(func() error {
			state, err := s.docker.Output(ctx, "inspect", "--format", "{{.State.Status}}", s.Container(n))
			if n.Kind == Agent {
				return s.removeContainer(ctx, n)
			}
			if err != nil || state != "running" {
				return err // a container that does not run has no agent that runs
			}
			stop := `systemctl disable -q --now pgpatrol.service`
			if n.Init == OpenRC {
				stop = `rc-update -q del pgpatrol >/dev/null 2>&1; rc-service -q pgpatrol stop >/dev/null 2>&1`
			}
			_, err = s.Exec(ctx, n, `[ ! -e `+AgentConfig+` ] || { `+stop+`; }`)
			if err != nil {
				return fmt.Errorf("stop agent on %s: %w", n.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// RestartAgent restarts the agent of a node as a person would.
func (s *Stack) RestartAgent(ctx context.Context, n Node) error {
	var err error
	switch {
	case n.Kind == Agent:
		_, err = s.docker.Output(ctx, "restart", s.Container(n))
	case n.Init == OpenRC:
		_, err = s.Exec(ctx, n, `rc-service -q pgpatrol restart`)
	default:
		_, err = s.Exec(ctx, n, `systemctl restart pgpatrol.service`)
	}
	if err != nil {
		return fmt.Errorf("restart agent of %s: %w", n.Name, err)
	}
	return nil
}

// RemoveAgents stops the agents and removes everything that was installed.
func (s *Stack) RemoveAgents(ctx context.Context) error {
	if err := s.StopAgents(ctx); err != nil {
		return err
	}
	for _, n := range s.AgentNodes() {
		if n.Kind == Agent {
			continue // it is gone
		}
		if n.Init == OpenRC {
			const remove = `rm -rf ` + unpacked + ` ` + AgentBinary + ` /etc/init.d/pgpatrol /etc/pgpatrol /var/lib/pgpatrol /var/log/pgpatrol.log`
			if _, err := s.Exec(ctx, n, remove); err != nil {
				return fmt.Errorf("remove agent from %s: %w", n.Name, err)
			}
			continue
		}
		const remove = `[ ! -e ` + unpacked + `/packaging/install ] || sh ` + unpacked + `/packaging/install --uninstall
rm -rf ` + unpacked + ` /etc/pgpatrol /var/lib/pgpatrol /etc/systemd/system/pgpatrol.service.d
systemctl daemon-reload`
		if _, err := s.Exec(ctx, n, remove); err != nil {
			return fmt.Errorf("remove agent from %s: %w", n.Name, err)
		}
	}
	return nil
}

// Journals returns the raw journal of every agent, by node. A node whose agent has none yet is absent.
func (s *Stack) Journals(ctx context.Context) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, n := range s.AgentNodes() {
		text, err := s.Exec(ctx, n, `[ ! -e `+AgentJournal+` ] || cat `+AgentJournal)
		if err != nil {
			return nil, fmt.Errorf("read journal of %s: %w", n.Name, err)
		}
		if text != "" {
			out[n.Name] = []byte(text)
		}
	}
	return out, nil
}

// Plans returns what `pgpatrol plan --json` says on every node with an agent; an error stands in its place.
func (s *Stack) Plans(ctx context.Context) map[string]string {
	return s.said(ctx, `timeout 5 `+AgentBinary+` plan --json`)
}

// Replays decides every decision in every agent's journal again, from its recorded inputs, and returns the tallies as
// `pgpatrol why all --replay --json` prints them. It reads the files, so that it works without a running agent too.
func (s *Stack) Replays(ctx context.Context) map[string]string {
	return s.said(ctx, `timeout 60 `+AgentBinary+` why all --replay --json --journal `+filepath.Dir(AgentJournal))
}

// said runs a command on every agent's node and returns what it printed, on both outputs and whatever its exit code.
func (s *Stack) said(ctx context.Context, command string) map[string]string {
	out := map[string]string{}
	var mu sync.Mutex // guards out
	var all sync.WaitGroup
	for _, n := range s.AgentNodes() {
		all.Go(func() {
			text, err := s.Exec(ctx, n, command+` 2>&1; true`)
			if err != nil {
				text = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			out[n.Name] = text
		})
	}
	all.Wait()
	return out
}
