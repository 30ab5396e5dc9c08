package observer

import (
	"context"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

const (
	configStable  = time.Second // a file that changes again is still being written (FAULTS.md F15)
	configTimeout = 30 * time.Second
	configRetry   = time.Minute // after a check that could not find out
	markTimeout   = 20 * time.Second
	markAgain     = 15 * time.Second // the log may lag behind what triggered the look
)

// configWatch decides when Patroni's validator has to look again: when the file has changed and then stayed the same.
type configWatch struct {
	seen    string // identity at the last look
	since   node.Instant
	checked string // identity that the current fact is about
	failed  node.Instant
	due     bool
}

// markWatch decides when Patroni's log has to be read again: after a start, a new data directory, or another state of the
// member, and once more a little later.
type markWatch struct {
	trigger string
	since   node.Instant
	looks   int
	member  string
	due     bool
}

// noticeMember notes this member's state in etcd: bootstrap shows there.
func (p *patroni) noticeMember(c node.Fact[node.Cluster]) {
	m, _ := c.Value.Member(p.Spec.Member)
	p.mu.Lock()
	p.mark.member = m.State
	p.mu.Unlock()
}

// noticeSlow finds out whether a slow look is due and wakes run.
func (p *patroni) noticeSlow(f node.PatroniFacts, now node.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noticeConfig(now)
	trigger := f.Unit.Value.InvocationID + " " + f.Postgres.Value.DataDirID + " " + p.mark.member
	if trigger != p.mark.trigger {
		p.mark = markWatch{trigger: trigger, since: now, member: p.mark.member}
	}
	if p.mark.looks == 0 || p.mark.looks == 1 && now.Sub(p.mark.since) >= markAgain {
		p.mark.due = true
	}
	if p.cfg.due || p.mark.due {
		select {
		case p.slow <- struct{}{}:
		default:
		}
	}
}

func (p *patroni) noticeConfig(now node.Instant) {
	id, err := p.Probes.ConfigID()
	if err != nil {
		id = "error: " + err.Error()
	}
	if id != p.cfg.seen {
		p.cfg.seen, p.cfg.since = id, now
	}
	if p.cfg.checked != "" && p.cfg.checked != id {
		// The verdict that is there is about another file: nothing may rest on it.
		p.cfg.checked = ""
		p.facts.Config = node.Unseen[probe.ConfigCheck]("patroni --validate-config", "the file has changed and is being checked", now)
	}
	first := p.facts.Config.At == 0
	stable := now.Sub(p.cfg.since) >= configStable
	retry := p.cfg.failed == 0 || now.Sub(p.cfg.failed) >= configRetry
	p.cfg.due = p.cfg.checked != id && retry && (first || stable)
}

// run performs slow looks when woken, one after the other.
func (p *patroni) run(ctx context.Context, now func() node.Instant, wake func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.slow:
		}
		p.mu.Lock()
		cfg, mark, id := p.cfg.due, p.mark.due, p.cfg.seen
		p.mu.Unlock()
		if cfg {
			p.checkConfig(ctx, id, now())
		}
		if mark {
			p.readMark(ctx, now())
		}
		wake()
	}
}

func (p *patroni) checkConfig(ctx context.Context, id string, at node.Instant) {
	c, cancel := context.WithTimeout(ctx, configTimeout)
	defer cancel()
	v, err := p.Probes.Config.Probe(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.due = false
	if err != nil {
		// An older verdict is about an older file: it does not count for this one.
		p.cfg.failed = at
		p.facts.Config = node.Unseen[probe.ConfigCheck]("patroni --validate-config", err.Error(), at)
		return
	}
	p.cfg.checked, p.cfg.failed = id, 0
	p.facts.Config = node.Seen(v, "patroni --validate-config", at)
}

func (p *patroni) readMark(ctx context.Context, at node.Instant) {
	c, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	v, err := p.Probes.LogMark.Probe(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark.due = false
	p.mark.looks++
	old := p.facts.LogMark
	if err == nil && old.Known && old.Value.SingleUserOnCopy && old.Value.DataDirID == v.DataDirID {
		return // the log rotates, the data directory does not
	}
	p.facts.LogMark = update(old, v, err, "Patroni's log", at)
}
