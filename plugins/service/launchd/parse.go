package launchd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// notLoaded is the detail of a job that launchd does not know.
const notLoaded = "not loaded"

// job is what "launchctl print" shows of one. What it does not show is zero, and doubt says that it cannot be relied on.
type job struct {
	state    string // launchd's own word
	jobState string // another one, since macOS 13
	pid      int
	runs     int
	exit     string // 0, "78: EX_CONFIG", "(never exited)"
	signal   string // "Killed: 9"; the exit code is left out then
	reason   string // "OS_REASON_DYLD"
	path     string
	minimum  time.Duration // between two starts
	keep     bool          // alive, whatever it ended with
	success  string        // keep alive if it ended with success (1) or without (0)
	crash    string        // keep alive if it crashed (1)
	pended   bool          // launchd waits for a demand before it starts the job again
	abandon  bool          // what is left of its process group lives on when its main process has ended
	doubt    string
}

// parse reads the lines of "launchctl print" that count. The job's own fields have one tab before them, those of the blocks
// in it have more, and so have the arguments and the environment of the job, which may contain anything but a line feed.
func parse(b []byte) job {
	p := printed{fields: map[string]string{}, blocks: map[string]map[string]string{}}
	p.read(string(b))
	j := job{
		state: p.fields["state"], jobState: p.fields["job state"],
		exit: p.fields["last exit code"], signal: p.fields["last terminating signal"], reason: p.fields["last exit reason"],
		path: p.fields["path"],
		keep: p.property("keepalive"), success: p.blocks["semaphores"]["successful exit"], crash: p.blocks["semaphores"]["after crash"],
	}
	_, j.pended = p.fields["pended nondemand spawn"]
	j.pended = j.pended || p.property("pended non-demand spawn")
	j.abandon = p.property("abandon process group")
	j.pid = p.number("pid")
	j.runs = p.number("runs")
	j.minimum = time.Duration(p.number("minimum runtime")) * time.Second
	switch {
	case p.doubt != "":
		j.doubt = p.doubt
	case !p.closed:
		j.doubt = "what launchctl printed is cut off"
	case j.state == "":
		j.doubt = "launchctl prints no state"
	}
	return j
}

// printed is a job as it was printed.
type printed struct {
	fields map[string]string
	blocks map[string]map[string]string
	closed bool
	doubt  string
}

// fieldsThatCount may stand in the output once.
var fieldsThatCount = map[string]bool{
	"state": true, "job state": true, "pid": true, "runs": true, "last exit code": true, "last terminating signal": true,
	"last exit reason": true, "path": true, "minimum runtime": true, "properties": true, "pended nondemand spawn": true,
}

// read takes the output apart.
func (p *printed) read(text string) {
	var block map[string]string
	first := true
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		field, one := strings.CutPrefix(line, "\t")
		switch {
		case first:
			first = false
			if !strings.HasSuffix(line, " = {") {
				p.doubt = "launchctl prints no job"
				return
			}
		case line == "}":
			p.closed = true
		case !one || p.closed:
		case strings.HasPrefix(field, "\t"):
			p.inside(block, field[1:])
		default:
			block = p.field(field)
		}
	}
}

// field reads one of the job's own lines. It returns the block that the line begins, if it does.
func (p *printed) field(line string) map[string]string {
	key, value, ok := strings.Cut(line, " = ")
	switch {
	case !ok:
		return nil
	case value == "{":
		if _, twice := p.blocks[key]; twice {
			return nil
		}
		p.blocks[key] = map[string]string{}
		return p.blocks[key]
	case !fieldsThatCount[key]:
		return nil
	}
	if _, twice := p.fields[key]; twice {
		p.doubt = fmt.Sprintf("launchctl prints %q twice", key)
	}
	p.fields[key] = value
	return nil
}

// inside reads a line of a block, "key => value" or "key = value". Deeper ones do not count.
func (p *printed) inside(block map[string]string, line string) {
	if block == nil || strings.HasPrefix(line, "\t") {
		return
	}
	key, value, ok := strings.Cut(line, " => ")
	if !ok {
		key, value, ok = strings.Cut(line, " = ")
	}
	if ok {
		block[key] = value
	}
}

// property reports whether a job has a property: in a list of those that it has, or, before macOS 11, in a block of all.
func (p *printed) property(name string) bool {
	if p.blocks["properties"][name] == "1" {
		return true
	}
	for one := range strings.SplitSeq(p.fields["properties"], " | ") {
		if one == name {
			return true
		}
	}
	return false
}

// number reads a field that is one. A field that is something else makes everything doubtful.
func (p *printed) number(key string) int {
	value, ok := p.fields[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		p.doubt = fmt.Sprintf("launchctl prints a %q that is no number", key)
		return 0
	}
	return int(n)
}

// over reports whether the job does not run and nothing has been begun with it.
func (j job) over() bool {
	switch j.state {
	case "not running", "waiting", "exited":
		return j.doubt == ""
	}
	return false
}

// grace is added to the throttle interval before it is believed that launchd will not start a job again.
const grace = 5 * time.Second

// status puts a job into the words of the contract. down is for how long it has been seen not to run.
func (j job) status(unit string, down time.Duration) service.Status {
	st := service.Status{Unit: unit, Detail: j.state, KillMode: "control-group", Restart: j.restart(), RestartDelay: j.minimum}
	if j.abandon {
		st.KillMode = "process"
	}
	if strings.HasPrefix(j.path, "/") {
		st.UnitFile = j.path
	}
	if j.doubt != "" {
		st.Detail = j.doubt
		return st
	}
	if j.runs > 0 {
		// launchd numbers the runs of a job from when it was loaded.
		st.InvocationID = fmt.Sprintf("run %d", j.runs)
	}
	if j.jobState == "spawn failed" {
		st.LoadError = "spawn failed"
	}
	switch {
	case j.state == "running" && j.pid > 0 && j.runs > 0:
		st.State, st.MainPID = service.StateRunning, j.pid
	case j.state == "xpcproxy", j.state == "spawning":
		st.State, st.MainPID = service.StateStarting, j.pid
	case strings.HasPrefix(j.state, "SIG"):
		st.State, st.MainPID, st.Job = service.StateStopping, j.pid, "stop"
	case j.state == "spawn scheduled":
		st.State = service.StateRestarting
		j.ended(&st)
	case j.over():
		j.isDown(&st, down)
	}
	return st
}

// isDown sets the state of a job that does not run.
func (j job) isDown(st *service.Status, down time.Duration) {
	if known := j.ended(st); !known {
		if j.runs == 0 || j.exit == neverExited {
			st.State, st.Detail = service.StateStopped, j.state+", never ran"
			return
		}
		st.Detail = j.state + ", but launchctl does not print how it ended"
		return
	}
	const sigterm, byTerm = 15, 128 + 15
	st.State = service.StateFailed
	// SIGTERM is how everybody asks a process to end: whoever did it, it did not crash.
	if st.Result == "success" || st.Result == "signal" && st.ExitStatus == sigterm || st.Result == "exit-code" && st.ExitStatus == byTerm {
		st.State = service.StateStopped
	}
	if st.RestartsAfter(st.Result) && st.LoadError == "" && !j.pended && down <= j.minimum+grace {
		st.State = service.StateRestarting
	}
}

// neverExited stands for an exit code before the first one.
const neverExited = "(never exited)"

// ended sets how the last run ended, and reports whether launchctl says so. A signal counts more than a code: since macOS 13
// only one of them is printed, before that the code may be an older one.
func (j job) ended(st *service.Status) bool {
	code, _, _ := strings.Cut(j.exit, ":")
	n, err := strconv.Atoi(code)
	_, number, _ := strings.Cut(j.signal, ": ")
	sig, sigErr := strconv.Atoi(number)
	if sigErr != nil {
		sig, sigErr = strconv.Atoi(j.signal)
	}
	switch {
	case j.signal != "":
		st.Result = "signal"
		if sigErr == nil {
			st.ExitStatus = sig
		}
	case err == nil && n == 0 && j.reason == "":
		st.Result = "success"
	case err == nil && n != 0:
		st.Result, st.ExitStatus = "exit-code", n
	case j.reason != "":
		st.Result = "exit-code"
	default:
		return false
	}
	return true
}

// restart returns the policy in systemd's words.
func (j job) restart() string {
	switch {
	case j.keep:
		return "always"
	case j.success == "0":
		return "on-failure"
	case j.success == "1":
		return "on-success"
	case j.crash == "1":
		return "on-abort"
	}
	return "no"
}

// parseDisabled finds a label in "launchctl print-disabled". Only jobs that were ever enabled or disabled are in it. Since
// macOS 13 the words are disabled and enabled, before that true and false.
func parseDisabled(b []byte, label string) (disabled bool, err error) {
	inside, closed := false, false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "disabled services = {":
			inside = true
		case line == "}":
			closed = closed || inside
			inside = false
		case inside:
			value, ok := strings.CutPrefix(line, strconv.Quote(label)+" => ")
			if !ok {
				continue
			}
			switch value {
			case "disabled", "true":
				disabled = true
			case "enabled", "false":
				disabled = false
			default:
				return false, errors.New("launchctl prints neither enabled nor disabled for the job")
			}
		}
	}
	if !closed {
		return false, errors.New("launchctl prints no list of disabled jobs")
	}
	return disabled, nil
}
