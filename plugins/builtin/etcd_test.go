package builtin_test

import (
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/plugins/builtin"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd/etcdtest"
)

func TestEtcd(t *testing.T) {
	first, dead, third := etcdtest.Serve(t, etcdtest.Config{}), etcdtest.Serve(t, etcdtest.Config{}), etcdtest.Serve(t, etcdtest.Config{})
	dead.Close()
	probes, err := builtin.Etcd(probe.EtcdTarget{URL: "http://" + first.Addr, Others: []string{"http://" + dead.Addr, "http://" + third.Addr}})
	if err != nil || len(probes.Others) != 2 {
		t.Fatal(probes, err)
	}
	for i, p := range append([]probe.Prober[probe.EtcdMember]{probes.Member}, probes.Others...) {
		if got, err := p.Probe(t.Context()); err != nil || got.Alive() != (i != 1) {
			t.Errorf("%d: got %+v, %v", i, got, err)
		}
	}
	for _, target := range []probe.EtcdTarget{{}, {URL: "http://x:1", Others: []string{"http://x:1", "x:1"}}} {
		if got, err := builtin.Etcd(target); err == nil || got.Member != nil {
			t.Errorf("%+v: got %+v", target, got)
		} else if len(target.Others) > 0 && !strings.HasPrefix(err.Error(), "others[1]: ") {
			t.Error(err)
		}
	}
}
