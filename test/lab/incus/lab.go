package incus

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
	"github.com/pgpatrol/pgpatrol/test/lab/docker"
	"github.com/pgpatrol/pgpatrol/test/lab/image"
)

// instance is one instance of the lab.
type instance struct{ Name, Addr string }

// The network inside the host's container, which reaches nothing else.
const (
	subnet   = "10.100.9.0/24"
	hostAddr = "10.100.9.1/24"
)

var (
	etcd    = instance{"etcd-1", "10.100.9.10"}
	members = []instance{{"postgres-1", "10.100.9.11"}, {"postgres-2", "10.100.9.12"}}
)

// Lab is an Incus host in a container, with a member of etcd and two Patroni nodes as instances of its own, and an agent on
// the host.
type Lab struct {
	d   docker.Client
	log *slog.Logger
}

// New returns a lab. There is one per engine.
func New(log *slog.Logger) *Lab { return &Lab{log: log} }

// name is the container's; nothing else is ever removed.
const name = "pgpatrol-incus-host"

// Down removes the container with everything in it.
func (l *Lab) Down(ctx context.Context) error {
	_, err := l.d.Output(ctx, "rm", "-f", "-v", name)
	return err
}

// host runs a command on the Incus host.
func (l *Lab) host(ctx context.Context, args ...string) (string, error) {
	return l.d.Output(ctx, append([]string{"exec", name}, args...)...)
}

// in runs a script in an instance, as a person does from the host.
func (l *Lab) in(ctx context.Context, i, script string) (string, error) {
	return l.host(ctx, "incus", "exec", i, "--", "sh", "-c", script)
}

// until tries until it works, for a while.
func until(ctx context.Context, limit time.Duration, what string, try func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v: %w", what, limit, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// Up starts everything and returns when Patroni has a leader and a streaming replica.
func (l *Lab) Up(ctx context.Context) error {
	tag, err := image.EnsureIncus(ctx, l.d, l.log)
	if err != nil {
		return err
	}
	node, err := image.Ensure(ctx, l.d, l.log)
	if err != nil {
		return err
	}
	if err := l.Down(ctx); err != nil {
		return err
	}
	info, err := l.d.Output(ctx, "info", "--format", "{{.SecurityOptions}}")
	if err != nil {
		return err
	}
	args := append([]string{"run", "-d", "--name", name, "--network", "none"}, Options(strings.Contains(info, "name=apparmor"))...)
	if _, err := l.d.Output(ctx, append(args, tag, "/usr/local/sbin/incus-host")...); err != nil {
		return err
	}
	l.log.Info("start Incus")
	if err := until(ctx, time.Minute, "start Incus", func() error { _, err := l.host(ctx, Ready()...); return err }); err != nil {
		return err
	}
	if _, err := l.host(ctx, "ip", "addr", "add", hostAddr, "dev", "br0"); err != nil {
		return err
	}
	l.log.Info("import the image of the instances")
	if err := Import(ctx, l.d, name, node, "node"); err != nil {
		return err
	}
	return l.populate(ctx)
}

//go:embed files/patroni.yml
var patroniConfig string

//go:embed files/agent.yaml
var agentConfig string

func render(text string, data any) ([]byte, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.Bytes(), err
}

func (l *Lab) populate(ctx context.Context) error {
	l.log.Info("start the instances")
	secret := rand.Text()
	if err := l.launch(ctx, etcd); err != nil {
		return err
	}
	defaults := fmt.Sprintf("ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379\nETCD_ADVERTISE_CLIENT_URLS=http://%s:2379\n", etcd.Addr)
	if err := l.push(ctx, etcd.Name, "/etc/default/etcd", "0644", []byte(defaults)); err != nil {
		return err
	}
	if _, err := l.in(ctx, etcd.Name, "systemctl enable -q --now etcd"); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, m := range members {
		g.Go(func() error {
			if err := l.launch(gctx, m); err != nil {
				return err
			}
			config, err := render(patroniConfig, struct{ Name, Addr, Etcd, Secret, Subnet string }{m.Name, m.Addr, etcd.Addr, secret, subnet})
			if err != nil {
				return err
			}
			if err := l.push(gctx, m.Name, "/etc/patroni/config.yml", "0600", config); err != nil {
				return err
			}
			_, err = l.in(gctx, m.Name, "chown postgres:postgres /etc/patroni/config.yml && systemctl enable -q --now patroni")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.log.Info("wait for a leader and a replica")
	return until(ctx, 2*time.Minute, "healthy cluster", func() error { _, err := l.leader(ctx); return err })
}

// launch starts an instance with an address of its own.
func (l *Lab) launch(ctx context.Context, i instance) error {
	network := fmt.Sprintf("[Match]\nName=eth0\n[Network]\nAddress=%s/24\n", i.Addr)
	for _, args := range [][]string{
		{"incus", "init", "node", i.Name, "-c", "security.privileged=true"},
		{"incus", "config", "device", "add", i.Name, "eth0", "nic", "nictype=bridged", "parent=br0", "name=eth0"},
		{"incus", "start", i.Name},
	} {
		if _, err := l.host(ctx, args...); err != nil {
			return err
		}
	}
	if err := l.push(ctx, i.Name, "/etc/systemd/network/eth0.network", "0644", []byte(network)); err != nil {
		return err
	}
	// Docker keeps this file for its own containers, and its image has none.
	if err := l.push(ctx, i.Name, "/etc/hosts", "0644", []byte("127.0.0.1 localhost\n127.0.1.1 "+i.Name+"\n")); err != nil {
		return err
	}
	return until(ctx, time.Minute, "boot "+i.Name, func() error {
		_, err := l.in(ctx, i.Name, "systemctl is-active -q multi-user.target && systemctl enable -q --now systemd-networkd && ip addr show dev eth0 | grep -q "+i.Addr)
		return err
	})
}

// push writes a file in an instance. Its content is in no argument list.
func (l *Lab) push(ctx context.Context, i, path, mode string, content []byte) error {
	_, err := l.d.Input(ctx, bytes.NewReader(content), "exec", "-i", name, "incus", "file", "push", "-p", "-q", "--mode", mode, "-", i+path)
	return err
}

// leader returns the leader, and an error unless the other one streams from it.
func (l *Lab) leader(ctx context.Context) (instance, error) {
	out, err := l.in(ctx, etcd.Name, "curl -sf -m 2 http://"+members[0].Addr+":8008/cluster || curl -sf -m 2 http://"+members[1].Addr+":8008/cluster")
	if err != nil {
		return instance{}, err
	}
	var c struct {
		Members []struct{ Name, Role, State string }
	}
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		return instance{}, err
	}
	var leader instance
	streams := false
	for _, m := range c.Members {
		for _, i := range members {
			if m.Name == i.Name && m.Role == "leader" && m.State == "running" {
				leader = i
			}
		}
		streams = streams || m.Role == "replica" && m.State == "streaming"
	}
	if leader.Name == "" || !streams {
		return leader, fmt.Errorf("no leader, or no replica that streams: %s", out)
	}
	return leader, nil
}

// The agent's places on the Incus host.
const (
	agentProgram = "/usr/local/bin/pgpatrol"
	agentFile    = "/etc/pgpatrol.yaml"
	agentJournal = "/var/lib/pgpatrol/journal.jsonl"
)

// install puts the agent on the Incus host, without starting it.
func (l *Lab) install(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "pgpatrol-lab-incus-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, "pgpatrol")
	if err := binary.Build(ctx, "./cmd/pgpatrol", binary.Platform{OS: "linux"}, program); err != nil {
		return err
	}
	_, err = l.d.Output(ctx, "cp", program, name+":"+agentProgram)
	return err
}

// configure writes the agent's configuration: mine is the Patroni of this host, as every host of the first user has one; the
// other instance is looked after as any service is.
func (l *Lab) configure(ctx context.Context, mine, other instance) error {
	config, err := render(agentConfig, struct {
		Etcd        string
		Mine, Other instance
	}{etcd.Addr, mine, other})
	if err != nil {
		return err
	}
	_, err = l.d.Input(ctx, bytes.NewReader(config), "exec", "-i", name, "sh", "-c",
		"umask 077; cat > "+agentFile+" && "+agentProgram+" check-config "+agentFile)
	return err
}

// agentStarts starts the agent with an empty journal, and returns when it answers.
func (l *Lab) agentStarts(ctx context.Context) error {
	if err := l.agentStops(ctx); err != nil {
		return err
	}
	start := "rm -rf /var/lib/pgpatrol; mkdir -p /run/pgpatrol; exec " + agentProgram + " agent --config " + agentFile + " >>/var/log/pgpatrol.log 2>&1"
	if _, err := l.d.Output(ctx, "exec", "-d", name, "sh", "-c", "echo $$ > /run/agent.pid; "+start); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, "agent", func() error {
		_, err := l.host(ctx, "sh", "-c", agentProgram+" status >/dev/null; test $? != 3")
		return err
	})
}

// agentStops ends the agent, if one runs.
func (l *Lab) agentStops(ctx context.Context) error {
	_, err := l.host(ctx, "sh", "-c", `p=$(cat /run/agent.pid 2>/dev/null) || exit 0; rm -f /run/agent.pid; kill "$p" 2>/dev/null || exit 0
while kill -0 "$p" 2>/dev/null; do sleep 0.1; done`)
	return err
}

// intents returns how many actions the agent has begun.
func (l *Lab) intents(ctx context.Context) (int, error) {
	out, err := l.host(ctx, "sh", "-c", "cat "+agentJournal+" 2>/dev/null || true")
	return strings.Count(out, `"kind":"intent"`), err
}
