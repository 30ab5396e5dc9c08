package stack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// SettleLimit is how long Settle waits for the baseline before it gives the stack up.
const SettleLimit = 90 * time.Second

// Settle undoes every fault, stops the agents, and brings the stack back to its healthy baseline with the given
// timings. Where that does not work within SettleLimit it makes the whole stack anew.
func (s *Stack) Settle(ctx context.Context, t Timings) error {
	err := s.settle(ctx, t)
	if err == nil || ctx.Err() != nil {
		return err
	}
	s.log.Warn("stack does not settle, making it anew", "err", err)
	return s.Up(ctx, t)
}

func (s *Stack) settle(ctx context.Context, t Timings) error {
	limit, cancel := context.WithTimeout(ctx, SettleLimit)
	defer cancel()
	if err := s.StopAgents(limit); err != nil {
		return err
	}
	// etcd first: a Patroni that starts without it only waits.
	if err := s.restoreEtcd(limit); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(limit)
	for _, n := range s.Nodes() {
		if n.Kind == Postgres || n.Kind == HAProxy {
			g.Go(func() error { return s.restore(gctx, n) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.apply(limit, t); err != nil {
		return err
	}
	return s.waitHealthy(limit, SettleLimit)
}

// revive brings a container itself back: unpaused, started, connected.
func (s *Stack) revive(ctx context.Context, n Node) error {
	c := s.Container(n)
	out, err := s.docker.Output(ctx, "inspect", "--format", "{{.State.Status}} {{len .NetworkSettings.Networks}}", c)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", n.Name, err)
	}
	state, networks, _ := strings.Cut(out, " ")
	if networks == "0" && n.Name != EtcdMBP { // which shares mbp's
		if err := s.connect(ctx, n); err != nil {
			return err
		}
	}
	verb := map[string]string{"paused": "unpause", "exited": "start", "created": "start", "dead": "start", "restarting": "restart"}[state]
	if verb == "" {
		return nil
	}
	if _, err := s.docker.Output(ctx, verb, c); err != nil {
		return fmt.Errorf("%s %s: %w", verb, n.Name, err)
	}
	switch {
	case verb != "start":
	case n.Init == Systemd:
		return s.waitSystemd(ctx, n)
	case n.Init == OpenRC:
		return s.waitOpenRC(ctx, n)
	}
	return nil
}

func (s *Stack) connect(ctx context.Context, n Node) error {
	if _, err := s.docker.Output(ctx, "network", "connect", "--ip", n.Addr.String(), "--alias", n.Name, s.network(), s.Container(n)); err != nil {
		return fmt.Errorf("connect %s: %w", n.Name, err)
	}
	return nil
}

// Connect puts a disconnected node back on the stack's network, at its own address.
func (s *Stack) Connect(ctx context.Context, n Node) error { return s.connect(ctx, n) }

func (s *Stack) restore(ctx context.Context, n Node) error {
	if err := s.revive(ctx, n); err != nil {
		return err
	}
	kind := "pg"
	if n.Kind == HAProxy {
		kind = "haproxy"
	}
	if _, err := s.ExecInput(ctx, n, strings.NewReader(restoreScript), `sh -s "$1"`, kind); err != nil {
		return fmt.Errorf("undo the faults of %s: %w", n.Name, err)
	}
	return nil
}

func (s *Stack) restoreEtcd(ctx context.Context) error {
	var err error
	if s.Homelab {
		err = s.restoreHomelab(ctx)
	} else {
		g, gctx := errgroup.WithContext(ctx)
		for _, n := range s.Of(Etcd) {
			g.Go(func() error { return s.restoreContainer(gctx, n) })
		}
		err = g.Wait()
	}
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	// Disarming does nothing where no alarm is raised, and fails while there is no quorum yet. Hostile keys begin with
	// "lab-", as a member or as a scope. What agents shared, the budget of an hour above all, ends with the run.
	_, err = s.Exec(ctx, s.Of(Etcd)[0], `for i in $(seq 40); do
  if etcdctl --command-timeout=2s alarm disarm >/dev/null 2>&1; then
    for p in "$@"; do etcdctl del --prefix "$p" >/dev/null || exit 1; done; exit 0
  fi
  sleep .5
done; exit 1`, Namespace+"/"+Scope+"/members/lab-", Namespace+"/lab-", "/pgpatrol/")
	if err != nil {
		return fmt.Errorf("wait for etcd's quorum: %w", err)
	}
	return nil
}

// restoreContainer brings a member back that is a container.
func (s *Stack) restoreContainer(ctx context.Context, n Node) error {
	if err := s.revive(ctx, n); err != nil {
		return err
	}
	_, err := s.docker.Output(ctx, "update", "--restart=always", s.Container(n))
	return err
}

// apply sets the timings and ends a pause, through Patroni's own API, and waits until a leader follows them.
func (s *Stack) apply(ctx context.Context, t Timings) error {
	body := fmt.Sprintf(`{"pause":null,"ttl":%d,"loop_wait":%d,"retry_timeout":%d}`, t.TTL, t.LoopWait, t.RetryTimeout)
	for {
		l, err := s.look(ctx)
		if err == nil && l.config != nil && !l.config.Pause && l.config.name() == t.Name {
			return nil
		}
		if err == nil && l.config != nil {
			err = s.PatchConfig(ctx, body)
		}
		if perr := pause(ctx, time.Second); perr != nil {
			return fmt.Errorf("apply timings %s: %w", t.Name, errors.Join(perr, err))
		}
	}
}

// PatchConfig changes Patroni's dynamic configuration through the first Patroni that answers.
func (s *Stack) PatchConfig(ctx context.Context, body string) error {
	args := []string{body}
	for _, n := range s.Of(Postgres) {
		args = append(args, n.Addr.String())
	}
	const script = `body=$1; shift; for a in "$@"; do curl -sf -m 3 -o /dev/null -X PATCH -d "$body" "http://$a:8008/config" && exit 0; done; exit 1`
	if _, err := s.Exec(ctx, s.Proxy(), script, args...); err != nil {
		return fmt.Errorf("patch Patroni's configuration: %w", err)
	}
	return nil
}
