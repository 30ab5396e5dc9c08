package probe

import (
	"context"
	"errors"
)

// ErrStuck says that an earlier look has not come back from the kernel yet, so nothing can be found out.
var ErrStuck = errors.New("an earlier look is still stuck in the kernel")

// Gate runs work that cannot be interrupted, such as a read from a disk that may hang, without ever hanging with it.
//
// Go cannot cancel a blocked system call. Do therefore leaves the work behind when the context ends, and lets nobody
// else in until it comes back: a dead disk costs one goroutine, not one for every look, and the loop goes on to say
// that it does not know. That one goroutine is the deliberate exception to "every goroutine is waited for". A Gate is
// safe for concurrent use; the zero value is not usable, see [NewGate].
type Gate struct {
	slot chan struct{} // holds a token while work is running
}

// NewGate returns an open gate.
func NewGate() *Gate { return &Gate{slot: make(chan struct{}, 1)} }

// Do runs work and returns what it returns, or the context's error if that ends first, or ErrStuck (with the context's
// error) if the work of an earlier call has not ended when the context does. Callers queue; work must not call Do.
func Do[T any](ctx context.Context, g *Gate, work func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case g.slot <- struct{}{}:
	case <-ctx.Done():
		return none, errors.Join(ErrStuck, ctx.Err())
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-g.slot }()
		value, err := work()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
