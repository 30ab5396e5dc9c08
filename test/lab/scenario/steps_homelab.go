package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// restartPolicy sets the policy of containers.
func restartPolicy(policy string, nodes ...string) Func {
	return func(ctx context.Context, r *Run) error {
		for _, name := range nodes {
			if _, err := r.Stack.Docker(ctx, "update", "--restart="+policy, r.Stack.Container(r.Stack.Must(name))); err != nil {
				return fmt.Errorf("set policy of %s: %w", name, err)
			}
		}
		return nil
	}
}

// engine runs a verb of the docker command on a node's container, as a person does.
func engine(verb, node string) Func {
	return func(ctx context.Context, r *Run) error {
		r.Mark("docker", verb+" "+node)
		_, err := r.Stack.Docker(ctx, verb, r.Stack.Container(r.Stack.Must(node)))
		return err
	}
}

// typed runs a script on a node of the homelab.
func typed(node, script string) Func {
	return func(ctx context.Context, r *Run) error { return on(ctx, r, node, script) }
}

func on(ctx context.Context, r *Run, name, script string) error {
	r.Mark("run", name+": "+script)
	if out, err := r.Stack.Exec(ctx, r.Stack.Must(name), script); err != nil {
		return fmt.Errorf("on %s: %w: %s", name, err, out)
	}
	return nil
}

// crash kills the main processes of things, from outside.
func crash(all ...thing) Func { return signal("KILL", all...) }

// signal sends a signal to the main processes of things.
func signal(name string, all ...thing) Func {
	return func(ctx context.Context, r *Run) error {
		for _, t := range all {
			if err := send(ctx, r, name, t); err != nil {
				return fmt.Errorf("send %s to %s: %w", name, t, err)
			}
		}
		r.Mark(markBroken, join(all))
		return nil
	}
}

// hangs freezes things that their agents have seen at work: one that has just started is given ten minutes.
func hangs(all ...thing) Func {
	return func(ctx context.Context, r *Run) error {
		if err := seenAtWork(ctx, r); err != nil {
			return err
		}
		return signal("STOP", all...)(ctx, r)
	}
}

// untilSeen is enough for every agent to have seen everything at work.
const untilSeen = 12 * time.Second

func seenAtWork(ctx context.Context, r *Run) error {
	if !r.Agents {
		return nil
	}
	return r.Sleep(ctx, untilSeen)
}

// mainPID is shell for the main process of a thing, where its node is.
func (t thing) mainPID() string {
	if t == etcdJP1 {
		return `"$(cat /run/etcd.pid)"`
	}
	return `"$(systemctl show -p MainPID --value ` + string(t) + `)"`
}

func send(ctx context.Context, r *Run, signal string, t thing) error {
	if t == etcdNAS || t == etcdMBP {
		r.Mark("signal", signal+" to "+string(t))
		return r.Stack.Signal(ctx, r.Stack.Must(string(t)), signal)
	}
	return on(ctx, r, t.node(), `kill -s `+signal+` `+t.mainPID())
}

// crashLoop kills a thing whenever it lives, for a while.
func crashLoop(t thing, long time.Duration) Func {
	return func(ctx context.Context, r *Run) error {
		r.Mark(markBroken, string(t))
		for end := time.Now().Add(long); time.Now().Before(end); {
			if t == etcdNAS {
				_ = r.Stack.Signal(ctx, r.Stack.Must(string(t)), "KILL") // it may be down
			} else if _, err := r.Stack.Exec(ctx, r.Stack.Must(t.node()), `p=`+t.mainPID()+`; [ "$p" = 0 ] || kill -s KILL "$p" 2>/dev/null; true`); err != nil {
				return err
			}
			if err := r.Sleep(ctx, 700*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
}

// dropInRestart lets systemd restart the forwarder of clients until its start limit.
func dropInRestart(ctx context.Context, r *Run) error {
	const dir = `/etc/systemd/system/` + stack.Socat + `.d`
	return on(ctx, r, stack.MBP, `mkdir -p `+dir+` && printf '[Service]\nRestart=on-failure\nRestartSec=100ms\n' > `+dir+`/lab.conf && systemctl daemon-reload`)
}

// The unit that stands for the virtual machine on mbp: what reaches the engine goes through it, and whenever it boots again it
// restarts the container that is in it.
const (
	vmSocket = "/run/lab-vm.sock"
	vmUnit   = `[Unit]
Description=Stands for the virtual machine that etcd-mbp and its engine are in
[Service]
ExecStartPre=/bin/sh -c '[ ! -e /run/lab-vm.booted ] || curl -sSf --max-time 20 --unix-socket /opt/engine/docker.sock -X POST "http://docker/containers/%s/restart?t=0"; touch /run/lab-vm.booted'
ExecStart=/usr/bin/socat UNIX-LISTEN:` + vmSocket + `,fork,unlink-early UNIX-CONNECT:/opt/engine/docker.sock
`
)

// setUpVM puts the virtual machine between the agent on mbp and its engine.
func setUpVM(ctx context.Context, r *Run) error {
	unit := fmt.Sprintf(vmUnit, r.Stack.Container(r.Stack.Must(stack.EtcdMBP)))
	return on(ctx, r, stack.MBP, `mkdir -p /run/systemd/system && cat > /run/systemd/system/`+stack.VM+` <<'EOF'
`+unit+`EOF
systemctl daemon-reload && systemctl start `+stack.VM)
}

// behindVM adds the virtual machine to the configuration of mbp, as the reference configuration shows it.
func behindVM(o *stack.AgentOptions) {
	edit := strings.NewReplacer("behind: [etcd-mbp]", "behind: [etcd-mbp, vm]", "unix:///opt/engine/docker.sock", "unix://"+vmSocket, "\npolicy:\n", `
  - name: vm
    kind: machine
    check: {command: [/usr/bin/curl, -sSf, --max-time, "2", --unix-socket, `+vmSocket+`, "http://docker/_ping"]}
    manager: {systemd: `+stack.VM+`}
policy:
`)
	o.Edit = func(n stack.Node, c string) string {
		if n.Name != stack.MBP {
			return c
		}
		return edit.Replace(c)
	}
}

// hangVM freezes the virtual machine and everything that is in it.
func hangVM(ctx context.Context, r *Run) error {
	if err := seenAtWork(ctx, r); err != nil {
		return err
	}
	if err := on(ctx, r, stack.MBP, `systemctl kill -s STOP `+stack.VM); err != nil {
		return err
	}
	return signal("STOP", etcdMBP)(ctx, r)
}

// stopped lets a person stop something, and restarts the agent of a node ("" for none) and then whatever again does.
func stopped(stop Func, agent string, again Func) Func {
	return func(ctx context.Context, r *Run) error {
		if err := stop(ctx, r); err != nil {
			return err
		}
		r.Mark(markBroken, "stopped")
		if err := r.Sleep(ctx, 6*time.Second); err != nil {
			return err
		}
		if agent != "" && r.Agents {
			r.Mark("restart", "agent of "+agent)
			if err := r.Stack.RestartAgent(ctx, r.Stack.Must(agent)); err != nil {
				return err
			}
		}
		if again == nil {
			return nil
		}
		return again(ctx, r)
	}
}

// powerCut ends containers at once and starts them after a while, in the same order.
func powerCut(long time.Duration, nodes ...string) Func {
	return func(ctx context.Context, r *Run) error {
		var there []string
		for _, name := range nodes {
			if r.Agents || r.Stack.Must(name).Kind != stack.Agent {
				there = append(there, r.Stack.Container(r.Stack.Must(name)))
			}
		}
		r.Mark(markBroken, fmt.Sprint(nodes))
		if _, err := r.Stack.Docker(ctx, append([]string{"kill"}, there...)...); err != nil {
			return err
		}
		if err := r.Sleep(ctx, long); err != nil {
			return err
		}
		for _, c := range there {
			if _, err := r.Stack.Docker(ctx, "start", c); err != nil {
				return err
			}
		}
		r.Mark("power", fmt.Sprint(nodes))
		for _, n := range lookers(r.Stack) {
			if slices.Contains(nodes, n.Name) {
				if err := r.collector.look(ctx, r.Stack, n); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// removeMember removes the member in Tokyo from the cluster as a person does.
func removeMember(ctx context.Context, r *Run) error {
	err := on(ctx, r, stack.EtcdNAS, `id=$(etcdctl member list | sed -n 's/, .*etcd-jp1.*//p') && [ -n "$id" ] && etcdctl member remove "$id"`)
	r.Mark(markBroken, stack.JP1)
	return err
}

// fillEtcd writes until every member's database has 84 % of its quota: they are not of the same size.
func fillEtcd(ctx context.Context, r *Run) error {
	r.Mark(markBroken, "etcd")
	return on(ctx, r, stack.EtcdNAS, fmt.Sprintf(`head -c 262144 /dev/zero | tr '\0' x > /tmp/fill
for i in $(seq 200); do
  size=$(etcdctl endpoint status --cluster -w json | grep -o '"dbSize":[0-9]*' | cut -d: -f2 | sort -n | head -n 1)
  [ "$size" -lt %d ] || exit 0
  etcdctl put "/lab/fill-$i" < /tmp/fill >/dev/null || exit 1
done; echo "the database has $size bytes"; exit 1`, stack.EtcdQuota*84/100))
}

// cutOff takes Tokyo's way to everybody away.
func cutOff(ctx context.Context, r *Run) error {
	script := ""
	for _, n := range r.Stack.Nodes() {
		if n.Name != stack.JP1 && n.Addr.IsValid() {
			script += "ip route replace blackhole " + n.Addr.String() + "/32\n"
		}
	}
	r.Mark(markBroken, stack.JP1)
	return on(ctx, r, stack.JP1, script)
}

// staleAddress makes the forwarder of clients listen on an address that then goes away, as when a VPN gets a new one. The
// restart is a person's, and over when the agent looks.
func staleAddress(ctx context.Context, r *Run) error {
	const stale = `old=$(ip -4 -o addr show dev eth0 | sed -n 's/.*inet \([0-9.]*\)\.[0-9]*\/.*/\1.250/p')
ip addr add "$old/32" dev eth0 && echo "ADDRESS=$old" > ` + stack.SocatAddress + ` &&
systemctl restart ` + stack.Socat + ` && sleep .5 && ip addr del "$old/32" dev eth0 && cp /etc/lab/etcd-socat.env ` + stack.SocatAddress
	err := on(ctx, r, stack.MBP, stale)
	r.Mark(markBroken, stack.MBP)
	return err
}
