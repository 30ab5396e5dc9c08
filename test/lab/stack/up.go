package stack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/image"
)

// Up removes what an earlier run of this stack left behind, builds the image where it is missing, and starts
// everything. It returns when three members are there, two of them streaming, and HAProxy routes to the leader.
func (s *Stack) Up(ctx context.Context, t Timings) error {
	began := time.Now()
	tag, err := image.Ensure(ctx, s.docker, s.log)
	if err != nil {
		return err
	}
	if err := s.Down(ctx); err != nil {
		return err
	}
	if err := s.createNetwork(ctx); err != nil {
		return err
	}
	s.log.Info("start containers", "subnet", s.subnet, "timings", t.Name)
	pw := newSecrets()
	if err := s.startAll(ctx, tag, t, pw); err != nil {
		return err
	}
	s.log.Info("wait for a leader")
	if err := s.createRoles(ctx, pw); err != nil {
		return err
	}
	s.log.Info("wait for two streaming replicas and HAProxy")
	if err := s.waitHealthy(ctx, 2*time.Minute); err != nil {
		return err
	}
	s.log.Info("stack is up", "duration", time.Since(began).Round(time.Second))
	return nil
}

// Down removes every container and network that carries this stack's label, and nothing else.
func (s *Stack) Down(ctx context.Context) error {
	ids, err := s.docker.Output(ctx, "ps", "-aq", "--filter", "label="+s.label())
	if err != nil {
		return fmt.Errorf("list containers of stack %q: %w", s.Name, err)
	}
	if list := strings.Fields(ids); len(list) > 0 {
		s.log.Info("remove containers", "count", len(list))
		// -v: the anonymous volumes belong to the container.
		if _, err := s.docker.Output(ctx, append([]string{"rm", "-fv"}, list...)...); err != nil {
			return fmt.Errorf("remove containers of stack %q: %w", s.Name, err)
		}
	}
	nets, err := s.docker.Output(ctx, "network", "ls", "-q", "--filter", "label="+s.label())
	if err != nil {
		return fmt.Errorf("list networks of stack %q: %w", s.Name, err)
	}
	for _, id := range strings.Fields(nets) {
		if _, err := s.docker.Output(ctx, "network", "rm", id); err != nil {
			return fmt.Errorf("remove network of stack %q: %w", s.Name, err)
		}
	}
	return nil
}

func (s *Stack) startAll(ctx context.Context, tag string, t Timings, pw secrets) error {
	extra, err := s.systemdFlags(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.Nodes() {
		g.Go(func() error {
			if n.Kind == Etcd {
				return s.startEtcd(ctx, n, tag)
			}
			if err := s.startSystemd(ctx, n, tag, extra); err != nil {
				return err
			}
			return s.configure(ctx, n, t, pw)
		})
	}
	return g.Wait()
}

func (s *Stack) runFlags(n Node) []string {
	return []string{
		"run", "-d", "--name", s.Container(n), "--hostname", n.Name,
		"--label", s.label(), "--label", Label + ".node=" + n.Name,
		"--network", s.network(), "--ip", n.Addr.String(), "--network-alias", n.Name,
	}
}

func (s *Stack) startEtcd(ctx context.Context, n Node, tag string) error {
	var cluster []string
	for _, e := range s.Of(Etcd) {
		cluster = append(cluster, e.Name+"=http://"+e.Addr.String()+":2380")
	}
	addr := n.Addr.String()
	args := append(s.runFlags(n), "--restart=always", "-v", "/var/lib/etcd", "--stop-signal", "SIGTERM", tag,
		"etcd", "--name", n.Name, "--data-dir", "/var/lib/etcd/data",
		"--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", "http://"+addr+":2379",
		"--listen-peer-urls", "http://0.0.0.0:2380", "--initial-advertise-peer-urls", "http://"+addr+":2380",
		"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new", "--initial-cluster-token", "pgpatrol-"+s.Name)
	if _, err := s.docker.Output(ctx, args...); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return nil
}

// systemdFlags returns what the engine at hand needs beside the flags that every engine gets. On cgroup v1 that is
// nothing. On v2 the engine mounts the control groups read-only, and systemd needs its own subtree writable:
// CAP_SYS_ADMIN inside a private namespace may remount it, unless AppArmor's docker profile forbids every mount.
func (s *Stack) systemdFlags(ctx context.Context) ([]string, error) {
	info, err := s.docker.Output(ctx, "info", "--format", "{{.CgroupVersion}} {{.SecurityOptions}}")
	if err != nil {
		return nil, fmt.Errorf("ask the engine: %w", err)
	}
	var flags []string
	if strings.HasPrefix(info, "2") {
		flags = append(flags, "--cgroupns", "private")
	}
	if strings.Contains(info, "name=apparmor") {
		flags = append(flags, "--security-opt", "apparmor=unconfined")
	}
	return flags, nil
}

func (s *Stack) startSystemd(ctx context.Context, n Node, tag string, extra []string) error {
	args := append(s.runFlags(n),
		"--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined",
		"--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-e", "container=docker")
	args = append(args, extra...)
	if n.Kind == Postgres {
		// A volume, because some engines keep the writable layer on fuse-overlayfs, where every fsync costs CPU.
		args = append(args, "-v", "/var/lib/postgresql")
	}
	args = append(args, tag)
	if len(extra) > 0 && extra[0] == "--cgroupns" {
		args = append(args, "sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec /lib/systemd/systemd")
	} else {
		args = append(args, "/lib/systemd/systemd")
	}
	if _, err := s.docker.Output(ctx, args...); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return s.waitSystemd(ctx, n)
}

func (s *Stack) waitSystemd(ctx context.Context, n Node) error {
	// "degraded" is good enough: a unit that a container cannot run must not stop the lab. The bus may not be there yet.
	const wait = `for i in $(seq 150); do case "$(systemctl is-system-running 2>/dev/null)" in running|degraded) exit 0;; esac; sleep .2; done; systemctl is-system-running; exit 1`
	if out, err := s.Exec(ctx, n, wait); err != nil {
		return fmt.Errorf("wait for systemd on %s (%s): %w", n.Name, oneLine(out), err)
	}
	return nil
}

// configure writes a node's files and starts its service. A pristine copy stays in /etc/lab, for Settle.
func (s *Stack) configure(ctx context.Context, n Node, t Timings, pw secrets) error {
	var files []file
	start := "systemctl enable -q --now patroni.service"
	if n.Kind == HAProxy {
		cfg, err := s.haproxyConfig()
		if err != nil {
			return err
		}
		pass := fmt.Sprintf("127.0.0.1:5432:app:app:%s\n", pw.App)
		files = []file{
			{Path: "/etc/haproxy/haproxy.cfg", Mode: 0o644, Data: cfg},
			{Path: "/etc/lab/haproxy.cfg", Mode: 0o644, Data: cfg},
			{Path: "/root/.pgpass", Mode: 0o600, Data: []byte(pass)},
		}
		start = "systemctl enable -q --now haproxy.service"
	} else {
		cfg, err := s.patroniConfig(n, t, pw)
		if err != nil {
			return err
		}
		files = []file{
			{Path: "/etc/patroni/config.yml", Mode: 0o640, Owner: "postgres", Data: cfg},
			{Path: "/etc/lab/config.yml", Mode: 0o640, Owner: "postgres", Data: cfg},
		}
	}
	if err := s.put(ctx, n, files); err != nil {
		return err
	}
	if _, err := s.Exec(ctx, n, "systemctl daemon-reload; "+start); err != nil {
		return fmt.Errorf("start the service of %s: %w", n.Name, err)
	}
	return nil
}

func (s *Stack) put(ctx context.Context, n Node, files []file) error {
	b, err := archive(files)
	if err != nil {
		return err
	}
	if _, err := s.ExecInput(ctx, n, b, "tar -x -C /"); err != nil {
		return fmt.Errorf("copy files to %s: %w", n.Name, err)
	}
	return nil
}

// createRoles waits for a writable leader and makes the roles of the first user's kind: an application that owns a
// database, and the agent's, which may look at everything and change nothing.
func (s *Stack) createRoles(ctx context.Context, pw secrets) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		leader, err := s.Leader(ctx)
		if err == nil {
			sql := fmt.Sprintf(`DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname='app') THEN CREATE ROLE app LOGIN; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname='pgpatrol') THEN CREATE ROLE pgpatrol LOGIN IN ROLE pg_monitor; END IF;
END $$;
ALTER ROLE app PASSWORD '%s';
SELECT 'CREATE DATABASE app OWNER app' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname='app')\gexec
`, pw.App)
			_, err = s.docker.Input(ctx, strings.NewReader(sql), "exec", "-i", "-u", "postgres", s.Container(leader),
				"psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres")
			if err == nil {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("create roles: %w", err)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errNoLeader is returned while the cluster has no leader that runs.
var errNoLeader = errors.New("no leader")
