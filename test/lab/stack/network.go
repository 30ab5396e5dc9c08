package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// createNetwork makes the stack's bridge on a /24 that neither the engine nor this machine uses yet.
func (s *Stack) createNetwork(ctx context.Context) error {
	used, err := s.usedPrefixes(ctx)
	if err != nil {
		return err
	}
	var last error
	for i := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte(i), 0}), 24)
		if overlapsAny(p, used) {
			continue
		}
		_, last = s.docker.Output(ctx, "network", "create", "--driver", "bridge", "--subnet", p.String(), "--label", s.label(),
			"--label", fmt.Sprintf("%s.homelab=%t", Label, s.Homelab), s.network())
		if last == nil {
			s.subnet = p
			return nil
		}
		// Another stack may have taken it a moment ago.
		if !strings.Contains(last.Error(), "overlaps") {
			break
		}
	}
	return fmt.Errorf("create network %s: %w", s.network(), last)
}

func (s *Stack) usedPrefixes(ctx context.Context) ([]netip.Prefix, error) {
	var used []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			used = append(used, p.Masked())
		}
	}
	ids, err := s.docker.Output(ctx, "network", "ls", "-q")
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	for _, id := range strings.Fields(ids) {
		text, err := s.docker.Output(ctx, "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", id)
		if err != nil {
			continue // removed meanwhile
		}
		for _, field := range strings.Fields(text) {
			if p, err := netip.ParsePrefix(field); err == nil {
				used = append(used, p.Masked())
			}
		}
	}
	return used, nil
}

func overlapsAny(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		// A prefix as wide as the whole private range is a route of this machine, not a neighbour.
		if u.Bits() > 8 && u.Overlaps(p) {
			return true
		}
	}
	return false
}
