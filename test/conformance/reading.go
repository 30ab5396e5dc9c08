package conformance

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what a reading is about.
type Kind string

// The kinds, with the states that each can have.
const (
	Key      Kind = "key"      // the leader key: the holder's node, or Nobody
	Unit     Kind = "unit"     // systemd's unit of Patroni: Died, Lives, GivenUp, Stopped, each a moment
	API      Kind = "api"      // Patroni's REST API, asked on its own machine: Up, Down
	Postgres Kind = "postgres" // what a local session says: Primary, Replica, or None
	Writer   Kind = "writer"   // a client that commits through HAProxy: Writes, Waits
)

// The states.
const (
	Nobody  = "nobody"
	Died    = "died"     // the main process ended by a signal or an error
	Lives   = "lives"    // a new life (InvocationID) has begun
	GivenUp = "given-up" // the manager starts it no more
	Stopped = "stopped"  // by an order
	Up      = "up"
	Down    = "down"
	Primary = "primary"
	Follows = "replica"
	None    = "none"
	Writes  = "writes"
	Waits   = "waits"
)

// Reading is what was seen of one thing at a moment. A state holds until the next reading of the same thing.
type Reading struct {
	At    time.Duration // since the script began
	Kind  Kind
	Node  string // "-" for what belongs to no node
	State string
	Life  int // of the postmaster: another number, another process; 0 where it cannot be told
}

// MarshalText makes a reading a line that a person can read and a diff can show.
func (r Reading) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%.2f %s %s %s %d", r.At.Seconds(), r.Kind, r.Node, r.State, r.Life), nil
}

// UnmarshalText reads such a line.
func (r *Reading) UnmarshalText(text []byte) error {
	f := strings.Fields(string(text))
	if len(f) != 5 {
		return fmt.Errorf("read reading %q: want five words", text)
	}
	at, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		return fmt.Errorf("read reading %q: %w", text, err)
	}
	if r.Life, err = strconv.Atoi(f[4]); err != nil {
		return fmt.Errorf("read reading %q: %w", text, err)
	}
	r.At, r.Kind, r.Node, r.State = time.Duration(at*float64(time.Second)), Kind(f[1]), f[2], f[3]
	return nil
}

// Run is one run of a script.
type Run struct {
	Leader   string    `json:"leader"`  // node that led first
	Replica  string    `json:"replica"` // node that the script means by replica
	Readings []Reading `json:"readings"`
}

// holds is how long a state must last to be an event: shorter ones are within what a look, a health check or a busy machine
// makes of the same thing. A key that nobody holds until the race for it is over is no event of its own, and a REST API
// that is gone for as long as a restart takes is none either.
func holds(r Reading) time.Duration {
	switch r.Kind {
	case Key:
		return 5 * time.Second
	case API:
		return 5 * time.Second
	case Writer:
		return time.Second
	}
	return 0
}

// Event is something that happened, in words that fit every cluster.
type Event struct {
	At      time.Duration
	Subject string // what it happened to
	What    string
}

func (e Event) String() string { return fmt.Sprintf("+%.1fs %s %s", e.At.Seconds(), e.Subject, e.What) }

// Events tells what happened in the run, up to a moment, in the order of time.
func (r Run) Events(until time.Duration) []Event {
	of := map[string][]Reading{} // by kind and node
	for _, rd := range r.Readings {
		if rd.At <= until {
			of[string(rd.Kind)+" "+rd.Node] = append(of[string(rd.Kind)+" "+rd.Node], rd)
		}
	}
	heir := r.heir(lasting(of[string(Key)+" -"], until))
	var events []Event
	var primaries []Reading
	for _, thing := range slices.Sorted(maps.Keys(of)) {
		list := of[thing]
		slices.SortStableFunc(list, func(a, b Reading) int { return cmp.Compare(a.At, b.At) })
		first := list[0]
		name := func(what string) string { return what + " of the " + r.role(first.Node, heir) }
		switch first.Kind {
		case Unit:
			events = append(events, lives(name("unit"), list)...)
		case Postgres:
			list = sessions(list, until)
			events = append(events, postmasters(name("PostgreSQL"), list)...)
			primaries = append(primaries, list...)
		case Key:
			events = append(events, states("leader key", lasting(list, until), func(s string) string {
				if s == Nobody {
					return "is held by nobody"
				}
				return "is held by the " + r.role(s, heir)
			})...)
		case API:
			events = append(events, states(name("REST API"), lasting(list, until), func(s string) string { return "is " + s })...)
		case Writer:
			events = append(events, states("writer", lasting(list, until), func(s string) string { return s })...)
		}
	}
	events = append(events, together(primaries)...)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Subject, b.Subject)) })
	return events
}

// heir is the first other node that held the leader key, or "".
func (r Run) heir(keys []Reading) string {
	for _, k := range keys {
		if k.State != Nobody && k.State != r.Leader {
			return k.State
		}
	}
	return ""
}

// role names a node by what it is in the run, because which replica wins a race is luck.
func (r Run) role(node, heir string) string {
	switch {
	case node == r.Leader:
		return "leader"
	case node == heir:
		return "heir"
	case node == r.Replica && heir == "":
		return "replica"
	}
	return "other replica"
}

// lasting leaves out states that lasted too short, and repetitions.
func lasting(list []Reading, until time.Duration) []Reading {
	list = changes(list)
	for i := 1; i < len(list); {
		end := until
		if i+1 < len(list) {
			end = list[i+1].At
		}
		if end-list[i].At >= holds(list[i]) || list[i].Kind == Key && list[i].State != Nobody {
			i++
			continue
		}
		list = changes(slices.Delete(list, i, i+1))
	}
	return list
}

// changes leaves out readings that say what the one before them said.
func changes(list []Reading) []Reading {
	return slices.CompactFunc(slices.Clone(list), func(a, b Reading) bool { return a.State == b.State && a.Life == b.Life })
}

// states tells every state but the first.
func states(subject string, list []Reading, say func(string) string) []Event {
	var out []Event
	for _, r := range list[min(1, len(list)):] {
		out = append(out, Event{r.At, subject, say(r.State)})
	}
	return out
}

// crashing is how soon after a start another end of the process belongs to the same series of crashes.
const crashing = 5 * time.Second

// lives tells what became of a unit. A series of crashes is told once: its number is a matter of milliseconds.
func lives(subject string, list []Reading) []Event {
	words := map[string]string{Died: "dies", Lives: "has a new life", GivenUp: "is given up", Stopped: "is stopped"}
	var out []Event
	var born time.Duration
	series := false
	for _, r := range list {
		switch again := born != 0 && r.At-born < crashing; {
		case r.State == Died && again:
			series = true
			continue
		case r.State == Lives && series:
			born, series = r.At, false
			continue
		case r.State == Lives:
			born = r.At
		case r.State == GivenUp:
			born, series = 0, false
		}
		out = append(out, Event{r.At, subject, words[r.State]})
	}
	return out
}

// gone is how long no session must be possible at the end of a run for PostgreSQL to have ended.
const gone = 2 * time.Second

// sessions leaves out moments in which a postmaster that lives on let nobody in.
func sessions(list []Reading, until time.Duration) []Reading {
	list = changes(list)
	var out []Reading
	for i, r := range list {
		if r.State == None {
			same := i > 0 && i+1 < len(list) && list[i-1].State == list[i+1].State && list[i-1].Life == list[i+1].Life
			if same || i+1 == len(list) && until-r.At < gone {
				continue
			}
		}
		out = append(out, r)
	}
	return changes(out)
}

// postmasters tells what PostgreSQL did.
func postmasters(subject string, list []Reading) []Event {
	var out []Event
	var was Reading
	for i, r := range list {
		switch {
		case i == 0:
		case r.State == None:
			out = append(out, Event{r.At, subject, "ends"})
		case was.State == None || was.Life != r.Life:
			if was.State != None { // between two looks
				out = append(out, Event{r.At, subject, "ends"})
			}
			out = append(out, Event{r.At, subject, "starts as " + r.State})
		case r.State == Primary:
			out = append(out, Event{r.At, subject, "is promoted"})
		}
		was = r
	}
	return out
}

// together tells when there were two primaries, from the readings of every node.
func together(list []Reading) []Event {
	slices.SortStableFunc(list, func(a, b Reading) int { return cmp.Compare(a.At, b.At) })
	primary, two := map[string]bool{}, false
	var out []Event
	for _, r := range list {
		primary[r.Node] = r.State == Primary
		n := 0
		for _, is := range primary {
			if is {
				n++
			}
		}
		if is := n > 1; is != two {
			two = is
			out = append(out, Event{r.At, "second primary", map[bool]string{true: "begins", false: "ends"}[is]})
		}
	}
	return out
}
