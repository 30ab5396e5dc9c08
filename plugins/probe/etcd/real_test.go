//go:build e2e

package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var update = flag.Bool("update", false, "write what etcd answers to testdata")

// TestReal_Etcd asks real members, of the version in PATH. It is skipped without one.
func TestReal_Etcd(t *testing.T) {
	c := startCluster(t, 3)
	for i := range 3 {
		m := await(t, c[i].member, func(m probe.EtcdMember) bool { return m.Healthy && m.LeaderID != "" })
		if m.Outcome != probe.OutcomeAnswered || m.ClusterID == "" || m.Learner || m.DBSize == 0 || m.DBInUse == 0 || len(m.Alarms) != 0 || m.Detail != "" || m.RaftIndex == 0 {
			t.Fatalf("member %d: %+v", i, m)
		}
		c[i].id = m.MemberID
		hop, err := c[i].who.Probe(t.Context())
		if err != nil || hop != (probe.Hop{Outcome: probe.OutcomeAnswered, Identity: m.ClusterID + "/" + m.MemberID}) {
			t.Fatalf("hop of member %d: %+v, %v", i, hop, err)
		}
		if hop, err := c[i].asPeer.Probe(t.Context()); err != nil || hop != (probe.Hop{Outcome: probe.OutcomeAnswered}) {
			t.Fatalf("peer hop of member %d: %+v, %v", i, hop, err)
		}
	}
	capture(t, c[0], "healthy")

	signal(t, c[2], syscall.SIGSTOP)
	await(t, c[2].member, probe.EtcdMember.Silent)
	signal(t, c[2], syscall.SIGCONT)
	await(t, c[2].member, func(m probe.EtcdMember) bool { return m.Healthy })

	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		alarm(t, c[0], pb.AlarmRequest_ACTIVATE, kind)
		m := await(t, c[1].member, func(m probe.EtcdMember) bool { return len(m.Alarms) == 1 && !m.Healthy })
		if m.Alarms[0] != kind.String() || !saysWhy(m, "ALARM "+kind.String()) {
			t.Fatalf("alarm %v: %+v", kind, m)
		}
		capture(t, c[1], strings.ToLower(kind.String()))
		alarm(t, c[0], pb.AlarmRequest_DEACTIVATE, kind)
		await(t, c[1].member, func(m probe.EtcdMember) bool { return m.Healthy })
	}

	kill(t, c[2])
	if m, err := c[2].member.Probe(t.Context()); err != nil || m.Outcome != probe.OutcomeRefused || m.Health != probe.OutcomeRefused {
		t.Fatalf("dead member: %+v, %v", m, err)
	}
	kill(t, c[1])
	m := await(t, c[0].member, func(m probe.EtcdMember) bool { return m.LeaderID == "" })
	if !m.Alive() || m.Healthy || m.MemberID != c[0].id {
		t.Fatalf("member without quorum: %+v", m)
	}
	m = await(t, c[0].member, func(m probe.EtcdMember) bool { return m.Health == probe.OutcomeAnswered })
	if m.Healthy || !saysWhy(m, "RAFT NO LEADER") {
		t.Fatalf("member without quorum: %+v", m)
	}
	capture(t, c[0], "noleader")
}

// saysWhy reports whether /health gives a reason. That of Debian's 3.4.23 never does.
func saysWhy(m probe.EtcdMember, reason string) bool {
	return m.Reason == reason || m.Reason == "" && strings.HasPrefix(m.Version, "3.4.")
}

// TestReal_Removed: FAULTS.md F56. The others do not list a member that an operator has removed, and its process ends by itself.
// Without a quorum nobody lists anybody.
func TestReal_Removed(t *testing.T) {
	c := startCluster(t, 3)
	var ids []string
	for i := range c {
		ids = append(ids, await(t, c[i].member, func(m probe.EtcdMember) bool { return m.Healthy && m.LeaderID != "" }).MemberID)
	}
	list := func(of *running) probe.EtcdMembers {
		t.Helper()
		p, err := NewMembers(Config{URL: of.client}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if got := list(c[0]); len(got.IDs) != 3 || got.MemberID != ids[0] {
		t.Fatalf("%v listed as %+v", ids, got)
	}
	var id uint64
	if _, err := fmt.Sscanf(ids[2], "%x", &id); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, c[0])
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := pb.NewClusterClient(conn).MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: id})
		if err == nil {
			break
		}
		if time.Now().After(end) { // "unhealthy cluster" until the members have known each other for five seconds
			t.Fatal(err)
		}
	}
	if got := list(c[1]); len(got.IDs) != 2 || slices.Contains(got.IDs, ids[2]) {
		t.Fatalf("%s was removed, and there are %+v", ids[2], got)
	}
	_ = c[2].cmd.Wait() // it ends without being asked
	if m := await(t, c[2].member, func(m probe.EtcdMember) bool { return !m.Alive() }); m.Outcome != probe.OutcomeRefused {
		t.Errorf("removed member: %+v", m)
	}
	kill(t, c[1])
	await(t, c[0].member, func(m probe.EtcdMember) bool { return m.LeaderID == "" })
	if got := list(c[0]); len(got.IDs) > 0 {
		t.Errorf("without a quorum: %+v", got)
	} else {
		t.Logf("without a quorum: %+v", got)
	}
}

func TestReal_Learner(t *testing.T) {
	c := startCluster(t, 1)
	await(t, c[0].member, func(m probe.EtcdMember) bool { return m.Healthy })
	learner := newMember(t, "e9", nil)
	conn := dial(t, c[0])
	if _, err := pb.NewClusterClient(conn).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{learner.peer}, IsLearner: true}); err != nil {
		t.Fatal(err)
	}
	learner.start(t, "e1="+c[0].peer+",e9="+learner.peer, "--initial-cluster-state=existing")
	m := await(t, learner.member, func(m probe.EtcdMember) bool { return m.Outcome == probe.OutcomeAnswered })
	if !m.Learner {
		t.Fatalf("learner: %+v", m)
	}
	capture(t, learner, "learner")
}

func TestReal_Authentication(t *testing.T) {
	c := startCluster(t, 1)
	await(t, c[0].member, func(m probe.EtcdMember) bool { return m.Healthy })
	auth := pb.NewAuthClient(dial(t, c[0]))
	if _, err := auth.UserAdd(t.Context(), &pb.AuthUserAddRequest{Name: "root", Password: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.UserGrantRole(t.Context(), &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}); err != nil {
		t.Log(err) // older versions want the role first
		if _, err := auth.RoleAdd(t.Context(), &pb.AuthRoleAddRequest{Name: "root"}); err != nil {
			t.Fatal(err)
		}
		if _, err := auth.UserGrantRole(t.Context(), &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := auth.AuthEnable(t.Context(), &pb.AuthEnableRequest{}); err != nil {
		t.Fatal(err)
	}
	m, err := c[0].member.Probe(t.Context())
	if err != nil || !m.Alive() || m.Outcome != probe.OutcomeAnswered {
		t.Fatalf("with authentication: %+v, %v", m, err)
	}
	t.Logf("with authentication: %+v", m)
	list, err := NewMembers(Config{URL: c[0].client, Username: "root"}, Deps{Password: func() (string, error) { return "x", nil }})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := list.Probe(t.Context()); err != nil || !slices.Equal(got.IDs, []string{got.MemberID}) {
		t.Fatalf("members with authentication: %+v, %v", got, err)
	}
	capture(t, c[0], "auth")
}

func TestReal_TLS(t *testing.T) {
	dir := t.TempDir()
	config := certificates(t, dir)
	m := newMember(t, "e1", config)
	m.start(t, "e1="+m.peer, "--cert-file="+filepath.Join(dir, "cert.pem"), "--key-file="+filepath.Join(dir, "key.pem"),
		"--trusted-ca-file="+filepath.Join(dir, "cert.pem"), "--client-cert-auth")
	seen := await(t, m.member, func(m probe.EtcdMember) bool { return m.Healthy })
	if seen.Outcome != probe.OutcomeAnswered || seen.MemberID == "" {
		t.Fatalf("TLS: %+v", seen)
	}
	none := config.Clone()
	none.Certificates = nil
	for name, c := range map[string]struct {
		url string
		tls *tls.Config
	}{"no client certificate": {m.client, none}, "plain": {strings.Replace(m.client, "https", "http", 1), nil}} {
		p, err := NewMember(Config{URL: c.url}, Deps{TLS: c.tls})
		if err != nil {
			t.Fatal(err)
		}
		seen, err := p.Probe(t.Context())
		t.Logf("%s: %+v, %v", name, seen, err)
		if err == nil && seen.Alive() {
			t.Errorf("%s: %+v", name, seen)
		}
	}
}

// running is one member and the ways to look at it.
type running struct {
	name, client, peer, dir, id string
	member                      *Member
	who                         *Who
	asPeer                      *Peer
	cmd                         *exec.Cmd
}

func newMember(t *testing.T, name string, c *tls.Config) *running {
	t.Helper()
	r := &running{name: name, client: "http://" + freeAddr(t), peer: "http://" + freeAddr(t), dir: t.TempDir()}
	if c != nil {
		r.client = strings.Replace(r.client, "http", "https", 1)
	}
	var err error
	if r.member, err = NewMember(Config{URL: r.client}, Deps{TLS: c}); err != nil {
		t.Fatal(err)
	}
	if r.who, err = NewWho(Config{URL: r.client}, Deps{TLS: c}); err != nil {
		t.Fatal(err)
	}
	if r.asPeer, err = NewPeer(Config{URL: r.peer}, Deps{}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *running) start(t *testing.T, cluster string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("no etcd in PATH")
	}
	r.cmd = exec.CommandContext(t.Context(), path, append([]string{
		"--name", r.name, "--data-dir", r.dir, "--log-level", "error",
		"--listen-client-urls", r.client, "--advertise-client-urls", r.client,
		"--listen-peer-urls", r.peer, "--initial-advertise-peer-urls", r.peer, "--initial-cluster", cluster,
	}, args...)...)
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() })
}

func startCluster(t *testing.T, n int) []*running {
	t.Helper()
	var members []*running
	var urls []string
	for i := range n {
		m := newMember(t, fmt.Sprintf("e%d", i+1), nil)
		members, urls = append(members, m), append(urls, m.name+"="+m.peer)
	}
	for _, m := range members {
		m.start(t, strings.Join(urls, ","))
	}
	return members
}

func signal(t *testing.T, r *running, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, r *running) {
	t.Helper()
	signal(t, r, syscall.SIGKILL)
	_ = r.cmd.Wait()
}

func await(t *testing.T, p probe.Prober[probe.EtcdMember], ok func(probe.EtcdMember) bool) probe.EtcdMember {
	t.Helper()
	var m probe.EtcdMember
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if m, err = p.Probe(t.Context()); err == nil && ok(m) {
			return m
		}
	}
	t.Fatalf("awaited in vain: %+v, %v", m, err)
	return m
}

func dial(t *testing.T, r *running) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(r.client, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func alarm(t *testing.T, r *running, action pb.AlarmRequest_AlarmAction, kind pb.AlarmType) {
	t.Helper()
	var id uint64
	if _, err := fmt.Sscanf(r.id, "%x", &id); err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewMaintenanceClient(dial(t, r)).Alarm(t.Context(), &pb.AlarmRequest{Action: action, Alarm: kind, MemberID: id}); err != nil {
		t.Fatal(err)
	}
}

// capture writes what a member answers to testdata, for the tests that run without one.
func capture(t *testing.T, r *running, name string) {
	t.Helper()
	if !*update {
		return
	}
	var status reply
	outcome, detail, err := r.member.grpc.Ask(t.Context(), func(_ context.Context, conn net.Conn) (err error) {
		status, err = call(conn, r.member.grpc, question{method: pb.Maintenance_Status_FullMethodName})
		return err
	})
	if err != nil || outcome != probe.OutcomeAnswered {
		t.Fatal(outcome, detail, err)
	}
	health, err := r.member.http.Get(t.Context(), "/health", maxBody)
	if err != nil || health.Outcome != probe.OutcomeAnswered {
		t.Fatal(health, err)
	}
	version, err := r.asPeer.endpoint.Get(t.Context(), "/version", maxBody)
	if err != nil || version.Outcome != probe.OutcomeAnswered {
		t.Fatal(version, err)
	}
	var of struct{ Etcdserver string }
	if err := json.Unmarshal(version.Body, &of); err != nil {
		t.Fatal(err)
	}
	for kind, b := range map[string][]byte{"status": status.message, "health": health.Body, "version": version.Body} {
		if len(b) == 0 {
			continue // a Status that was refused
		}
		path := filepath.Join("testdata", kind, name+"-"+of.Etcdserver)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s: code %v %q, health %d %s, version %s", name, status.code, status.text, health.Status, health.Body, version.Body)
}

// certificates writes one certificate, of its own authority, for both sides, and returns the client's configuration.
func certificates(t *testing.T, dir string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e1"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	for name, b := range map[string][]byte{"cert.pem": cert, "key.pem": secret} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(cert, secret)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
