package demo

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// felt is the shortest gap in the writes that is news; the table shows shorter ones too.
const felt = 500 * time.Millisecond

// quiet is how long the writer must have had no error for the next one to be news.
const quiet = 2 * time.Second

// patroniUnit is the unit that the fault hangs.
const patroniUnit = "patroni.service"

// watcher keeps the records of one run and says what a person would want to hear while they come. It is safe for
// concurrent use.
type watcher struct {
	say func(format string, args ...any)

	mu       sync.Mutex // guards what follows
	recs     []record.Record
	fault    time.Time // zero before the fault
	ended    bool      // the observation is over: what follows is the undoing
	acked    int64     // writes acknowledged so far
	ackedAt  time.Time // when that number was last seen to grow
	beatAt   time.Time // of the last beat
	rate     float64   // writes per second
	errorAt  time.Time // of the writer's last error
	writable map[string]bool
	lives    map[string]string // InvocationID of Patroni by node
	holder   string            // who holds the leader key, or held it last
	left     int64             // seconds that its lease had left at leftAt, 0 where there is no key
	leftAt   time.Time
}

func newWatcher(say func(format string, args ...any)) *watcher {
	return &watcher{say: say, writable: map[string]bool{}, lives: map[string]string{}}
}

// add takes a record as it comes.
func (w *watcher) add(r record.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recs = append(w.recs, r)
	switch {
	case r.Mark != nil:
		w.mark(r)
	case r.Beat != nil:
		w.beat(r)
	case r.Error != nil:
		if r.At.Sub(w.errorAt) > quiet {
			w.event(r.At, "the writer gets errors: %.100s", r.Error.Text)
		}
		w.errorAt = r.At
	case r.Gap != nil:
		if d := r.Gap.To.Sub(r.Gap.From); !r.Gap.Open && d >= felt {
			w.event(r.At, "the writer writes again, after %s without", short(d))
		}
	case r.PG != nil:
		w.postgres(r)
	case r.Unit != nil && r.Unit.Name == patroniUnit && r.Unit.InvocationID != "":
		if old := w.lives[r.Node]; old != "" && old != r.Unit.InvocationID {
			w.event(r.At, "systemd has started a fresh Patroni on %s", r.Node)
		}
		w.lives[r.Node] = r.Unit.InvocationID
	case r.Lock != nil && r.Lock.Answered:
		if r.Lock.Holder != "" && w.holder != "" && r.Lock.Holder != w.holder {
			w.event(r.At, "the leader key went from %s to %s", w.holder, r.Lock.Holder)
		}
		if r.Lock.Holder != "" {
			w.holder = r.Lock.Holder
		}
		w.left, w.leftAt = r.Lock.Left, r.At
	}
}

func (w *watcher) mark(r record.Record) {
	switch r.Mark.Name {
	case "fault":
		w.fault = r.At
	case "end":
		w.ended = true
	}
}

func (w *watcher) beat(r record.Record) {
	if r.Beat.Acknowledged > w.acked {
		if !w.beatAt.IsZero() {
			w.rate = float64(r.Beat.Acknowledged-w.acked) / r.At.Sub(w.beatAt).Seconds()
		}
		w.ackedAt = r.At
	}
	w.acked, w.beatAt = r.Beat.Acknowledged, r.At
}

func (w *watcher) postgres(r record.Record) {
	before := w.primaries()
	w.writable[r.Node] = r.PG.Writable()
	after := w.primaries()
	if slices.Equal(before, after) {
		return
	}
	switch {
	case len(after) > 1:
		w.event(r.At, "TWO WRITABLE PRIMARIES: %s", strings.Join(after, " and "))
	case len(before) > 1:
		w.event(r.At, "one writable primary again: %s", strings.Join(after, " and "))
	}
}

func (w *watcher) primaries() []string {
	var out []string
	for node, ok := range w.writable {
		if ok {
			out = append(out, node)
		}
	}
	slices.Sort(out)
	return out
}

// event says something with its time after the fault. Before the fault and after the observation nothing is news.
func (w *watcher) event(at time.Time, format string, args ...any) {
	if !w.fault.IsZero() && !w.ended {
		w.say("  %+6.1f s  "+format, append([]any{at.Sub(w.fault).Seconds()}, args...)...)
	}
}

// state says in one line how the stack is; empty before the first record.
func (w *watcher) state(now time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.beatAt.IsZero() {
		return ""
	}
	parts := []string{w.writer(now)}
	switch p := w.primaries(); len(p) {
	case 0:
		parts = append(parts, "NO writable primary")
	case 1:
		parts = append(parts, "writable primary: "+p[0])
	default:
		parts = append(parts, fmt.Sprintf("%d WRITABLE PRIMARIES: %s", len(p), strings.Join(p, ", ")))
	}
	if w.holder != "" {
		left := w.left - int64(now.Sub(w.leftAt).Seconds())
		parts = append(parts, fmt.Sprintf("lease of %s: %d s left", w.holder, max(0, left)))
	}
	text := strings.Join(parts, " | ")
	if w.fault.IsZero() {
		return "healthy: " + text
	}
	return fmt.Sprintf("%+.0f s: %s", now.Sub(w.fault).Seconds(), text)
}

func (w *watcher) writer(now time.Time) string {
	if w.rate == 0 {
		return "writer: starting"
	}
	if silent := now.Sub(w.ackedAt); silent > 2*time.Second {
		return fmt.Sprintf("writer: NOTHING acknowledged for %d s", int(silent.Seconds()))
	}
	return fmt.Sprintf("writer: %.0f writes/s", w.rate)
}

// taken returns a copy of the records so far, in the order of time.
func (w *watcher) taken() []record.Record {
	w.mu.Lock()
	recs := slices.Clone(w.recs)
	w.mu.Unlock()
	slices.SortStableFunc(recs, func(a, b record.Record) int { return a.At.Compare(b.At) })
	return recs
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
