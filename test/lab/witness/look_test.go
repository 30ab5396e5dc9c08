package witness

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

func TestOpenRC(t *testing.T) {
	const living = "79 (etcd) S 1 79 79 0 -1 1 2 3 4 5 6 7 8 9 20 0 9 0 4711 1 2\n"
	for _, tt := range []struct {
		name, mark, pid, stat string
		want                  record.Unit
	}{
		{"runs", "started", "79\n", living, record.Unit{Name: "etcd", ActiveState: "active", SubState: "started", MainPID: 79, InvocationID: "79 since 4711"}},
		{"its process is gone", "started", "80\n", living, record.Unit{Name: "etcd", ActiveState: "crashed", SubState: "started"}},
		{"no pidfile", "started", "", living, record.Unit{Name: "etcd", ActiveState: "crashed", SubState: "started"}},
		{"stops", "stopping", "79\n", living, record.Unit{Name: "etcd", ActiveState: "stopping", SubState: "stopping"}},
		{"stopped", "", "", living, record.Unit{Name: "etcd", ActiveState: "stopped"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(path, text string) {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.mark != "" {
				write("openrc/"+tt.mark+"/etcd", "")
			}
			if tt.pid != "" {
				write("etcd.pid", tt.pid)
			}
			write("proc/79/stat", tt.stat)
			if diff := cmp.Diff(tt.want, openRC("etcd", dir+"/openrc", dir, dir+"/proc")); diff != "" {
				t.Errorf("unit (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMember(t *testing.T) {
	healthy := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/v3/maintenance/status": // etcd 3.5.16
			_, _ = w.Write([]byte(`{"header":{"cluster_id":"8101","member_id":"15235","revision":"28","raft_term":"2"},"version":"3.5.16","dbSize":"36864","leader":"15235","raftIndex":"39","raftTerm":"2","raftAppliedIndex":"39","dbSizeInUse":"24576"}`))
		case r.URL.Path == "/health" && healthy:
			_, _ = w.Write([]byte(`{"health":"true","reason":""}`))
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	want := record.Etcd{Name: "e", Answered: true, Healthy: true, Member: "15235", Leader: "15235", Index: 39, Term: 2, Size: 36864}
	if diff := cmp.Diff(want, member(t.Context(), s.Client(), "e", s.URL)); diff != "" {
		t.Errorf("member (-want +got):\n%s", diff)
	}
	healthy = false
	if got := member(t.Context(), s.Client(), "e", s.URL); got.Healthy || !got.Answered {
		t.Errorf("member without a quorum = %+v", got)
	}
}

func TestKilobytes(t *testing.T) {
	const status = "Name:\tpgpatrol\nVmHWM:\t   23276 kB\nVmRSS:\t   23000 kB\n"
	if got := kilobytes([]byte(status), "VmHWM:"); got != 23276<<10 {
		t.Errorf("got %d", got)
	}
	if got := kilobytes([]byte(status), "RssAnon:"); got != 0 {
		t.Errorf("got %d for a line that is not there", got)
	}
}
