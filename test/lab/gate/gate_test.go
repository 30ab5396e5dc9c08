package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGate(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	engine := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.String()) }))
	engine.Listener = l
	engine.Start()
	t.Cleanup(engine.Close)

	var log bytes.Buffer
	told := []string{}
	s := httptest.NewServer(New(Config{Engine: socket, Containers: []string{"etcd-nas"}, Refuse: func() []string { return told }, Log: &log}))
	t.Cleanup(s.Close)
	for _, tt := range []struct {
		method, path string
		told         string
		pass         bool
	}{
		{"GET", "/_ping", "", true},
		{"GET", "/v1.41/events?since=1", "", true},
		{"GET", "/v1.41/containers/etcd-nas/json", "start", true},
		{"POST", "/v1.41/containers/etcd-nas/start", "", true},
		{"POST", "/v1.41/containers/etcd-nas/restart", "start", true},
		{"POST", "/v1.41/containers/etcd-nas/start", "start", false},
		{"GET", "/v1.41/containers/etcd-nas/start", "", false},
		{"POST", "/v1.41/containers/etcd-nas/stop", "", false},
		{"POST", "/v1.41/containers/etcd-nas/kill", "", false},
		{"DELETE", "/v1.41/containers/etcd-nas", "", false},
		{"GET", "/v1.41/containers/other/json", "", false},
		{"POST", "/v1.41/containers/other/../etcd-nas/start", "", false},
		{"GET", "/v1.41/containers/json", "", false},
		{"POST", "/v1.41/containers/create", "", false},
		{"POST", "/_ping", "", false},
	} {
		t.Run(tt.method+tt.path+tt.told, func(t *testing.T) {
			log.Reset()
			told = strings.Fields(tt.told)
			req, err := http.NewRequestWithContext(context.Background(), tt.method, s.URL+tt.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			var r Refusal
			refused := json.Unmarshal(log.Bytes(), &r) == nil
			if pass := resp.StatusCode == http.StatusOK && string(body) == tt.path; pass != tt.pass || refused == tt.pass {
				t.Errorf("status %d, answer %q, log %q; want it to pass: %t", resp.StatusCode, body, log.String(), tt.pass)
			}
			if refused && (r.Told != (tt.told != "") || time.Since(r.At) > time.Minute) {
				t.Errorf("refusal %+v", r)
			}
		})
	}
}
