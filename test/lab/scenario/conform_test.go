package scenario

import (
	"testing"

	"github.com/pgpatrol/pgpatrol/test/conformance"
	"github.com/pgpatrol/pgpatrol/test/lab/fault"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// Captured from systemd 257 with journalctl -o short-unix, an automatic restart, a give-up and a stop.
func TestParseLife(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"1795601402.545524 pg2 systemd[1]: Started patroni.service - Runners to orchestrate a high-availability PostgreSQL.", conformance.Lives},
		{"1795601402.545524 pg2 systemd[1]: patroni.service: Main process exited, code=killed, status=9/KILL", conformance.Died},
		{"1795601402.545524 pg2 systemd[1]: patroni.service: Failed with result 'signal'.", ""},
		{"1795601402.545524 pg2 systemd[1]: patroni.service: Scheduled restart job, restart counter is at 1.", ""},
		{"1795601402.545524 pg2 systemd[1]: patroni.service: Start request repeated too quickly.", conformance.GivenUp},
		{"1795601402.545524 pg2 systemd[1]: Stopping patroni.service - Runners to orchestrate a high-availability PostgreSQL...", ""},
		{"1795601402.545524 pg2 systemd[1]: patroni.service: Deactivated successfully.", conformance.Stopped},
		{"-- No entries --", ""},
		{"", ""},
	} {
		at, got, err := parseLife(tt.line)
		if err != nil || got != tt.want || got != "" && at.UnixMicro() != 1795601402545524 {
			t.Errorf("%q: %q at %d, %v; want %q", tt.line, got, at.UnixMicro(), err, tt.want)
		}
	}
	if _, _, err := parseLife("Nov 25 pg2 systemd[1]: Started patroni.service"); err == nil {
		t.Error("a line without a time was read")
	}
}

func TestConformance_EveryVerbIsAFault(t *testing.T) {
	for _, s := range conformance.Scripts() {
		if _, err := stack.FindTimings(s.Timings); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		for _, st := range s.Steps {
			if st.Do == conformance.StartAgent {
				continue
			}
			name, ok := faultOf(st.Do)
			f, err := fault.Find(name)
			if !ok || err != nil {
				t.Errorf("%s: %q is no fault of the lab: %v", s.Name, st.Do, err)
			}
			if st.For > 0 && f.Undo == nil {
				t.Errorf("%s: %q cannot be undone", s.Name, st.Do)
			}
		}
	}
}
