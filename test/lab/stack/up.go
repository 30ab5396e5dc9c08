package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/image"
)

// Up removes what an earlier run of this stack left behind, builds the image where it is missing, and starts
// everything. It returns when three members are there, two of them streaming, and HAProxy routes to the leader.
func (s *Stack) Up(ctx context.Context, t Timings) error {
	began := time.Now()
	tags, err := s.images(ctx)
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
	if err := s.startAll(ctx, tags, t, pw); err != nil {
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

// images are the names of the images of a stack's containers.
type images struct{ node, openrc string }

// images builds what is missing.
func (s *Stack) images(ctx context.Context) (tags images, err error) {
	if tags.node, err = image.Ensure(ctx, s.docker, s.log); err != nil || !s.Homelab {
		return tags, err
	}
	tags.openrc, err = image.EnsureOpenRC(ctx, s.docker, s.log)
	return tags, err
}

// Down removes every container, network and volume that carries this stack's label, and nothing else.
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
	volumes, err := s.docker.Output(ctx, "volume", "ls", "-q", "--filter", "label="+s.label())
	if err != nil {
		return fmt.Errorf("list volumes of stack %q: %w", s.Name, err)
	}
	for _, id := range strings.Fields(volumes) {
		if _, err := s.docker.Output(ctx, "volume", "rm", id); err != nil {
			return fmt.Errorf("remove volume of stack %q: %w", s.Name, err)
		}
	}
	return nil
}

func (s *Stack) startAll(ctx context.Context, tags images, t Timings, pw secrets) error {
	extra, err := s.initFlags(ctx)
	if err != nil {
		return err
	}
	if s.Homelab {
		if err := s.startHomelab(ctx, tags, extra); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.Nodes() {
		switch n.Kind {
		case Postgres, HAProxy:
			g.Go(func() error {
				if err := s.startSystemd(ctx, n, tags.node, extra); err != nil {
					return err
				}
				return s.configure(ctx, n, t, pw)
			})
		case Etcd:
			if !s.Homelab {
				g.Go(func() error { return s.startEtcd(ctx, n, tags.node, "0.0.0.0", s.netFlags(n)...) })
			}
		}
	}
	return g.Wait()
}

// runFlags are those of every container.
func (s *Stack) runFlags(n Node) []string {
	return []string{"run", "-d", "--name", s.Container(n), "--label", s.label(), "--label", Label + ".node=" + n.Name}
}

// netFlags are those of a container with an address of its own.
func (s *Stack) netFlags(n Node) []string {
	return []string{"--hostname", n.Name, "--network", s.network(), "--ip", n.Addr.String(), "--network-alias", n.Name}
}

// startEtcd starts a member as a plain container that listens on the given address of its network.
func (s *Stack) startEtcd(ctx context.Context, n Node, tag, listen string, network ...string) error {
	args := append(s.runFlags(n), network...)
	args = append(args, "--restart=always", "-v", "/var/lib/etcd", "--stop-signal", "SIGTERM", tag, "etcd")
	if _, err := s.docker.Output(ctx, append(args, s.etcdFlags(n, listen)...)...); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return nil
}

// etcdFlags are the flags of a member of a new cluster.
func (s *Stack) etcdFlags(n Node, listen string) []string {
	var cluster []string
	for _, e := range s.Of(Etcd) {
		cluster = append(cluster, e.Member+"=http://"+e.Addr.String()+":2380")
	}
	addr := n.Addr.String()
	flags := []string{
		"--name", n.Member, "--data-dir", "/var/lib/etcd/data",
		"--listen-client-urls", "http://" + listen + ":2379", "--advertise-client-urls", "http://" + addr + ":2379",
		"--listen-peer-urls", "http://" + listen + ":2380", "--initial-advertise-peer-urls", "http://" + addr + ":2380",
		"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new", "--initial-cluster-token", "pgpatrol-" + s.Name,
	}
	if s.Homelab {
		flags = append(flags, "--quota-backend-bytes", fmt.Sprint(EtcdQuota))
	}
	return flags
}

// initFlags returns what the engine at hand needs for an init system beside the flags that every engine gets. On cgroup v1
// that is nothing. On v2 the engine mounts the control groups read-only, and systemd needs its own subtree writable:
// CAP_SYS_ADMIN inside a private namespace may remount it, unless AppArmor's docker profile forbids every mount.
func (s *Stack) initFlags(ctx context.Context) ([]string, error) {
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

func (s *Stack) startSystemd(ctx context.Context, n Node, tag string, extra []string, more ...string) error {
	flags := append(s.netFlags(n), more...)
	if n.Kind == Postgres {
		// A volume, because some engines keep the writable layer on fuse-overlayfs, where every fsync costs CPU.
		flags = append(flags, "-v", "/var/lib/postgresql")
	}
	if err := s.startInit(ctx, n, tag, "/lib/systemd/systemd", append(flags, extra...)); err != nil {
		return err
	}
	return s.waitSystemd(ctx, n)
}

// startInit starts a container with an init system as its first process.
func (s *Stack) startInit(ctx context.Context, n Node, tag, program string, flags []string) error {
	args := append(s.runFlags(n),
		"--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined",
		"--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-e", "container=docker")
	args = append(args, flags...)
	args = append(args, tag)
	if slices.Contains(flags, "--cgroupns") {
		args = append(args, "sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec "+program)
	} else {
		args = append(args, program)
	}
	if _, err := s.docker.Output(ctx, args...); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return nil
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
