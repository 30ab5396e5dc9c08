package etcd

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// A member before 3.6 tells its quota among its metrics only, and those are some 170 kB: they are asked for once in a while.
const (
	maxMetrics   = 1 << 20
	quotaEvery   = 10 * time.Minute
	quotaMetric  = "etcd_server_quota_backend_bytes "
	longestQuota = 32 // characters of a number
)

// quota is what a member's metrics said of its quota.
type quota struct {
	http *probe.Endpoint

	mu    sync.Mutex // guards the rest, not the question
	bytes int64      // 0: not known
	asked time.Time
}

// of returns the quota, and asks for it where that is due. Metrics that cannot be had leave it unknown.
func (q *quota) of(ctx context.Context) int64 {
	q.mu.Lock()
	due := q.asked.IsZero() || time.Since(q.asked) >= quotaEvery
	if due {
		q.asked = time.Now()
	}
	known := q.bytes
	q.mu.Unlock()
	if !due {
		return known
	}
	r, err := q.http.Get(ctx, "/metrics", maxMetrics)
	if err != nil || r.Outcome != probe.OutcomeAnswered || r.Status != http.StatusOK {
		return known
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes = parseQuota(r.Body)
	return q.bytes
}

// forget lets the next question be due: the member ended, and another run may have another quota.
func (q *quota) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes, q.asked = 0, time.Time{}
}

// parseQuota finds the quota among metrics, 0 if there is none.
func parseQuota(metrics []byte) int64 {
	lines := bufio.NewScanner(bytes.NewReader(metrics))
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), quotaMetric)
		if !ok || len(text) > longestQuota {
			continue
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(n > 0 && n < 1<<60) {
			return 0
		}
		return int64(n)
	}
	return 0
}
