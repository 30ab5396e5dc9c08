package node

import "slices"

// Spec is what this machine's agent was told to look after and how far it may go.
type Spec struct {
	Node    string        `json:"node"`
	Scope   string        `json:"scope"`
	Policy  Policy        `json:"policy"`
	Patroni []PatroniSpec `json:"patroni,omitempty"`
	// Services are the others, in configuration order.
	Services []ServiceSpec `json:"services,omitempty"`
}

// PatroniSpec is one Patroni service of this machine.
type PatroniSpec struct {
	Service string `json:"service"` // name in the configuration
	Member  string `json:"member"`  // name in etcd
	Unit    string `json:"unit"`
	Policy  Policy `json:"policy"` // the node's policy with the service's own on top
}

// Mode is how far the agent may go with a class of actions.
type Mode string

// Modes. The zero value is invalid and is treated as ModeOff.
const (
	ModeOff     Mode = "off"     // do not even propose
	ModeObserve Mode = "observe" // say what would be done
	ModeAsk     Mode = "ask"     // wait for a person's approval
	ModeAuto    Mode = "auto"    // do it
)

// Modes returns the modes, the least bold first.
func Modes() []Mode { return []Mode{ModeOff, ModeObserve, ModeAsk, ModeAuto} }

// Policy gives the mode of every class, and of single findings where one is set.
type Policy struct {
	Adjust   Mode          `json:"adjust"`
	Revive   Mode          `json:"revive"`
	Disrupt  Mode          `json:"disrupt"`
	Expedite Mode          `json:"expedite"`
	Findings map[Code]Mode `json:"findings,omitempty"`
}

// For returns the mode of an action of that class because of that finding. The mode of a finding replaces that of the
// class, but where something that runs is stopped, or a leader key released, it can only restrict.
func (p Policy) For(c Class, f Code) Mode {
	class, finding := p.Of(c), p.Findings[f]
	bold := slices.Index(Modes(), finding) > slices.Index(Modes(), class)
	if finding == "" || bold && c != ClassAdjust && c != ClassRevive {
		return class
	}
	return finding
}

// Of returns the mode of a class. The class destroy is never automatic.
func (p Policy) Of(c Class) Mode {
	switch c {
	case ClassAdjust:
		return p.Adjust
	case ClassRevive:
		return p.Revive
	case ClassDisrupt:
		return p.Disrupt
	case ClassExpedite:
		return p.Expedite
	}
	return ModeOff
}

// DefaultPolicy observes: acting is opt-in (DESIGN.md §1.6).
func DefaultPolicy() Policy {
	return Policy{Adjust: ModeObserve, Revive: ModeObserve, Disrupt: ModeObserve, Expedite: ModeOff}
}

// PolicyOf returns the policy of a service, the node's if there is no such service.
func (s Spec) PolicyOf(name string) Policy {
	for _, p := range s.Patroni {
		if p.Service == name {
			return p.Policy
		}
	}
	for _, o := range s.Services {
		if o.Service == name {
			return o.Policy
		}
	}
	return s.Policy
}

// Names returns the names of all services, in the order of their kinds and of the configuration.
func (s Spec) Names() []string {
	var out []string
	for _, p := range s.Patroni {
		out = append(out, p.Service)
	}
	for _, o := range s.Services {
		out = append(out, o.Service)
	}
	return out
}
