package node

// Spec is what this machine's agent was told to look after and how far it may go.
type Spec struct {
	Node    string        `json:"node"`
	Scope   string        `json:"scope"`
	Policy  Policy        `json:"policy"`
	Patroni []PatroniSpec `json:"patroni,omitempty"`
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
	ModeAuto    Mode = "auto"    // do it
)

// Policy gives the mode of every class.
type Policy struct {
	Adjust   Mode `json:"adjust"`
	Revive   Mode `json:"revive"`
	Disrupt  Mode `json:"disrupt"`
	Expedite Mode `json:"expedite"`
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
