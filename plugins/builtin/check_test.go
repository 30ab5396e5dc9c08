package builtin_test

import (
	"testing"

	"github.com/pgpatrol/pgpatrol/plugins/builtin"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

func TestCheck(t *testing.T) {
	addr := serve(t, probe.ProtocolHTTP).addr
	for want, target := range map[probe.Check]probe.CheckTarget{
		{Outcome: probe.OutcomeAnswered, OK: true}:                        {TCP: addr},
		{Outcome: probe.OutcomeAnswered, Detail: "status 404"}:            {HTTP: "http://" + addr + "/x"},
		{Outcome: probe.OutcomeAnswered, OK: true, Detail: "exit code 0"}: {Command: []string{"true"}},
	} {
		p, err := builtin.Check(target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Probe(t.Context()); err != nil || got != want {
			t.Errorf("%+v: got %+v, %v", target, got, err)
		}
	}
	if got, err := builtin.Check(probe.CheckTarget{}); err == nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}
