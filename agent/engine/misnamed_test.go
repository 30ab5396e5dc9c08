package engine

import (
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// TestStep_MisnamedLeaderIsNoZombie: a wrong member name in pgpatrol's configuration makes the key name "another" member
// while PostgreSQL here is writable. As long as Patroni itself goes by the name in the key, there is one primary.
func TestStep_MisnamedLeaderIsNoZombie(t *testing.T) {
	led := nodetest.Led(nodetest.Other, true)
	api := nodetest.With(func(p *node.PatroniFacts) { p.API.Value.Name = nodetest.Other })
	noAPI := nodetest.With(func(p *node.PatroniFacts) { p.API.Known, p.API.Value = false, probe.PatroniAPI{} })
	file := nodetest.With(func(p *node.PatroniFacts) { p.Config.Value.Name = nodetest.Other })
	noFile := nodetest.With(func(p *node.PatroniFacts) { p.Config.Known, p.Config.Value = false, probe.ConfigCheck{} })
	for _, tt := range []struct {
		name    string
		changes []nodetest.Change
		zombie  bool
	}{
		{"its file has the leader's name", []nodetest.Change{led, api, file}, false},
		{"stopped before it was heard, its file has the leader's name", []nodetest.Change{nodetest.Stopped(), led, noAPI, file}, false},
		{"its API goes by the leader's name and its file has none", []nodetest.Change{nodetest.Stopped(), led, api, noFile}, false},
		{"its file has its own name, so the API is the leader's", []nodetest.Change{led, api}, true},
		{"nothing is known of its name", []nodetest.Change{nodetest.Stopped(), led, noAPI, noFile}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(10, func(int) []nodetest.Change { return tt.changes })
			if got := r.firstFinding(node.ZombiePrimary) >= 0; got != tt.zombie {
				t.Errorf("zombie found: %t, want %t", got, tt.zombie)
			}
		})
	}
}
