package dcs_test

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/dcs/dcstest"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Over a real connection: the certificate is checked against the endpoint's host.
func TestView_TLS(t *testing.T) {
	https := httptest.NewTLSServer(nil) // only for its certificate, made out to 127.0.0.1
	defer https.Close()
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	etcd := dcstest.New(1)
	defer etcd.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: https.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	etcd.Serve(0, l)
	etcd.Put(prefix+"leader", "pg1", etcd.Grant(time.Minute))
	tests := []struct {
		name  string
		roots *x509.CertPool
		known bool
	}{
		{"trusted", roots, true},
		{"not trusted", x509.NewCertPool(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := dcs.New(
				dcs.Config{
					Endpoints: []string{l.Addr().String()}, Namespace: "/patroni", Scope: "demo",
					TLS: &tls.Config{RootCAs: tt.roots, MinVersion: tls.VersionTLS12},
				},
				dcs.Deps{Logger: slog.New(slog.DiscardHandler), Now: func() node.Instant { return 1 }},
			)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			d := v.Observe(t.Context(), dcs.Routine)
			if d.Cluster.Known != tt.known || (!tt.known && !strings.Contains(d.Cluster.Why, "certificate")) {
				t.Fatalf("cluster = %+v", d.Cluster)
			}
		})
	}
}

// Many readers, one writer, and an etcd that falls apart: nothing races, the view never lies, and it comes back.
func TestView_ReadersWhileEverythingBreaks(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.follow()
		var wg sync.WaitGroup
		for reader := range 4 {
			wg.Go(func() {
				for i := range 60 {
					d := b.observe(dcs.Mode((reader + i) % 3))
					if d.Cluster.Known && d.Cluster.Value.Empty {
						t.Error("the view forgot its keys")
					}
					if d.Cluster.Known && d.Since == 0 && d.Cluster.Age(b.now()) > 10*time.Second {
						t.Errorf("%s old without saying so", d.Cluster.Age(b.now()))
					}
					time.Sleep(time.Duration(100+reader*37) * time.Millisecond)
				}
			})
		}
		wg.Go(func() {
			for i := range 30 {
				b.etcd.Cut(i%3, i%2 == 0)
				b.etcd.Hang((i+1)%3, i%4 == 0)
				b.etcd.Mute((i+2)%3, i%5 == 0)
				b.etcd.SetQuorum(i%7 != 0)
				b.etcd.Put(prefix+"leader", []string{"pg1", "pg2"}[i%2], b.lease)
				time.Sleep(300 * time.Millisecond)
			}
			for i := range 3 {
				b.etcd.Cut(i, false)
				b.etcd.Hang(i, false)
				b.etcd.Mute(i, false)
			}
			b.etcd.SetQuorum(true)
		})
		wg.Wait()
		time.Sleep(30 * time.Second)
		d := b.observe(dcs.Alert)
		wantFresh(t, b, d)
		want, _ := b.etcd.Value(prefix + "leader")
		if d.Cluster.Value.LeaderName() != want {
			t.Fatalf("leader = %q, want %q", d.Cluster.Value.LeaderName(), want)
		}
	})
}

// After Run has ended nothing is asked any more.
func TestView_Closed(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		before := b.observe(dcs.Routine)
		b.view.Close()
		b.view.Close()
		time.Sleep(time.Minute)
		asked := b.etcd.Requests("")
		d := b.observe(dcs.Confirm)
		if d.Cluster.At != before.Cluster.At || d.Since != 0 || d.Writable.Known || b.etcd.Requests("") != asked {
			t.Fatalf("dcs = %+v", d)
		}
		if err := b.view.Run(t.Context()); err == nil {
			t.Fatal("Run of a closed view returned nil")
		}
	})
}
