//go:build planted

package guard

import (
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// TestPlanted_IsNoticed plants every bug of the guards in turn: at least one case must then end otherwise than it should.
// A bug that none notices is either masked by another rule, or tested by nobody.
func TestPlanted_IsNoticed(t *testing.T) {
	t.Cleanup(func() { planted.Current = "" })
	for bug := range planted.List(node.Guards()) {
		if !strings.HasPrefix(bug, "guard/") {
			continue
		}
		planted.Current = bug
		noticed := 0
		for _, tt := range append(guardCases(), serviceCases()...) {
			if allowed := len(Plan(tt.input()).Allowed) == 1; allowed != (tt.refused == "") {
				noticed++
			}
		}
		if noticed == 0 {
			t.Errorf("nobody notices %s", bug)
		}
	}
}
