//go:build e2e

package dcs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// TestReal_Etcd asks a real etcd what the fake is asked elsewhere. It needs etcd in PATH and is skipped without it.
func TestReal_Etcd(t *testing.T) {
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("no etcd in PATH")
	}
	addr := startEtcd(t, path)
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = etcd.Close() })
	ctx := t.Context()
	write := func(key, value string, lease clientv3.LeaseID) {
		t.Helper()
		if _, err := etcd.Put(ctx, prefix+key, value, clientv3.WithLease(lease)); err != nil {
			t.Fatal(err)
		}
	}
	write("config", config, 0)
	lease, err := etcd.Grant(ctx, 30)
	if err != nil {
		t.Fatal(err)
	}
	write("leader", "pg1", lease.ID)
	write("members/pg1", memberJSON("pg1", "primary"), lease.ID)

	start, out := time.Now(), &logs{}
	v, err := dcs.New(
		dcs.Config{Endpoints: []string{"http://" + addr}, Namespace: "/patroni", Scope: "demo", Member: "pg1"},
		dcs.Deps{Logger: slog.New(slog.NewTextHandler(out, nil)), Now: func() node.Instant { return node.Instant(time.Hour + time.Since(start)) }},
	)
	if err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Run(following) })
	t.Cleanup(func() { stop(); wg.Wait() })
	awaitChange(t, v)

	d := v.Observe(ctx, dcs.Confirm)
	if d.Cluster.Value.LeaderName() != "pg1" || d.Since != 0 || !d.Writable.Value || !d.MemberLease.Value.Exists ||
		d.MemberLease.Value.Granted != 30*time.Second || !d.Alarms.Known {
		t.Fatalf("dcs = %+v", d)
	}
	// The answer to a lease that is gone, and a watch that tells of it.
	if _, err := etcd.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	awaitChange(t, v)
	if d = v.Observe(ctx, dcs.Alert); d.Cluster.Value.Leader != nil || !d.MemberLease.Known || d.MemberLease.Value.Exists {
		t.Fatalf("dcs = %+v", d)
	}
	// An idle watch shows life when asked, or it would be taken for stalled.
	before := v.Requests()
	time.Sleep(22 * time.Second)
	if n := v.Requests() - before; n != 0 || out.String() != "" {
		t.Fatalf("%d requests while idle, logs:\n%s", n, out)
	}
	key := node.LockKey("demo", node.LockCluster)
	own, _, err := v.Grant(ctx, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	created, _, err := v.Create(ctx, key, "hp1", own)
	if err != nil || created == 0 {
		t.Fatalf("Create: %d, %v", created, err)
	}
	if again, holder, err := v.Create(ctx, key, "hp2", own); again != 0 || holder != "hp1" || err != nil {
		t.Fatalf("second Create: %d, %q, %v", again, holder, err)
	}
	awaitChange(t, v)
	if d = v.Observe(ctx, dcs.Confirm); d.Shared.Value.Lock != "hp1" {
		t.Fatalf("shared = %+v", d.Shared)
	}
	if has, err := v.Has(ctx, key, created); !has || err != nil {
		t.Fatalf("Has: %v, %v", has, err)
	}
	if was, err := v.Delete(ctx, key, created); !was || err != nil {
		t.Fatalf("Delete: %v, %v", was, err)
	}
	if has, err := v.Has(ctx, key, created); has || err != nil {
		t.Fatalf("Has after Delete: %v, %v", has, err)
	}
	if _, err := pb.NewMaintenanceClient(etcd.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: d.Cluster.Value.ClusterID, Alarm: pb.AlarmType_NOSPACE,
	}); err != nil {
		t.Fatal(err)
	}
	if d = v.Observe(ctx, dcs.Confirm); !d.Writable.Known || d.Writable.Value || len(d.Alarms.Value) != 1 || d.Since != 0 {
		t.Fatalf("dcs = %+v", d)
	}
	if _, _, err := v.Grant(ctx, 5*time.Second); !errors.Is(err, dcs.ErrReadOnly) {
		t.Fatalf("Grant under NOSPACE: %v", err)
	}
}

func awaitChange(t *testing.T, v *dcs.View) {
	t.Helper()
	select {
	case <-v.Changed():
	case <-time.After(10 * time.Second):
		t.Fatal("nothing changed")
	}
}

// startEtcd runs one member on loopback and returns its client address.
func startEtcd(t *testing.T, path string) string {
	t.Helper()
	client, peer := freeAddr(t), freeAddr(t)
	cmd := exec.CommandContext(t.Context(), path, "--name", "e1", "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", fmt.Sprintf("e1=http://%s", peer))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return client
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
