//go:build planted

package guard

import (
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// TestPlanted_EachGuardCanBeSwitchedOff: what only one guard refuses is allowed once that guard is off.
func TestPlanted_EachGuardCanBeSwitchedOff(t *testing.T) {
	in := hungInput(func(s *node.Snapshot) { s.Orders.Unreadable = "EIO" })
	t.Cleanup(func() { planted.Current = "" })
	for _, g := range node.Guards() {
		planted.Current = "guard/" + string(g)
		if got := len(Plan(in).Allowed) == 1; got != (g == node.GuardKillSwitch) {
			t.Errorf("with %s planted: allowed %t", planted.Current, got)
		}
	}
	planted.Current = "guard/unreadable-is-unset"
	if len(Plan(in).Allowed) != 1 {
		t.Error("a finer bug of the kill switch is not planted")
	}
}
