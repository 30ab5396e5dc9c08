package builtin

import (
	"fmt"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd"
)

// Etcd returns the ways to look at one member of etcd and at the others of its cluster.
func Etcd(t probe.EtcdTarget) (probe.EtcdProbes, error) {
	member, err := etcd.NewMember(etcd.Config{URL: t.URL, Quota: true}, etcd.Deps{TLS: t.TLS})
	if err != nil {
		return probe.EtcdProbes{}, err
	}
	out := probe.EtcdProbes{Member: member}
	for i, url := range t.Others {
		other, err := etcd.NewMember(etcd.Config{URL: url}, etcd.Deps{TLS: t.TLS})
		if err != nil {
			return probe.EtcdProbes{}, fmt.Errorf("others[%d]: %w", i, err)
		}
		list, err := etcd.NewMembers(etcd.Config{URL: url, Username: t.Username}, etcd.Deps{TLS: t.TLS, Password: t.Password})
		if err != nil {
			return probe.EtcdProbes{}, fmt.Errorf("others[%d]: %w", i, err)
		}
		out.Others, out.Lists = append(out.Others, other), append(out.Lists, list)
	}
	return out, nil
}
