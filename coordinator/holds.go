package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Hold sets a hold of a scope, or of every scope, in the place of one of its kind that may be set. It ends with its lease
// and by nobody's clock, within a second of its length.
func Hold(ctx context.Context, w Writer, scope string, h node.Hold) error {
	key, length := node.HoldKey(h.Level, scope, h.Kind), h.Until.Sub(h.Since)
	if key == "" || length < time.Second || length > node.MaxHold {
		return fmt.Errorf("set %s of %s: its level or length is not possible", h.Kind, h.Level)
	}
	text, err := node.HoldText(h)
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", h.Kind, h.Level, err)
	}
	lease, granted, err := w.Grant(ctx, length)
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", h.Kind, h.Level, err)
	}
	if granted < length.Truncate(time.Second) {
		w.Revoke(ctx, lease)
		return fmt.Errorf("set %s of %s: etcd grants %s only", h.Kind, h.Level, granted)
	}
	// After an error the lease is left alone: the hold may be set, or an earlier one still be there.
	if err := w.Put(ctx, key, string(text), lease); err != nil {
		return fmt.Errorf("set %s of %s, which may be set all the same: %w", h.Kind, h.Level, err)
	}
	return nil
}

// Lift ends a hold and returns what it was, ErrNotSet if there is none. What is not intelligible is lifted too: a person
// asked for it.
func Lift(ctx context.Context, w Writer, scope string, l node.Level, k node.HoldKind) (node.Hold, error) {
	key := node.HoldKey(l, scope, k)
	if key == "" {
		return node.Hold{}, fmt.Errorf("lift %s of %s: no such level", k, l)
	}
	value, was, err := w.Remove(ctx, key)
	if err == nil && !was {
		err = ErrNotSet
	}
	if err != nil {
		return node.Hold{}, fmt.Errorf("lift %s of %s: %w", k, l, err)
	}
	h, err := node.ParseHold([]byte(value))
	if err != nil {
		h = node.Hold{Owner: node.Unknown, Reason: "it was not intelligible"}
	}
	h.Kind, h.Level = k, l
	return h, nil
}
