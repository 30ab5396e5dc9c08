package incus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const (
	maxEvent   = 1 << 20 // bytes of one event, which carries what was ordered
	maxWatched = 128     // units of one watch
	maxSeen    = 4096    // instances of which an end is remembered
)

// event is one lifecycle event of an instance.
type event struct {
	action   string
	instance string
	project  string
	at       time.Time
	ordered  bool // it has a requestor: somebody asked the daemon for it
}

// parseEvent reads a message of GET /1.0/events. ok is false for an event that is about no instance.
func parseEvent(body []byte) (e event, ok bool, err error) {
	var in struct {
		Type      string
		Timestamp time.Time
		Metadata  struct {
			Action    string
			Source    string
			Name      string
			Project   string
			Requestor *struct{ Username, Protocol string }
		}
		Project string
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return event{}, false, fmt.Errorf("%w: the message is not an event: %w", service.ErrUnavailable, err)
	}
	if in.Type == "" {
		return event{}, false, fmt.Errorf("%w: the message is not an event: no type", service.ErrUnavailable)
	}
	if in.Type != "lifecycle" {
		return event{}, false, nil
	}
	source, err := url.Parse(in.Metadata.Source)
	if err != nil {
		return event{}, false, fmt.Errorf("%w: the message is not an event: source %.80q", service.ErrUnavailable, in.Metadata.Source)
	}
	const prefix = "/1.0/instances/"
	if len(source.Path) <= len(prefix) || source.Path[:len(prefix)] != prefix || in.Timestamp.IsZero() {
		return event{}, false, nil
	}
	e = event{
		action: in.Metadata.Action, instance: source.Path[len(prefix):], project: in.Project, at: in.Timestamp,
		ordered: in.Metadata.Requestor != nil,
	}
	return e, checkName(e.instance) == nil, nil
}

// silent reports whether an event is no change of an instance: what this package itself does inside brings some as well.
func (e event) silent() bool {
	switch e.action {
	case "instance-exec", "instance-console", "instance-console-retrieved", "instance-file-retrieved", "instance-log-retrieved",
		"instance-metadata-retrieved", "instance-backup-retrieved":
		return true
	}
	return false
}

// ending says by whom a run was ended.
type ending uint8

const (
	endUnseen  ending = iota // no event of it was seen
	endOrdered               // somebody asked the daemon for it
	endInside                // nobody did: a shutdown from inside, or a crash
)

// end is what is known of the end of a run of an instance.
type end struct {
	at    time.Time // of the event, on the daemon's clock
	by    ending
	fresh bool // the run was not seen to have ended for long
}

// restarting is how long Incus takes at most until an instance with boot.autorestart runs again (it took half a second).
const restarting = 10 * time.Second

// remember notes what an event says of the end of a run.
func (m *Manager) remember(e event) {
	if e.action != "instance-stopped" && e.action != "instance-shutdown" || e.project != "" && e.project != m.config.Project {
		return
	}
	by := endInside
	if e.ordered {
		by = endOrdered
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seen) >= maxSeen {
		clear(m.seen)
	}
	m.seen[e.instance] = end{at: e.at, by: by}
}

// down is the first look at an instance whose run had ended.
type down struct {
	run string
	at  time.Time
}

// recall returns what was seen of the end of the run that i shows, and whether the daemon answers for long enough.
func (m *Manager) recall(name string, i instance) (e end, settled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seen := m.seen[name]; seen.at.After(i.lastUsed) {
		e = seen
	}
	if i.status == "Stopped" {
		first, ok := m.down[name]
		if !ok || first.run != i.run {
			first = down{run: i.run, at: time.Now()}
			m.down[name] = first
		}
		e.fresh = time.Since(first.at) < restarting
	} else {
		delete(m.down, name)
	}
	return e, !m.since.IsZero() && time.Since(m.since) >= settling
}

// listen calls begun when the daemon has accepted to send events, and each with every event of an instance, until ctx ends
// or the connection breaks.
func (m *Manager) listen(ctx context.Context, begun func(), each func(event)) error {
	const call = "GET /1.0/events"
	ws, err := m.socket(ctx, "/1.0/events", url.Values{"type": {"lifecycle"}})
	if err != nil {
		return err
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(maxEvent)
	begun()
	for {
		_, body, err := ws.Read(ctx)
		if err != nil {
			return m.lost(ctx, call, err)
		}
		e, ok, err := parseEvent(body)
		if err != nil {
			return fmt.Errorf("%s: %w", call, err)
		}
		if ok {
			m.remember(e)
			each(e)
		}
	}
}

// socket opens a websocket. The library's own client follows redirects and may compress; this one does neither.
func (m *Manager) socket(ctx context.Context, path string, query url.Values) (*websocket.Conn, error) {
	call := "GET " + path
	ws, resp, err := websocket.Dial(ctx, m.url(path, query), &websocket.DialOptions{HTTPClient: m.http, CompressionMode: websocket.CompressionDisabled})
	if err == nil {
		return ws, nil
	}
	if resp != nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, fmt.Errorf("%s: %w", call, refusal(resp))
		}
	}
	return nil, m.lost(ctx, call, err)
}

// Watch implements service.Watcher. wake is called once when the daemon sends its events, so that nothing is lost before.
// The daemon ends the subscription of one who reads too slowly; the caller begins anew then, and looks again. The ends of
// runs that fall into such a gap are not known.
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
	watched := map[string]bool{}
	inside := map[place]*group{}
	for _, unit := range units {
		p, err := m.parseUnit(unit)
		if err != nil {
			return err
		}
		watched[p.instance] = true
		if p.unit != "" {
			at := place{instance: p.instance, manager: p.manager}
			if inside[at] == nil {
				inside[at] = &group{place: at, changed: make(chan struct{}, 1)}
			}
			inside[at].units = append(inside[at].units, p.unit)
		}
	}
	eg, ctx := errgroup.WithContext(ctx)
	for _, g := range inside {
		eg.Go(func() error { return m.watchInside(ctx, g, wake) })
	}
	eg.Go(func() error {
		return m.listen(ctx, wake, func(e event) {
			if !watched[e.instance] || e.silent() {
				return
			}
			for at, g := range inside {
				if at.instance == e.instance {
					g.poke()
				}
			}
			wake()
		})
	})
	return eg.Wait()
}
