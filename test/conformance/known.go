package conformance

import "slices"

// Side is one of the two that are compared.
type Side string

// The sides.
const (
	InLab   Side = "lab"
	InModel Side = "model"
)

// Known is a difference that is there and is allowed: an event that only one side has. It is left out of the comparison, and
// is an error once it is not there any more.
type Known struct {
	Script string
	Only   Side
	Event  string // subject and what happened
	Why    string
}

// known lists what the model is known to do differently: nothing at present.
func known() []Known { return nil }

func knownOf(script string) []Known {
	return slices.DeleteFunc(known(), func(k Known) bool { return k.Script != script })
}
