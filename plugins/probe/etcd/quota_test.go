package etcd

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd/etcdtest"
)

// metrics are those of etcd 3.5.16 around the one that counts.
const metrics = `# HELP etcd_server_proposals_pending The current number of pending proposals to commit.
# TYPE etcd_server_proposals_pending gauge
etcd_server_proposals_pending 0
# HELP etcd_server_quota_backend_bytes Current backend storage quota size in bytes.
# TYPE etcd_server_quota_backend_bytes gauge
etcd_server_quota_backend_bytes 2.147483648e+09
# HELP etcd_server_read_indexes_failed_total The total number of failed read indexes seen.
`

func TestParseQuota(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want int64
	}{
		"3.5":        {metrics, 2 << 30},
		"whole":      {"etcd_server_quota_backend_bytes 33554432\n", 32 << 20},
		"none":       {strings.Replace(metrics, "\netcd_server_quota", "\netcd_server_other", 1), 0},
		"no number":  {"etcd_server_quota_backend_bytes much\n", 0},
		"negative":   {"etcd_server_quota_backend_bytes -1\n", 0},
		"NaN":        {"etcd_server_quota_backend_bytes NaN\n", 0},
		"boundless":  {"etcd_server_quota_backend_bytes +Inf\n", 0},
		"much text":  {"etcd_server_quota_backend_bytes " + strings.Repeat("1", 40) + "\n", 0},
		"other text": {"<html>", 0},
	} {
		if got := parseQuota([]byte(tt.text)); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

func FuzzParseQuota(f *testing.F) {
	f.Add([]byte(metrics))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n := parseQuota(text); n < 0 {
			t.Errorf("quota %d", n)
		}
	})
}

// TestMember_Quota: a member before 3.6 is asked for its metrics once in a while, and again after it was gone (FAULTS.md F42).
func TestMember_Quota(t *testing.T) {
	var asked atomic.Int32
	silent, old := atomic.Bool{}, etcdtest.Healthy()
	old.Version, old.DbSizeQuota = "3.5.16", 0
	m := etcdtest.Serve(t, etcdtest.Config{
		Status: func() (*etcdserverpb.StatusResponse, error) {
			if silent.Load() {
				return nil, http.ErrAbortHandler
			}
			return old, nil
		},
		Metrics: func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			etcdtest.Says(http.StatusOK, metrics)(w, r)
		},
	})
	p, err := NewMember(Config{URL: "http://" + m.Addr, Quota: true}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	probeQuota := func(want int64, questions int32) {
		t.Helper()
		seen, err := p.Probe(t.Context())
		if err != nil || seen.DBQuota != want || asked.Load() != questions {
			t.Errorf("quota %d after %d questions, %v; want %d after %d", seen.DBQuota, asked.Load(), err, want, questions)
		}
	}
	probeQuota(2<<30, 1)
	probeQuota(2<<30, 1)
	silent.Store(true)
	probeQuota(0, 1)
	silent.Store(false)
	probeQuota(2<<30, 2)
	old.DbSizeQuota = 1 << 20 // 3.6 says so itself
	probeQuota(1<<20, 2)
	if seen, err := member(t, m.Addr).Probe(t.Context()); err != nil || seen.DBQuota != 1<<20 || asked.Load() != 2 {
		t.Errorf("another member: %d, %v, %d questions", seen.DBQuota, err, asked.Load())
	}
}
