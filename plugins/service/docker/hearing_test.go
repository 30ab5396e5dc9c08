package docker

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// forgetful is an engine that has forgotten every event, and tells those that happen.
type forgetful struct {
	replay

	mu      sync.Mutex // guards the container
	happens chan []byte
}

func (f *forgetful) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.HasSuffix(req.URL.Path, "/events") {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.replay.ServeHTTP(w, req)
		return
	}
	if req.URL.Query().Has("until") {
		return
	}
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case line := <-f.happens:
			_, _ = w.Write(line)
			w.(http.Flusher).Flush()
		case <-req.Context().Done():
			return
		}
	}
}

// looks makes the container look as if it ran, or as it was recorded.
func (f *forgetful) looks(container []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.container = container
}

// TestStatus_Overheard: what Watch heard of a run that was seen tells how it ended, when the engine has forgotten its
// beginning. Found in the lab, where other containers' commands and checks push 256 events through within a minute.
func TestStatus_Overheard(t *testing.T) {
	for _, tt := range []struct {
		name, outcome string
		want          service.Intent
		unseen        bool // Status was not asked while it ran
		early         bool // the engine may still say "stop"
		interrupted   bool // Watch was another one when it ran
	}{
		{name: "crashed", outcome: "crashed", want: service.IntentRun},
		{name: "exited", outcome: "exited-3", want: service.IntentRun},
		{name: "stopped by force", outcome: "stopped-by-force", want: service.IntentStopped},
		{name: "killed", outcome: "killed", want: service.IntentStopped},
		{name: "hung up", outcome: "hung-up", want: service.IntentStopped},
		{name: "crashed just now", outcome: "crashed", early: true, want: service.IntentUnknown},
		{name: "never seen to run", outcome: "crashed", unseen: true, want: service.IntentUnknown},
		{name: "seen under another watch", outcome: "crashed", interrupted: true, want: service.IntentUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, unit := recorded(t, tt.outcome)
			ended := r.container
			runs := bytes.Replace(bytes.Replace(ended, []byte(`"Status": "exited"`), []byte(`"Status": "running"`), 1), []byte(`"Pid": 0`), []byte(`"Pid": 77`), 1)
			f := &forgetful{replay: r, happens: make(chan []byte)}
			m, _ := behindGate(t, f)
			wakes := make(chan struct{}, 100)
			watch := func() (end func()) {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = m.Watch(ctx, []string{unit}, func() { wakes <- struct{}{} })
				}()
				<-wakes
				return func() { cancel(); <-done }
			}
			f.looks(runs)
			end := watch()
			if st, err := m.Status(t.Context(), unit); !tt.unseen && (err != nil || st.State != service.StateRunning) {
				t.Fatalf("while it runs: %+v, %v", st, err)
			}
			if tt.unseen {
				m.seen[unit] = trace{}
			}
			if tt.interrupted {
				end()
				end = watch()
			}
			for line := range bytes.Lines(r.events) {
				if !bytes.Contains(line, []byte(`"Action":"start"`)) {
					f.happens <- line
					<-wakes
				}
			}
			f.looks(ended)
			if !tt.early {
				m.mu.Lock()
				m.heard[unit].died = m.heard[unit].died.Add(-afterEnd)
				m.mu.Unlock()
			}
			st, err := m.Status(t.Context(), unit)
			if err != nil || st.Intent() != tt.want {
				t.Errorf("after its end: %v of %+v, %v; want %v", st.Intent(), st, err, tt.want)
			}
			end()
			if again, err := m.Status(t.Context(), unit); err != nil || again.Intent() != tt.want {
				t.Errorf("without a watch: %v, %v; want %v, as before", again.Intent(), err, tt.want)
			}
		})
	}
}

func TestHear(t *testing.T) {
	m, err := New(Default(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	e := func(id, action string) event {
		e := event{Action: action, TimeNano: 1}
		e.Actor.ID = id
		return e
	}
	h := &hearing{}
	for range maxHeard {
		m.hear(h, e("a", "kill"))
	}
	if h.lost {
		t.Error("lost before it was full")
	}
	m.hear(h, e("a", "start"))
	m.hear(h, e("b", "die"))
	if len(h.events) != 2 || h.lost || time.Since(h.died) > time.Minute {
		t.Errorf("%d events after a new run, lost %t, died %s", len(h.events), h.lost, h.died)
	}
	for range maxHeard {
		m.hear(h, e("b", "kill"))
	}
	if !h.lost {
		t.Error("not lost when it was full")
	}
}
