package builtin

import (
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/check"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Check returns the way to see whether a service does what it is for.
func Check(t probe.CheckTarget) (probe.Prober[probe.Check], error) {
	p, err := check.New(check.Config{TCP: t.TCP, HTTP: t.HTTP, Command: t.Command}, check.Deps{Runner: service.Runner{}})
	if err != nil {
		return nil, err // not p: a nil *check.Check is no nil Prober
	}
	return p, nil
}
