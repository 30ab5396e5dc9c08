package engine

import (
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// TestStep_StoppedSaysHowBadItIs: what a stopped Patroni means depends on how it ended and on who leads. Nothing is ever
// proposed that a guard would let pass.
func TestStep_StoppedSaysHowBadItIs(t *testing.T) {
	un, cl := nodetest.WithUnit, nodetest.WithCluster
	stopped := un(func(s *service.Status) { s.State, s.Detail, s.MainPID = service.StateStopped, "inactive/dead", 0 })
	hup := un(func(s *service.Status) { s.ExitStatus = 1 })
	disabled := un(func(s *service.Status) { s.Enablement = "disabled" })
	gone := nodetest.With(func(p *node.PatroniFacts) { p.Postgres.Value.Running = false })
	led, nobody := nodetest.Led(nodetest.Other, false), cl(func(c *node.Cluster) { c.Leader = nil })
	paused := cl(func(c *node.Cluster) { c.Config.Pause = true })
	for _, tt := range []struct {
		name     string
		changes  []nodetest.Change
		seconds  int
		severity node.Severity
		text     string
	}{
		{"F07 a replica", []nodetest.Change{stopped, gone, led}, 60, node.Info, "was stopped on purpose"},
		{"F07 the leader, while it hands over", []nodetest.Change{stopped, gone, nobody}, 4, node.Info, "was stopped on purpose"},
		{"F07 the leader, and nobody takes over", []nodetest.Change{stopped, gone, nobody}, 8, node.Page, "Nobody holds the leader key"},
		{"F12 the leader of a paused cluster keeps its key", []nodetest.Change{stopped, paused}, 8, node.Page, "still holds the leader key"},
		{"PostgreSQL left behind", []nodetest.Change{stopped, led}, 8, node.Warn, "nobody manages it"},
		{"F08 masked while it runs, and being stopped", []nodetest.Change{led, un(func(s *service.Status) { s.State, s.Masked = service.StateStopping, true })}, 8, node.Info, "was stopped on purpose"},
		{"F10 ended by a reload", []nodetest.Change{stopped, gone, led, hup}, 8, node.Warn, "SIGHUP"},
		{"F08 disabled", []nodetest.Change{stopped, gone, led, disabled}, 8, node.Info, "unit file disabled"},
		{"F08 disabled and failed", []nodetest.Change{nodetest.Failed("signal"), led, disabled}, 8, node.Warn, "its unit is disabled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(tt.seconds, func(int) []nodetest.Change { return tt.changes })
			f := r.finding(t, node.PatroniStopped)
			if f.Severity != tt.severity || !strings.Contains(f.Text, tt.text) {
				t.Errorf("%s %q, want %s with %q", f.Severity, f.Text, tt.severity, tt.text)
			}
		})
	}
}
