package observer

import (
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/engine"
)

// TestRoutine_UnitStaysFresh: a unit that was just not due is decided upon one tick and one slow look later. Were it older
// by then than the engine accepts, every finding about a stopped unit would be cleared and opened again every ten seconds.
func TestRoutine_UnitStaysFresh(t *testing.T) {
	const tick = 2 * time.Second // of the loop, see package agent
	slowest := unitTimeout       // of the looks that run beside each other
	if age := everyUnit[Routine] + tick + slowest; age > engine.FreshLocal {
		t.Errorf("a unit may be %s old in a decision, the engine accepts %s", age, engine.FreshLocal)
	}
}
