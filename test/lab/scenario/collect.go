package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/docker"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// collector runs the witnesses and keeps what they say. Each is one long-lived stream into a container, so that a
// node which is cut from the network is still heard.
type collector struct {
	log *slog.Logger
	tap func(record.Record) // called for every record, nil for none

	mu   sync.Mutex // guards recs
	recs []record.Record

	witnesses int // that are heard of
	streams   []*docker.Stream
	running   sync.WaitGroup
	abandon   context.CancelFunc // ends the streams by force
}

// countsWithin is how long the witnesses may take to end: the writer reads its whole table.
const countsWithin = 45 * time.Second

// startCollector starts the writer in the HAProxy container, a watcher on every PostgreSQL node and the lookers, with rest one that asks
// Patroni's REST API too.
func startCollector(ctx context.Context, s *stack.Stack, id string, rest bool, log *slog.Logger, tap func(record.Record)) (*collector, error) {
	ctx, abandon := context.WithCancel(ctx)
	c := &collector{log: log, tap: tap, witnesses: 4 + len(lookers(s)), abandon: abandon}
	proxy := s.Proxy()
	err := c.start(ctx, s, proxy, "root", stack.WitnessPath, "-node", proxy.Name, "-run", id,
		"-etcd", strings.Join(s.EtcdURLs(), ","), "-leader-key", stack.Namespace+"/"+stack.Scope+"/leader", "write")
	for _, n := range s.Of(stack.Postgres) {
		argv := []string{stack.WitnessPath, "-node", n.Name}
		if rest {
			argv = append(argv, "-rest", "http://127.0.0.1:8008/liveness")
		}
		if err == nil {
			err = c.start(ctx, s, n, "postgres", append(argv, "watch")...)
		}
	}
	for _, n := range lookers(s) {
		if err == nil {
			err = c.look(ctx, s, n)
		}
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// lookers are the nodes on which managers other than the databases' systemd, and members of etcd, are asked.
func lookers(s *stack.Stack) []stack.Node {
	if !s.Homelab {
		return nil
	}
	return []stack.Node{s.Must(stack.TheEngine), s.Must(stack.MBP), s.Must(stack.JP1)}
}

// look starts the witness of such a node. One that ended with its container is started again by the same call.
func (c *collector) look(ctx context.Context, s *stack.Stack, n stack.Node) error {
	argv := []string{stack.WitnessPath, "-node", n.Name, "-units", ""}
	url := func(name string) string { return name + "=http://" + s.Must(name).Addr.String() + ":2379" }
	pair := func(name string) string { return name + "=" + s.Container(s.Must(name)) }
	switch n.Name {
	case stack.TheEngine:
		argv = append(argv, "-containers", pair(stack.EtcdNAS)+","+pair(stack.EtcdMBP), "-memory", pair(stack.NAS), "-etcd", url(stack.EtcdNAS)+","+
			string(through)+"=http://"+s.Must(stack.MBP).Addr.String()+":2379")
	case stack.MBP:
		argv = append(argv, "-units", stack.Socat+","+stack.SocatPeer+","+stack.VM, "-etcd", stack.EtcdMBP+"=http://127.0.0.1:2379")
	case stack.JP1:
		argv = append(argv, "-openrc", stack.EtcdJP1, "-etcd", url(stack.JP1))
	}
	return c.start(ctx, s, n, "root", append(argv, "look")...)
}

func (c *collector) start(ctx context.Context, s *stack.Stack, n stack.Node, user string, argv ...string) error {
	stream, err := s.Stream(ctx, n, user, argv...)
	if err != nil {
		return fmt.Errorf("start witness on %s: %w", n.Name, err)
	}
	c.streams = append(c.streams, stream)
	c.running.Go(func() {
		err := errors.Join(stream.Lines(c.line), stream.Wait())
		if err != nil && ctx.Err() == nil {
			// A container that is killed takes its witness along; judges see the silence.
			c.log.Warn("witness ended", "node", n.Name, "err", err)
		}
	})
	return nil
}

func (c *collector) line(text []byte) {
	r, err := record.Parse(text)
	if err != nil {
		c.log.Warn("witness said something unreadable", "err", err)
		return
	}
	c.add(r)
}

func (c *collector) add(r record.Record) {
	c.mu.Lock()
	c.recs = append(c.recs, r)
	c.mu.Unlock()
	if c.tap != nil {
		c.tap(r)
	}
}

func (c *collector) mark(name, text string) time.Time {
	now := time.Now().UTC()
	c.add(record.Record{At: now, Node: "lab", Mark: &record.Mark{Name: name, Text: text}})
	return now
}

// records returns a copy of what was said so far, in the order of time.
func (c *collector) records() []record.Record {
	c.mu.Lock()
	recs := slices.Clone(c.recs)
	c.mu.Unlock()
	slices.SortStableFunc(recs, func(a, b record.Record) int { return a.At.Compare(b.At) })
	return recs
}

// ready reports whether the writer and every watcher were heard.
func (c *collector) ready() bool {
	heard := map[string]bool{}
	for _, r := range c.records() {
		if r.Beat != nil && r.Beat.Acknowledged > 0 || r.PG != nil && r.PG.Answered || r.Etcd != nil && r.Etcd.Healthy {
			heard[r.Node] = true
		}
	}
	return len(heard) == c.witnesses
}

// stop tells the witnesses to end and waits for them; the writer counts its lost writes meanwhile. An engine may forget to
// end a command in a container that was removed (20.10, with the machine's own process table).
func (c *collector) stop() {
	late := time.AfterFunc(countsWithin, c.abandon)
	defer late.Stop()
	defer c.abandon()
	for _, s := range c.streams {
		s.CloseInput()
	}
	c.running.Wait()
}

// journalRecords turns an agent's journal into records. Lines that cannot be read count as an intent of unknown
// content: a judge must not take them for nothing.
func journalRecords(node string, text []byte, at time.Time) []record.Record {
	var out []record.Record
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		var head struct {
			Kind string `json:"kind"`
		}
		j := &record.Journal{Kind: "intent", Line: json.RawMessage(`"unreadable"`)}
		if err := json.Unmarshal(line, &head); err == nil && json.Valid(line) {
			j = &record.Journal{Kind: head.Kind, Line: bytes.Clone(line)}
		}
		out = append(out, record.Record{At: at, Node: node, Journal: j})
	}
	return out
}

// Witness writes and watches until the context ends, and hands every record to f, from several goroutines.
func Witness(ctx context.Context, s *stack.Stack, log *slog.Logger, f func(record.Record)) error {
	// The streams must outlive the context: they are told to end, and count what was lost.
	c, err := startCollector(context.WithoutCancel(ctx), s, fmt.Sprintf("witness-%d", time.Now().UnixNano()), false, log, f)
	if err != nil {
		return err
	}
	<-ctx.Done()
	c.stop()
	return nil
}
