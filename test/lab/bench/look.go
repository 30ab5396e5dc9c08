package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// sampleScript prints what the kernel has counted for the programs of a node. Process ids are asked for first, so that
// the asking lies outside of what is compared as far as possible.
const sampleScript = `
for u in pgpatrol patroni haproxy dbus; do
  p=$(systemctl show -p MainPID --value $u.service); [ "${p:-0}" = 0 ] || pids="$pids $u:$p"
done
pids="$pids systemd:1"
echo "hz $(getconf CLK_TCK)"
cat /var/lib/pgpatrol/journal* 2>/dev/null | wc -c | sed 's/^/journal /'
for e in $pids; do
  n=${e%%:*}; p=${e##*:}
  if [ "$n" = pgpatrol ]; then
    sed -n 's/^\(VmRSS\|VmHWM\):\s*\([0-9]*\) kB/\1 \2/p' /proc/$p/status
    sed -n 's/^Pss:\s*\([0-9]*\) kB/Pss \1/p' /proc/$p/smaps_rollup 2>/dev/null
  fi
  echo "stat $n $(cat /proc/$p/stat)"
done
if [ -r /sys/fs/cgroup/cpuacct/cpuacct.usage ]; then echo "node $(cat /sys/fs/cgroup/cpuacct/cpuacct.usage)"
elif [ -r /sys/fs/cgroup/cpu.stat ]; then sed -n 's/^usage_usec \(.*\)/node \1000/p' /sys/fs/cgroup/cpu.stat
fi
echo "now $(date +%s%N)"`

// cpu is processor time.
type cpu struct {
	own      time.Duration // of the process
	children time.Duration // of the programs that it ran and that have ended
}

// sample is one look at a node.
type sample struct {
	now      time.Time
	programs map[string]program
	node     time.Duration // processor time of the whole container, 0 where it is not known
	rss      int64         // bytes, of the agent; 0 without one
	peak     int64
	pss      int64 // 0 where the kernel does not tell
	journal  int64 // bytes of all its files
}

// program is one process at one look.
type program struct {
	pid int
	cpu cpu
}

// parseSample reads what sampleScript printed.
func parseSample(text string) (sample, error) {
	s := sample{programs: map[string]program{}}
	hz := int64(0)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		key, rest, _ := strings.Cut(lines.Text(), " ")
		if key == "stat" {
			name, stat, _ := strings.Cut(rest, " ")
			p, err := parseStat(stat, hz)
			if err != nil {
				return s, fmt.Errorf("read /proc/PID/stat of %s: %w", name, err)
			}
			s.programs[name] = p
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		if err != nil {
			return s, fmt.Errorf("read sample: %q: %w", lines.Text(), err)
		}
		switch key {
		case "hz":
			hz = n
		case "journal":
			s.journal = n
		case "VmRSS":
			s.rss = n << 10
		case "VmHWM":
			s.peak = n << 10
		case "Pss":
			s.pss = n << 10
		case "node":
			s.node = time.Duration(n)
		case "now":
			s.now = time.Unix(0, n)
		}
	}
	if s.now.IsZero() {
		return s, errors.New("read sample: it is not whole")
	}
	return s, lines.Err()
}

// parseStat reads utime, stime, cutime and cstime, fields 14 to 17 of proc_pid_stat(5). The name in parentheses may
// hold anything, so fields are counted from its last parenthesis.
func parseStat(text string, hz int64) (program, error) {
	end := strings.LastIndexByte(text, ')')
	if end < 0 || hz <= 0 {
		return program{}, errors.New("no name, or no clock rate")
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 15 {
		return program{}, fmt.Errorf("%d fields", len(fields))
	}
	pid, err := strconv.Atoi(strings.Fields(text)[0])
	if err != nil {
		return program{}, fmt.Errorf("process id: %w", err)
	}
	var ticks [4]time.Duration
	for i := range ticks {
		n, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return program{}, fmt.Errorf("processor time: %w", err)
		}
		ticks[i] = time.Duration(n) * time.Second / time.Duration(hz)
	}
	return program{pid, cpu{ticks[0] + ticks[1], ticks[2] + ticks[3]}}, nil
}

// parseRequests adds up what clients have sent to an etcd member, by method: every unary request and every message on a
// stream, from etcd's own metrics.
func parseRequests(text string) (map[string]int64, error) {
	out := map[string]int64{}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "grpc_server_msg_received_total{")
		if !ok {
			continue
		}
		labels, value, ok := strings.Cut(rest, "} ")
		if !ok {
			continue
		}
		_, after, _ := strings.Cut(labels, `grpc_method="`)
		method, _, ok := strings.Cut(after, `"`)
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("read etcd's metrics: %q", strings.TrimSpace(line))
		}
		out[method] += int64(n)
	}
	return out, nil
}

// moment is one look at the whole stack.
type moment struct {
	at       time.Time
	nodes    map[string]sample
	requests map[string]int64 // to all etcd members, by method
}

// window is two looks and what lies between.
type window struct{ from, to moment }

func look(ctx context.Context, s *stack.Stack, d time.Duration) (window, error) {
	from, err := lookOnce(ctx, s)
	if err != nil {
		return window{}, err
	}
	if err := sleep(ctx, d); err != nil {
		return window{}, err
	}
	to, err := lookOnce(ctx, s)
	return window{from, to}, err
}

func lookOnce(ctx context.Context, s *stack.Stack) (moment, error) {
	m := moment{at: time.Now(), nodes: map[string]sample{}, requests: map[string]int64{}}
	nodes, members := s.AgentNodes(), s.Of(stack.Etcd)
	samples, requests := make([]sample, len(nodes)), make([]map[string]int64, len(members))
	g, gctx := errgroup.WithContext(ctx)
	for i, n := range nodes {
		g.Go(func() error {
			text, err := s.Exec(gctx, n, sampleScript)
			if err == nil {
				samples[i], err = parseSample(text)
			}
			if err != nil {
				return fmt.Errorf("look at %s: %w", n.Name, err)
			}
			return nil
		})
	}
	for i, n := range members {
		g.Go(func() error {
			text, err := s.Exec(gctx, n, `curl -sf -m 5 http://127.0.0.1:2379/metrics`)
			if err == nil {
				requests[i], err = parseRequests(text)
			}
			if err != nil {
				return fmt.Errorf("look at %s: %w", n.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return m, err
	}
	for i, n := range nodes {
		m.nodes[n.Name] = samples[i]
	}
	for _, r := range requests {
		for method, n := range r {
			m.requests[method] += n
		}
	}
	return m, nil
}
