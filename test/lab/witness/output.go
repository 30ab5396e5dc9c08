// Package witness is the program that looks at the stack from inside its containers and writes down what it sees, as
// JSON lines of test/lab/record.
//
// Write is a client: it commits through HAProxy and remembers every acknowledgement. Watch sits on one PostgreSQL
// node and asks it directly, over its unix socket and D-Bus, so a node that is cut from the network is still
// observed. Both end when their context does, and neither changes anything but the writer's own table. They promise
// nothing about meaning: test/lab/judge decides what the records prove.
package witness

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// Output writes records as lines. It is safe for concurrent use.
type Output struct {
	node string

	mu  sync.Mutex // guards enc and err
	enc *json.Encoder
	err error
}

// NewOutput returns an Output whose records carry the node's name.
func NewOutput(w io.Writer, node string) *Output {
	return &Output{node: node, enc: json.NewEncoder(w)}
}

// Put writes one record; where it carries no time, it gets the present one. The first error is kept for Err.
func (o *Output) Put(r record.Record) {
	r.Node = o.node
	if r.At.IsZero() {
		r.At = time.Now()
	}
	r.At = r.At.UTC()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.enc.Encode(r); err != nil && o.err == nil {
		o.err = err
	}
}

// Err returns the first error of writing.
func (o *Output) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// ticks calls f at once and then every interval until the done channel closes. A slow f delays the next call and
// never makes two run at once.
func ticks(done <-chan struct{}, interval time.Duration, f func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		f()
		select {
		case <-done:
			return
		case <-t.C:
		}
	}
}

// repeatEvery is a little less than a second, so that a beat is not one tick late each time.
const repeatEvery = 950 * time.Millisecond

// beat decides which observations are worth a line: every change, and one a second so that silence is noticed.
type beat[T comparable] struct {
	last T
	at   time.Time
	any  bool
}

func (b *beat[T]) due(now time.Time, v T) bool {
	if b.any && v == b.last && now.Sub(b.at) < repeatEvery {
		return false
	}
	b.last, b.at, b.any = v, now, true
	return true
}
