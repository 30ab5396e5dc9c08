package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// Status is one look at the whole stack. What could not be asked is absent or named in Problems, never guessed.
type Status struct {
	Stack    string            `json:"stack"`
	Subnet   string            `json:"subnet"`
	Nodes    []NodeStatus      `json:"nodes"`
	Members  []Member          `json:"members"`
	Paused   bool              `json:"paused"`
	Servers  map[string]string `json:"haproxy"` // HAProxy's server name to its status
	Timings  string            `json:"timings"`
	Problems []string          `json:"problems"` // why the stack is not in its healthy baseline; empty means healthy
}

// NodeStatus is what the engine says of a container.
type NodeStatus struct {
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	State string `json:"state"`
}

// Member is one member of the Patroni cluster as its REST API lists it.
type Member struct {
	Name     string          `json:"name"`
	Role     string          `json:"role"`
	State    string          `json:"state"`
	Timeline int             `json:"timeline"`
	Lag      json.RawMessage `json:"lag,omitempty"` // bytes, or "unknown"
}

type clusterView struct {
	Members []Member `json:"members"`
	Pause   bool     `json:"pause"`
}

type dynamicConfig struct {
	TTL          int  `json:"ttl"`
	LoopWait     int  `json:"loop_wait"`
	RetryTimeout int  `json:"retry_timeout"`
	Pause        bool `json:"pause"`
}

// lookScript prints the cluster and the dynamic configuration as the first Patroni that answers sees them, and
// HAProxy's table, separated by lines of "--". It runs in the HAProxy container.
const lookScript = `
for a in "$@"; do c=$(curl -sf -m 2 "http://$a:8008/cluster") && d=$(curl -sf -m 2 "http://$a:8008/config") && break; c=; d=; done
printf '%s\n--\n%s\n--\n' "$c" "$d"
echo 'show stat' | socat -t 2 - UNIX-CONNECT:/run/haproxy-admin.sock`

type look struct {
	cluster *clusterView // nil where no Patroni answered
	config  *dynamicConfig
	servers map[string]string
}

func (s *Stack) look(ctx context.Context) (look, error) {
	var addrs []string
	for _, n := range s.Of(Postgres) {
		addrs = append(addrs, n.Addr.String())
	}
	out, err := s.Exec(ctx, s.Proxy(), lookScript, addrs...)
	parts := strings.SplitN(out, "\n--\n", 3)
	if len(parts) < 3 {
		return look{}, fmt.Errorf("look at the stack: %w", err)
	}
	return parseLook(parts[0], parts[1], parts[2])
}

func parseLook(cluster, config, stat string) (look, error) {
	var l look
	if strings.TrimSpace(cluster) != "" {
		l.cluster, l.config = new(clusterView), new(dynamicConfig)
		if err := json.Unmarshal([]byte(cluster), l.cluster); err != nil {
			return look{}, fmt.Errorf("decode /cluster: %w", err)
		}
		if err := json.Unmarshal([]byte(config), l.config); err != nil {
			return look{}, fmt.Errorf("decode /config: %w", err)
		}
	}
	var err error
	l.servers, err = record.ParseStat([]byte(stat))
	return l, err
}

// Look asks the engine, Patroni and HAProxy for the state of the whole stack.
func (s *Stack) Look(ctx context.Context) (Status, error) {
	st := Status{Stack: s.Name, Subnet: s.subnet.String()}
	out, err := s.docker.Output(ctx, "ps", "-a", "--filter", "label="+s.label(), "--format", "{{.Names}} {{.State}}")
	if err != nil {
		return st, fmt.Errorf("list containers of stack %q: %w", s.Name, err)
	}
	states := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		if name, state, ok := strings.Cut(line, " "); ok {
			states[name] = state
		}
	}
	for _, n := range s.Nodes() {
		state := states[s.Container(n)]
		if state == "" {
			state = "absent"
		}
		st.Nodes = append(st.Nodes, NodeStatus{Name: n.Name, Addr: n.Addr.String(), State: state})
		if state != "running" && n.Kind != Agent {
			st.Problems = append(st.Problems, fmt.Sprintf("container %s is %s", n.Name, state))
		}
	}
	l, err := s.look(ctx)
	if err != nil {
		st.Problems = append(st.Problems, err.Error())
		return st, nil
	}
	st.Servers = l.servers
	if l.cluster != nil {
		st.Members, st.Paused = l.cluster.Members, l.cluster.Pause || l.config.Pause
		st.Timings = l.config.name()
	}
	st.Problems = append(st.Problems, l.problems()...)
	return st, nil
}

func (c dynamicConfig) name() string {
	for _, t := range AllTimings() {
		if t.TTL == c.TTL && t.LoopWait == c.LoopWait && t.RetryTimeout == c.RetryTimeout {
			return t.Name
		}
	}
	return fmt.Sprintf("ttl %d, loop_wait %d, retry_timeout %d", c.TTL, c.LoopWait, c.RetryTimeout)
}

// problems says what keeps the stack from its healthy baseline: three members, one leader that runs, two replicas
// that stream on its timeline, no pause, and HAProxy up for the leader alone.
func (l look) problems() []string {
	if l.cluster == nil {
		return []string{"no Patroni answers"}
	}
	var out []string
	if len(l.cluster.Members) != 3 {
		out = append(out, fmt.Sprintf("%d members instead of 3", len(l.cluster.Members)))
	}
	if l.cluster.Pause || l.config.Pause {
		out = append(out, "paused")
	}
	leader, timeline := "", 0
	for _, m := range l.cluster.Members {
		if m.Role == "leader" && m.State == "running" {
			leader, timeline = m.Name, m.Timeline
		}
	}
	if leader == "" {
		return append(out, "no leader that runs")
	}
	for _, m := range l.cluster.Members {
		if m.Name != leader && (m.State != "streaming" || m.Timeline != timeline) {
			out = append(out, fmt.Sprintf("%s is %s on timeline %d (leader: %d)", m.Name, m.State, m.Timeline, timeline))
		}
	}
	for _, name := range []string{"postgres-1", "postgres-2", "postgres-3"} {
		if up := l.servers[name] == "UP"; up != (name == leader) {
			out = append(out, fmt.Sprintf("HAProxy says %s is %q while %s leads", name, l.servers[name], leader))
		}
	}
	return out
}

// Leader returns the node that Patroni lists as its running leader. It asks whichever Patroni answers, so it also
// works while one of them hangs; it returns an error while there is none.
func (s *Stack) Leader(ctx context.Context) (Node, error) {
	l, err := s.look(ctx)
	if err != nil {
		return Node{}, err
	}
	if l.cluster != nil {
		for _, m := range l.cluster.Members {
			if m.Role == "leader" && m.State == "running" {
				return s.Node(m.Name)
			}
		}
	}
	return Node{}, errNoLeader
}

// waitHealthy waits until nothing is wrong in two looks in a row.
func (s *Stack) waitHealthy(ctx context.Context, limit time.Duration) error {
	deadline, good := time.Now().Add(limit), 0
	for {
		st, err := s.Look(ctx)
		switch {
		case err != nil:
			good, st.Problems = 0, []string{err.Error()}
		case len(st.Problems) == 0:
			good++
		default:
			good = 0
		}
		if good == 2 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for a healthy stack for %s: %s", limit, strings.Join(st.Problems, "; "))
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// Versions tells what runs in the stack, in one line.
func (s *Stack) Versions(ctx context.Context) (string, error) {
	const ask = `patroni --version | sed 's/^p/P/'; /usr/lib/postgresql/17/bin/postgres --version | sed 's/.*(PostgreSQL) \([0-9.]*\).*/PostgreSQL \1/'
etcd --version | sed -n 's/^etcd Version: /etcd /p'; haproxy -v | sed -n 's/^HAProxy version \([0-9.]*\).*/HAProxy \1/p'
systemctl --version | sed -n '1s/ (.*//p'`
	out, err := s.Exec(ctx, s.Of(Postgres)[0], ask)
	if err != nil {
		return "", fmt.Errorf("read versions: %w: %s", err, oneLine(out))
	}
	return strings.Join(strings.Split(strings.TrimSpace(out), "\n"), ", "), nil
}
