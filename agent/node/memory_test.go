package node

import (
	"testing"
	"time"
)

func TestTiming_Thresholds(t *testing.T) {
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, tt := range []struct {
		name            string
		timing          Timing
		missed, overdue time.Duration
	}{
		{"Patroni's defaults", Timing{TTL: sec(30), LoopWait: sec(10), RetryTimeout: sec(10)}, sec(18), sec(10)},
		{"a short loop is not impatience", Timing{TTL: sec(21), LoopWait: sec(2), RetryTimeout: sec(3)}, sec(14), sec(10.5)},
		{"a long ttl", Timing{TTL: sec(60), LoopWait: sec(10), RetryTimeout: sec(10)}, sec(40), sec(30)},
	} {
		if got := tt.timing.Missed(); got != tt.missed {
			t.Errorf("%s: missed below %s, want %s", tt.name, got, tt.missed)
		}
		if got := tt.timing.Overdue(); got != tt.overdue {
			t.Errorf("%s: overdue below %s, want %s", tt.name, got, tt.overdue)
		}
	}
}
