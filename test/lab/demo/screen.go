package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// How often the state is shown: on a terminal one line is rewritten, elsewhere each is a line of its own.
const (
	showEvery = time.Second
	lineEvery = 10 * time.Second
)

// screen shows what is happening: lines for what has happened, and below them, on a terminal, one line with what is
// being done and how the stack is. It is safe for concurrent use.
type screen struct {
	began time.Time
	width int // columns of the terminal, 0 where it is none

	mu       sync.Mutex // guards what follows, and the order of what is written
	w        io.Writer
	now      string                 // what is being done
	since    time.Time              // when that began
	state    func(time.Time) string // how the stack is, nil where nobody looks
	live     bool                   // the last line on the terminal is the one that is rewritten
	lastLine time.Time              // when the state was last written as a line
}

func newScreen(w io.Writer) *screen {
	now := time.Now()
	return &screen{began: now, since: now, lastLine: now, w: w, width: columns(w)}
}

// columns returns the width of the terminal that w is, or 0 where it is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || os.Getenv("TERM") == "dumb" {
		return 0
	}
	if ws.Col < 40 {
		return 80 // a terminal that does not know its width
	}
	return int(ws.Col)
}

// say writes a line that stays.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(time.Now(), fmt.Sprintf(format, args...))
}

// heading begins a part of the demonstration.
func (s *screen) heading(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.w, "\n%s\n", text)
}

// doing says what is being done from now on.
func (s *screen) doing(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.now, s.since = text, now
	s.line(now, text)
}

// watch shows the given state from now on; nil shows none.
func (s *screen) watch(state func(time.Time) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.lastLine = state, time.Now()
}

// text writes something that has its own form.
func (s *screen) text(write func(io.Writer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	write(s.w)
}

func (s *screen) line(now time.Time, text string) {
	s.clear()
	fmt.Fprintf(s.w, "%s  %s\n", clock(now.Sub(s.began)), text)
}

func (s *screen) clear() {
	if s.live {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.live = false
	}
}

// run shows the state until the context ends.
func (s *screen) run(ctx context.Context) {
	t := time.NewTicker(showEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.clear()
			s.mu.Unlock()
			return
		case now := <-t.C:
			s.show(now)
		}
	}
}

func (s *screen) show(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := ""
	if s.state != nil {
		state = s.state(now)
	}
	if s.width == 0 {
		if state != "" && now.Sub(s.lastLine) >= lineEvery {
			s.line(now, state)
			s.lastLine = now
		}
		return
	}
	if state == "" {
		state = fmt.Sprintf("%s (%s)", s.now, now.Sub(s.since).Round(time.Second))
	}
	fmt.Fprintf(s.w, "\r\x1b[K%s", cut(clock(now.Sub(s.began))+"  "+state, s.width-1))
	s.live = true
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%3d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// cut shortens a line to n columns.
func cut(line string, n int) string {
	if utf8.RuneCountInString(line) <= n {
		return line
	}
	return string([]rune(line)[:n-1]) + "…"
}

// plain are the log messages of stack and scenario that say what is being done, in the words of the demonstration. An
// empty text is not shown.
func plain(message string) string {
	switch message {
	case "start containers":
		return "start 7 containers: 3 PostgreSQL nodes with Patroni, 3 etcd members, 1 HAProxy"
	case "settle the stack":
		return "wait until the stack is healthy"
	case "start the agents":
		return "install and start pgpatrol on every node, policy revive: auto"
	case "undo and settle":
		return "end the fault and wait until the stack is healthy again"
	case "stack is up", "injected", "mark", "break it", "revert", "node image built", "remove containers":
		return ""
	default:
		return message
	}
}

// handler turns what the lab logs into what the demonstration shows.
type handler struct{ s *screen }

// Enabled implements slog.Handler.
func (handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements slog.Handler.
func (h handler) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		if text := plain(r.Message); text != "" {
			h.s.doing(text)
		}
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" || a.Key == "node" {
			text += ": " + strings.Join(strings.Fields(a.Value.String()), " ")
		}
		return true
	})
	h.s.say("%s", text)
	return nil
}

// WithAttrs implements slog.Handler: what is always the same is not worth showing.
func (h handler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h handler) WithGroup(string) slog.Handler { return h }
