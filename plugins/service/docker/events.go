package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const (
	maxEvent   = 256 << 10 // bytes of one event, which carries the container's labels
	maxEvents  = 4096      // of one story; an engine keeps 256
	maxWatched = 128       // units in one filter, which is part of a URL
)

// event is one line of GET /events.
type event struct {
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
	TimeNano int64 `json:"timeNano"`
}

func parseEvent(line []byte) (event, error) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("%w: the answer is not an event: %w", service.ErrUnavailable, err)
	}
	if e.Action == "" || e.Actor.ID == "" || e.TimeNano <= 0 {
		return e, fmt.Errorf("%w: the answer is not an event: no Action, Actor or timeNano", service.ErrUnavailable)
	}
	return e, nil
}

// story is what the events of one run say about its end.
type story struct {
	stopping  bool // it was told to end and has not ended
	stopped   bool // it was told to end, and ended
	crashed   bool // its events are complete, and nobody told it to end
	signalled bool // another signal was sent to it through the API
}

// deadly is how soon after a signal that is not meant to end anything an end still comes from it.
const deadly = 30 * time.Second

// tell reads the events of the run of a container that began last, oldest first. The engine writes down a kill before the
// end that it brings, under one lock; "stop" comes after the end, and alone if the container was waiting for a restart.
func tell(events []event, c container) story {
	var s story
	var began, ended, told bool
	var lastSignal int64
	for _, e := range events {
		switch {
		case e.Actor.ID != c.id || e.TimeNano < c.startedAt.UnixNano():
		case e.Action == "start" && began:
			return story{} // another run began since the container was looked at
		case e.Action == "start":
			began = true
		case e.Action == "stop", e.Action == "kill" && ends(e.Actor.Attributes["signal"], c.stopSignal):
			told = true
		case e.Action == "kill":
			s.signalled, lastSignal = true, e.TimeNano
		case e.Action == "die":
			ended = true
			told = told || s.signalled && time.Duration(e.TimeNano-lastSignal) < deadly
		}
	}
	s.stopping, s.stopped, s.crashed = told && !ended, told && ended, began && ended && !told
	return s
}

// harmless are the signals that people send to programs which go on, by number, since that is what events have.
var harmless = map[string]string{"1": "HUP", "10": "USR1", "12": "USR2", "18": "CONT", "28": "WINCH"}

// ends reports whether a signal is meant to end a container with that stop signal, which is a name or a number.
func ends(signal, stopSignal string) bool {
	name, ok := harmless[signal]
	return !ok || stopSignal == signal || strings.TrimPrefix(strings.ToUpper(stopSignal), "SIG") == name
}

// story asks for the events of a container's run. The engine's clock bounds the question, so that it is answered at once
// also where the engine is in a virtual machine whose clock is not this one: of its time, only the second is known.
func (m *Manager) story(ctx context.Context, c container) (story, error) {
	until := time.Now()
	if low := c.engineClock; !low.IsZero() {
		if high := low.Add(time.Second); until.After(high) {
			until = high
		}
		if until.Before(low) {
			until = low
		}
	}
	if until.Before(c.startedAt) {
		until = c.startedAt
	}
	query := url.Values{
		"since":   {stamp(c.startedAt)},
		"until":   {stamp(until)},
		"filters": {filters([]string{c.id}, "start", "kill", "die", "stop")},
	}
	var events []event
	err := m.events(ctx, query, func() {}, func(e event) error {
		if events = append(events, e); len(events) > maxEvents {
			return fmt.Errorf("%w: more than %d events", service.ErrUnavailable, maxEvents)
		}
		return nil
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return story{}, err
	}
	return tell(events, c), nil
}

// events calls begun when the engine has accepted the question, and each with every event until it gives an error, the
// answer ends, which gives io.EOF, or breaks.
func (m *Manager) events(ctx context.Context, query url.Values, begun func(), each func(event) error) error {
	resp, err := m.call(ctx, http.MethodGet, "/events", query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	begun()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxEvent)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		e, err := parseEvent(lines.Bytes())
		if err == nil {
			err = each(e)
		}
		if err != nil {
			return fmt.Errorf("GET /events: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return m.lost(ctx, "GET /events", err)
	}
	return io.EOF
}

// stamp writes a time as the engine wants it: seconds and nanoseconds.
func stamp(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10) + fmt.Sprintf(".%09d", t.Nanosecond())
}

func filters(containers []string, actions ...string) string {
	b, err := json.Marshal(map[string][]string{"type": {"container"}, "container": containers, "event": actions})
	if err != nil {
		panic(err) // strings only
	}
	return string(b)
}

// Watch implements service.Watcher. It asks for the names, so that a container that takes the place of another one is
// seen, and from the engine's present second on, so that nothing is lost before the engine listens: it accepts the question
// first. wake is called once when it did. Checks of health and commands inside a container are not asked for. The error
// wraps service.ErrUnavailable when the engine went away.
func (m *Manager) Watch(ctx context.Context, units []string, wake func()) error {
	if err := m.watch(ctx, units, wake); err != nil {
		return fmt.Errorf("watch units: %w", err)
	}
	return nil
}

func (m *Manager) watch(ctx context.Context, units []string, wake func()) error {
	if len(units) == 0 || len(units) > maxWatched {
		return fmt.Errorf("%d units, not 1 to %d", len(units), maxWatched)
	}
	var errs []error
	for _, unit := range units {
		errs = append(errs, checkName(unit))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, now, err := m.ping(ctx)
	if err != nil {
		return err
	}
	if now.IsZero() {
		now = time.Now()
	}
	query := url.Values{
		"since": {stamp(now)},
		"filters": {filters(units, "create", "start", "restart", "kill", "die", "stop", "oom", "pause", "unpause", "update",
			"rename", "destroy")},
	}
	h, end := &hearing{}, func() {}
	begun := func() {
		end = m.listen(units, h)
		wake()
	}
	err = m.events(ctx, query, begun, func(e event) error {
		m.hear(h, e)
		wake()
		return nil
	})
	end()
	if errors.Is(err, io.EOF) {
		m.forget()
		return fmt.Errorf("GET /events: %w: the engine ended it", service.ErrUnavailable)
	}
	return err
}
