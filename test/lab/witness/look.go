package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

const (
	askManagerEvery = 250 * time.Millisecond
	askEtcdEvery    = 500 * time.Millisecond
)

// LookConfig says what a looker asks. Names are those on the records.
type LookConfig struct {
	Units      []string          // of systemd
	OpenRC     []string          // services of OpenRC
	Containers map[string]string // name to container, asked of the engine
	Memory     map[string]string // name to container, the main process of which is measured; this container must see it
	Engine     string            // the engine's socket
	Etcd       map[string]string // name to client URL of a member
}

// Look asks managers four times and members of etcd twice a second until the context ends.
func Look(ctx context.Context, cfg LookConfig, out *Output) error {
	// A connection of its own for every question: one that is there already may work where a new one does not.
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	l := &looker{cfg: cfg, out: out, engine: engineClient(cfg.Engine), units: map[string]*beat[record.Unit]{}}
	var all sync.WaitGroup
	if len(cfg.Units) > 0 {
		all.Go(func() {
			u := &unitWatcher{units: cfg.Units, out: out, beats: map[string]*beat[record.Unit]{}}
			ticks(ctx.Done(), askManagerEvery, func() { u.ask(ctx) })
			u.drop()
		})
	}
	all.Go(func() {
		ticks(ctx.Done(), askManagerEvery, func() {
			for _, name := range cfg.OpenRC {
				l.put(ctx, openRC(name, "/run/openrc", "/run", "/proc"))
			}
			for _, name := range slices.Sorted(maps.Keys(cfg.Containers)) {
				l.put(ctx, l.container(ctx, name, cfg.Containers[name]))
			}
		})
	})
	all.Go(func() {
		ticks(ctx.Done(), repeatEvery, func() {
			for name, container := range cfg.Memory {
				if m, ok := l.memory(ctx, name, container); ok {
					out.Put(record.Record{Memory: &m})
				}
			}
		})
	})
	for name, url := range cfg.Etcd {
		all.Go(func() {
			b := &beat[record.Etcd]{}
			ticks(ctx.Done(), askEtcdEvery, func() {
				got := member(ctx, fresh, name, url)
				key := got
				key.Index, key.Text = 0, "" // it moves all the time
				if now := time.Now(); ctx.Err() == nil && b.due(now, key) {
					out.Put(record.Record{At: now, Etcd: &got})
				}
			})
		})
	}
	all.Wait()
	return out.Err()
}

type looker struct {
	cfg    LookConfig
	out    *Output
	engine *http.Client
	units  map[string]*beat[record.Unit]
}

func (l *looker) put(ctx context.Context, u record.Unit) {
	if l.units[u.Name] == nil {
		l.units[u.Name] = &beat[record.Unit]{}
	}
	if now := time.Now(); ctx.Err() == nil && l.units[u.Name].due(now, u) {
		l.out.Put(record.Record{At: now, Unit: &u})
	}
}

// openRC reads what OpenRC keeps of a service, and its process. It is "crashed" where OpenRC has it started and its process
// is gone.
func openRC(name, state, run, proc string) record.Unit {
	u := record.Unit{Name: name, ActiveState: "stopped"}
	for _, mark := range []string{"stopping", "starting", "inactive", "failed", "started"} {
		if _, err := os.Lstat(filepath.Join(state, mark, name)); err == nil {
			u.ActiveState, u.SubState = mark, mark
			break
		}
	}
	if u.ActiveState != "started" {
		return u
	}
	u.ActiveState = "crashed"
	pid, err := os.ReadFile(filepath.Join(run, name+".pid"))
	if err != nil {
		return u
	}
	number := strings.TrimSpace(string(pid))
	stat, err := os.ReadFile(filepath.Join(proc, number, "stat"))
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	fields := strings.Fields(string(rest))
	if n, perr := strconv.ParseUint(number, 10, 32); err == nil && perr == nil && len(fields) > 19 && fields[0] != "Z" {
		u.ActiveState, u.MainPID = "active", uint32(n)
		u.InvocationID = number + " since " + fields[19] // clock ticks after boot
	}
	return u
}

func engineClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
}

// inspected is what is read of GET /containers/NAME/json.
type inspected struct {
	RestartCount uint32
	State        struct {
		Status    string
		ExitCode  int
		Pid       uint32
		StartedAt string
	}
}

func (l *looker) inspect(ctx context.Context, container string) (inspected, error) {
	var in inspected
	body, err := get(ctx, l.engine, "http://docker/containers/"+container+"/json", nil)
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	return in, err
}

// container asks the engine. A container that runs is "active", others have the engine's own word.
func (l *looker) container(ctx context.Context, name, container string) record.Unit {
	in, err := l.inspect(ctx, container)
	if err != nil {
		return record.Unit{Name: name, Text: err.Error()}
	}
	u := record.Unit{
		Name: name, ActiveState: in.State.Status, SubState: in.State.Status, Result: "exit code " + strconv.Itoa(in.State.ExitCode),
		InvocationID: in.State.StartedAt, NRestarts: in.RestartCount, MainPID: in.State.Pid,
	}
	if in.State.Status == "running" {
		u.ActiveState, u.Result = "active", ""
	}
	return u
}

// memory reads what the kernel counts of a container's main process.
func (l *looker) memory(ctx context.Context, name, container string) (record.Memory, bool) {
	in, err := l.inspect(ctx, container)
	if err != nil || in.State.Pid == 0 {
		return record.Memory{}, false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.State.Pid))
	m := record.Memory{Name: name, Resident: kilobytes(text, "VmRSS:"), Anonymous: kilobytes(text, "RssAnon:"), Peak: kilobytes(text, "VmHWM:")}
	return m, err == nil && m.Resident > 0
}

// kilobytes returns a line of /proc/PID/status in bytes, 0 where there is none.
func kilobytes(status []byte, key string) int64 {
	for line := range bytes.Lines(status) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// member asks a member of etcd for its state, which it tells without a quorum, and for its health, which it does not.
func member(parent context.Context, c *http.Client, name, url string) record.Etcd {
	ctx, cancel := context.WithTimeout(parent, askTimeout)
	defer cancel()
	got := record.Etcd{Name: name}
	var st struct {
		Header struct {
			MemberID string `json:"member_id"`
		} `json:"header"`
		Leader, RaftIndex, RaftTerm, DBSize string
	}
	body, err := get(ctx, c, url+"/v3/maintenance/status", []byte("{}"))
	if err == nil {
		err = json.Unmarshal(body, &st)
	}
	if err != nil {
		got.Text = err.Error()
		return got
	}
	got.Answered, got.Member, got.Leader = true, st.Header.MemberID, st.Leader
	got.Index, _ = strconv.ParseUint(st.RaftIndex, 10, 64)
	got.Term, _ = strconv.ParseUint(st.RaftTerm, 10, 64)
	got.Size, _ = strconv.ParseInt(st.DBSize, 10, 64)
	_, err = get(ctx, c, url+"/health", nil)
	got.Healthy = err == nil
	return got
}

// get asks by GET, or by POST with a body. An answer that is no success is an error.
func get(ctx context.Context, c *http.Client, url string, body []byte) ([]byte, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("status %d: %.200s", resp.StatusCode, text)
	}
	return text, err
}
