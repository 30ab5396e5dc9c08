package engine

import (
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// TestStep_AboutItself: what concerns the agent and its machine is found at once, and says what it is.
func TestStep_AboutItself(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   nodetest.Change
		code     node.Code
		severity node.Severity
		text     string
	}{
		{"broke a rule", func(s *node.Snapshot) { s.Self.Assertion = "two at once" }, node.AgentAssertion, node.Page, "two at once"},
		{"crashed", func(s *node.Snapshot) { s.Self.Crashes = node.CrashLimit }, node.AgentCrashLoop, node.Page, "5 times"},
		{"held here", func(s *node.Snapshot) { s.Orders.Holds = []node.Hold{{Kind: node.HoldPause, Owner: "ann"}} }, node.ActingHeld, node.Info, "ann"},
		{"held in etcd", func(s *node.Snapshot) {
			s.DCS.Shared.Value.Holds = []node.Hold{{Kind: node.HoldKill, Owner: "bob"}}
		}, node.ActingHeld, node.Info, "bob"},
		{"kill switch unreadable", func(s *node.Snapshot) { s.Orders.Unreadable = "EIO" }, node.ActingHeld, node.Info, "EIO"},
		{"upgrade where no Patroni is", func(s *node.Snapshot) {
			s.Machine = node.Seen(probe.Machine{Upgrades: []string{"opkg"}}, "process table", s.Now)
		}, node.UpgradeRunning, node.Info, "opkg"},
		{"upgrade", nodetest.With(func(p *node.PatroniFacts) { p.Machine.Value.Upgrades = []string{"dpkg", "apt-get"} }), node.UpgradeRunning, node.Info, "apt-get, dpkg"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(1, func(int) []nodetest.Change { return []nodetest.Change{tt.change} })
			f := r.finding(t, tt.code)
			if f.Severity != tt.severity || !strings.Contains(f.Text, tt.text) || f.Advice == "" {
				t.Errorf("%s %q, advice %q", f.Severity, f.Text, f.Advice)
			}
			if n := len(r.outputs[0].Findings); n != 1 {
				t.Errorf("%d findings", n)
			}
		})
	}
}

// TestStep_RemembersAnUpgrade: the grace counts from the last look that showed it.
func TestStep_RemembersAnUpgrade(t *testing.T) {
	r := run(20, func(i int) []nodetest.Change {
		return []nodetest.Change{nodetest.With(func(p *node.PatroniFacts) {
			if i < 10 {
				p.Machine.Value.Upgrades = []string{"dpkg"}
			}
		})}
	})
	if want := r.outputs[9].Memory.UpgradeSeen; r.mem.UpgradeSeen != want || want == 0 {
		t.Errorf("remembered %s, want %s", r.mem.UpgradeSeen, want)
	}
}
