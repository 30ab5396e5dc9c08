// Package orders keeps what people order of this agent: a pause, a kill switch, and their consent to single actions.
//
// It owns the kill switch's files and the rules by which an order is accepted, ends, and is used up. It promises that a
// pause survives restarts of the agent and of the machine; that a kill switch which is there and cannot be read or
// understood counts as set (FAULTS.md S23); that an accepted order is in the journal before anybody is told that it is
// accepted, with its owner and reason, and a refused one is not; and that it looks anew every time it is asked. It
// deliberately decides nothing: what an order means for an action is for the guards. Orders that reach further than
// this machine are not kept here but in etcd, see package coordinator.
//
//	pause:        journal     ends after its length on this boot's clock; after a reboot by the wall clock
//	kill switch:  file        set while a file is there, unless that says until when, and says it intelligibly
//	approval:     journal     ends after node.ApprovalLife, and with the boot
package orders

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Sentinel errors. Compare with errors.Is. After each of them nothing was changed and nothing recorded.
var (
	// ErrInvalid says that an order lacks something or says something impossible.
	ErrInvalid = errors.New("not a valid order")
	// ErrNotSet says that there is nothing to lift.
	ErrNotSet = errors.New("not set")
	// ErrForeign says that this agent never proposed an action of that ID.
	ErrForeign = errors.New("no such action was ever proposed here")
	// ErrNotWaiting says that an action does not wait for a person's consent.
	ErrNotWaiting = errors.New("not waiting for an approval")
)

// Entry is an accepted order as it is recorded.
type Entry struct {
	Lift     bool // of Hold
	Hold     *node.Hold
	Approval *node.Approval
	Text     string // by whom and how it was given
}

// Deps is what a Keeper needs of its surroundings.
type Deps struct {
	// Pause returns the pause that was recorded last and not lifted, with boot and instant of its record.
	Pause func() (h node.Hold, bootID string, at node.Instant, ok bool)
	// Approvals returns the recorded approvals of this boot that have not ended.
	Approvals func() []node.Approval
	// Record makes an order durable. After an error it was not given.
	Record func(Entry) error
	Now    func() node.Instant
	Wall   func() time.Time
	BootID string
	// File is the kill switch that this agent sets and lifts; Watched are others, which only people change.
	File    string
	Watched []string
}

// Keeper keeps the orders of one agent. All methods are safe for concurrent use.
type Keeper struct {
	d  Deps
	mu sync.Mutex // taken by whoever changes an order, so that two of them do not cross
}

// New returns a keeper. It reads nothing yet.
func New(d Deps) *Keeper { return &Keeper{d: d} }

// NewHold returns a hold that begins now and ends after d. Its error, which wraps ErrInvalid, says what to do.
func NewHold(k node.HoldKind, l node.Level, owner, reason string, d time.Duration, now time.Time) (node.Hold, error) {
	h := node.Hold{Kind: k, Level: l, Owner: owner, Reason: strings.TrimSpace(reason), Since: now.UTC().Truncate(time.Second)}
	h.Until = h.Since.Add(d)
	switch {
	case k != node.HoldPause && k != node.HoldKill:
		return node.Hold{}, fmt.Errorf("%w: unknown kind %.40q; there are %s and %s", ErrInvalid, k, node.HoldPause, node.HoldKill)
	case l != node.LevelNode && l != node.LevelScope && l != node.LevelAll:
		return node.Hold{}, fmt.Errorf("%w: unknown level %.40q; there are %s, %s and %s", ErrInvalid, l, node.LevelNode, node.LevelScope, node.LevelAll)
	case d < time.Second || d > node.MaxHold:
		return node.Hold{}, fmt.Errorf("%w: a %s must end within 30 days from now, and not before a second has passed", ErrInvalid, k)
	}
	if _, err := node.HoldText(h); err != nil {
		return node.Hold{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return h, nil
}

// Orders returns what people want now. It reads the kill switch's files and records that a pause has ended.
func (k *Keeper) Orders(now node.Instant) node.Orders {
	o := node.Orders{Approvals: k.d.Approvals()}
	var unreadable []string
	for _, path := range append([]string{k.d.File}, k.d.Watched...) {
		h, err := k.killSwitch(path)
		switch {
		case err != nil:
			unreadable = append(unreadable, err.Error())
		case h != nil:
			o.Holds = append(o.Holds, *h)
		}
	}
	o.Unreadable = strings.Join(unreadable, "; ")
	k.mu.Lock()
	defer k.mu.Unlock()
	if h, ok := k.pause(now); ok {
		o.Holds = append(o.Holds, h)
	} else if h.Kind != "" {
		// It is not in force any more, whether that can be recorded or not.
		_ = k.d.Record(Entry{Lift: true, Hold: &h, Text: "its time is over"})
	}
	return o
}

// pause returns the pause of this node and whether it is in force; a hold that is not has ended. It is called with mu.
func (k *Keeper) pause(now node.Instant) (node.Hold, bool) {
	h, boot, at, ok := k.d.Pause()
	if !ok {
		return node.Hold{}, false
	}
	if boot == k.d.BootID {
		return h, now.Sub(at) < h.Until.Sub(h.Since)
	}
	return h, k.d.Wall().Before(h.Until)
}

// Permit returns why the action must not be carried out now, or nil. It is asked directly before the act, because what
// people order in the meantime counts as well.
func (k *Keeper) Permit(a node.Action) error {
	o := k.Orders(k.d.Now())
	if o.Unreadable != "" {
		return fmt.Errorf("%s of %s is held back: the kill switch counts as set: %s", a.Verb, a.Service, o.Unreadable)
	}
	for _, h := range o.Holds {
		return fmt.Errorf("%s of %s is held back by a %s of %s: %s", a.Verb, a.Service, h.Kind, h.Owner, h.Reason)
	}
	return nil
}

// Hold sets a pause or the kill switch of this node. A pause that is set already is replaced. text says how the order
// came.
func (k *Keeper) Hold(h node.Hold, text string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.Kind == node.HoldKill {
		if err := k.writeKillSwitch(h); err != nil {
			return err
		}
	}
	if err := k.d.Record(Entry{Hold: &h, Text: text}); err != nil {
		if h.Kind == node.HoldKill {
			return fmt.Errorf("record %s, which is set all the same: %w", h.Kind, err)
		}
		return fmt.Errorf("record %s: %w", h.Kind, err)
	}
	return nil
}

// Lift ends a pause or the kill switch of this node and returns what it was. It returns ErrNotSet if it is not set, and
// does not touch a file that belongs to people.
func (k *Keeper) Lift(kind node.HoldKind, owner, text string) (node.Hold, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.lifted(kind)
	if err != nil {
		return node.Hold{}, err
	}
	if err := k.d.Record(Entry{Lift: true, Hold: &h, Text: fmt.Sprintf("lifted by %s %s", owner, text)}); err != nil {
		return node.Hold{}, fmt.Errorf("record the end of the %s: %w", kind, err)
	}
	if kind == node.HoldKill {
		if err := os.Remove(k.d.File); err != nil {
			return node.Hold{}, fmt.Errorf("lift kill switch: %w", err)
		}
	}
	return h, nil
}

// lifted returns the hold that a lift would end.
func (k *Keeper) lifted(kind node.HoldKind) (node.Hold, error) {
	if kind == node.HoldKill {
		return k.ownKillSwitch()
	}
	h, ok := k.pause(k.d.Now())
	if !ok {
		return node.Hold{}, fmt.Errorf("pause of this node: %w", ErrNotSet)
	}
	return h, nil
}
