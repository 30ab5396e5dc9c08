// Command replay is no launchd: it answers as launchctl does, from a state that it keeps in a file, so that the manager can
// be driven where no macOS runs. Nothing that it starts is a process.
//
// Below a folder of its own it is found as launchctl, a link to this one program; Library/LaunchAgents holds a file for each
// job that may be loaded, and state.json the state, locked while it is used. It knows
//
//	launchctl print DOMAIN/LABEL
//	launchctl print-disabled DOMAIN
//	launchctl kickstart [-k] DOMAIN/LABEL
//	launchctl kill SIGKILL DOMAIN/LABEL
//	launchctl bootstrap DOMAIN PLIST
//	launchctl bootout DOMAIN/LABEL
//	launchctl enable|disable DOMAIN/LABEL
//
// What a person, a program or bad luck does besides is asked for as "replay FOLDER VERB [LABEL [SPEC]]": install, remove,
// crash, freeze, children, gone, hang, back.
//
// Which lines are printed, how, in which order and when, the words of the states and the exit codes are those of macOS 15
// and 26 as people show them in public; ../testdata/README.md says where from. That "minimum runtime" may be 0, so that a
// test need not wait for ten seconds, and that a stop may take as long as a test wants, is this program's own.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	code, err := run(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// Exit codes: error numbers of the system, and launchd's own.
const (
	ok           = 0
	failed       = 1
	noSuch       = 3
	ioError      = 5
	already      = 37
	usage        = 64
	noDomain     = 112
	noService    = 113
	disabledCode = 119
)

func run(args []string) (int, error) {
	if filepath.Base(args[0]) == "launchctl" {
		return with(filepath.Dir(args[0]), func(s *state) (int, error) { return s.launchctl(args[1:]) })
	}
	if len(args) < 3 {
		return usage, errors.New("usage: replay FOLDER VERB [LABEL [SPEC]]")
	}
	return with(args[1], func(s *state) (int, error) { return s.control(args[1], args[0], args[2:]) })
}

// spec is the definition of a job.
type spec struct {
	Keep      string        `json:"keep,omitempty"` // always, or failure
	Minimum   int           `json:"minimum"`        // seconds between two starts
	ExitAfter int           `json:"exit_after"`     // seconds until SIGKILL
	StopTakes time.Duration `json:"stop_takes,omitempty"`
	Deaf      bool          `json:"deaf,omitempty"` // to SIGTERM
	OnTerm    int           `json:"on_term,omitempty"`
}

// entry is a job of the domain gui/501.
type entry struct {
	Spec      spec      `json:"spec"`
	Plist     string    `json:"plist"`
	Loaded    bool      `json:"loaded"`
	Disabled  *bool     `json:"disabled,omitempty"`
	PID       int       `json:"pid,omitempty"`
	Runs      int       `json:"runs"`
	Began     time.Time `json:"began"`
	Exit      *int      `json:"exit,omitempty"`
	Signal    string    `json:"signal,omitempty"`
	Frozen    bool      `json:"frozen,omitempty"`
	Scheduled time.Time `json:"scheduled"` // when launchd starts it, zero if it does not
	Stops     time.Time `json:"stops"`     // when the stop in progress ends, zero if there is none
	Again     bool      `json:"again,omitempty"`
}

type state struct {
	Gone    bool              `json:"gone,omitempty"`
	Hangs   bool              `json:"hangs,omitempty"`
	LastPID int               `json:"last_pid"`
	Jobs    map[string]*entry `json:"jobs"`
}

const domain = "gui/501"

// with lets fn work on the state as it is by now, and keeps it.
func with(folder string, fn func(*state) (int, error)) (int, error) {
	f, err := os.OpenFile(filepath.Join(folder, "state.json"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return failed, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return failed, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return failed, err
	}
	s := state{LastPID: 600, Jobs: map[string]*entry{}}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &s); err != nil {
			return failed, err
		}
	}
	s.advance(time.Now())
	if s.Hangs {
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // who hangs has no lock
	}
	code, err := fn(&s)
	b, jsonErr := json.MarshalIndent(s, "", "\t")
	if jsonErr != nil {
		return failed, jsonErr
	}
	if jsonErr := f.Truncate(0); jsonErr != nil {
		return failed, jsonErr
	}
	if _, jsonErr := f.WriteAt(b, 0); jsonErr != nil {
		return failed, jsonErr
	}
	return code, err
}

// advance lets happen what was due before now.
func (s *state) advance(now time.Time) {
	for _, e := range s.Jobs {
		if !e.Stops.IsZero() && !now.Before(e.Stops) {
			at, again, loaded := e.Stops, e.Again, e.Loaded
			e.Stops, e.Again = time.Time{}, false
			e.over(at)
			switch {
			case !loaded:
				e.unload()
			case again:
				e.schedule(at)
			}
		}
		if !e.Scheduled.IsZero() && !now.Before(e.Scheduled) {
			s.spawn(e, e.Scheduled)
		}
	}
}

func (s *state) spawn(e *entry, at time.Time) {
	s.LastPID += 2
	e.PID, e.Began, e.Frozen, e.Scheduled = s.LastPID, at, false, time.Time{}
	e.Runs++
}

// schedule starts the job as soon as the minimum runtime has passed since the last start.
func (e *entry) schedule(now time.Time) {
	e.Scheduled = now
	if t := e.Began.Add(time.Duration(e.Spec.Minimum) * time.Second); e.Runs > 0 && t.After(now) {
		e.Scheduled = t
	}
}

// over ends the process, and restarts the job if it is to be kept alive.
func (e *entry) over(now time.Time) {
	e.PID = 0
	clean := e.Signal == "" && e.Exit != nil && *e.Exit == 0
	if e.Loaded && (e.Spec.Keep == "always" || e.Spec.Keep == "failure" && !clean) {
		e.schedule(now)
	}
}

func (e *entry) die(now time.Time, code int, signal string) {
	e.Exit, e.Signal = &code, signal
	if signal != "" {
		e.Exit = nil
	}
	e.over(now)
}

// stop asks the process to end: SIGTERM, and SIGKILL after the exit timeout.
func (e *entry) stop(now time.Time) {
	code := e.Spec.OnTerm
	e.Exit, e.Signal = &code, ""
	took := e.Spec.StopTakes
	if e.Spec.Deaf || e.Frozen {
		took = time.Duration(e.Spec.ExitAfter) * time.Second
		e.Exit, e.Signal = nil, "Killed: 9"
	}
	e.Stops = now.Add(took)
}

// unload forgets what launchd does not keep of a job that is not loaded.
func (e *entry) unload() {
	*e = entry{Spec: e.Spec, Plist: e.Plist, Disabled: e.Disabled}
}

func (s *state) launchctl(args []string) (int, error) {
	switch {
	case s.Gone:
		return noDomain, errors.New("Bad request.\nCould not find domain for user gui: 501") //nolint:staticcheck // the words of launchctl
	case s.Hangs:
		time.Sleep(time.Hour)
	case len(args) < 2:
		return usage, fmt.Errorf("launchctl %q is not replayed", args)
	}
	if args[0] == "print-disabled" {
		return s.printDisabled(os.Stdout, args[1])
	}
	if args[0] == "bootstrap" && len(args) == 3 && args[1] == domain {
		return s.bootstrap(args[2])
	}
	name := args[len(args)-1]
	e := s.Jobs[strings.TrimPrefix(name, domain+"/")]
	if args[0] == "enable" || args[0] == "disable" {
		return e.able(args[0] == "disable")
	}
	if e == nil || !e.Loaded && e.Stops.IsZero() {
		return s.absent(args[0], name)
	}
	now := time.Now()
	switch {
	case args[0] == "print":
		return ok, e.print(os.Stdout, name)
	case args[0] == "kickstart":
		return s.kickstart(e, now, slices.Contains(args, "-k"))
	case args[0] == "kill" && args[1] == "SIGKILL":
		if e.PID == 0 {
			return noSuch, errors.New("No process to signal.") //nolint:staticcheck,revive // the words of launchctl
		}
		e.die(now, 0, "Killed: 9")
		return ok, nil
	case args[0] == "bootout":
		e.Loaded, e.Scheduled = false, time.Time{}
		if e.PID == 0 {
			e.unload()
			return ok, nil
		}
		e.stop(now)
		s.advance(now)
		return ok, nil
	}
	return usage, fmt.Errorf("launchctl %q is not replayed", args)
}

// absent is what each command says of a job that is not loaded.
func (s *state) absent(verb, name string) (int, error) {
	label := filepath.Base(name)
	switch verb {
	case "print", "kickstart":
		return noService, fmt.Errorf("Bad request.\nCould not find service %q in domain for user gui: 501", label) //nolint:staticcheck // the words of launchctl
	}
	return noSuch, errors.New("Boot-out failed: 3: No such process") //nolint:staticcheck // the words of launchctl
}

func (e *entry) able(disabled bool) (int, error) {
	if e != nil {
		e.Disabled = &disabled
	}
	return ok, nil
}

func (s *state) bootstrap(plist string) (int, error) {
	e := s.Jobs[strings.TrimSuffix(filepath.Base(plist), ".plist")]
	if e == nil || e.Loaded || !e.Stops.IsZero() || e.Disabled != nil && *e.Disabled {
		return ioError, errors.New("Bootstrap failed: 5: Input/output error") //nolint:staticcheck // the words of launchctl
	}
	e.Loaded = true
	return ok, nil
}

func (s *state) kickstart(e *entry, now time.Time, kill bool) (int, error) {
	switch {
	case e.Disabled != nil && *e.Disabled:
		return disabledCode, errors.New("Could not kickstart service: 119: Service is disabled") //nolint:staticcheck // the words of launchctl
	case e.PID != 0 && !kill:
		return already, errors.New("Could not kickstart service: 37: Operation already in progress") //nolint:staticcheck // the words of launchctl
	case e.PID != 0:
		e.stop(now)
		e.Again = true
	default:
		e.schedule(now)
	}
	s.advance(now)
	return ok, nil
}

// word is the state in launchd's words.
func (e *entry) word() string {
	switch {
	case !e.Stops.IsZero():
		return "SIGTERMed"
	case e.PID != 0:
		return "running"
	case !e.Scheduled.IsZero():
		return "spawn scheduled"
	}
	return "not running"
}

// print prints a job as macOS 15 does. The environment is there to be skipped.
func (e *entry) print(w io.Writer, name string) error {
	label := filepath.Base(name)
	active := 0
	if e.PID != 0 {
		active = 1
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s = {\n\tactive count = %d\n\tpath = %s\n\ttype = LaunchAgent\n\tstate = %s\n\n", name, active, e.Plist, e.word())
	fmt.Fprintf(&b, "\tprogram = /opt/homebrew/bin/socat\n\targuments = {\n\t\t/opt/homebrew/bin/socat\n\t\tTCP-LISTEN:2379,fork\n\t\tTCP:127.0.0.1:2379\n\t}\n\n")
	fmt.Fprintf(&b, "\tdefault environment = {\n\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin\n\t}\n\n\tenvironment = {\n\t\tOSLogRateLimit => 64\n\t\tXPC_SERVICE_NAME => %s\n\t}\n\n", label)
	fmt.Fprintf(&b, "\tdomain = gui/501 [100005]\n\tasid = 100005\n\tminimum runtime = %d\n\texit timeout = %d\n\truns = %d\n", e.Spec.Minimum, e.Spec.ExitAfter, e.Runs)
	if e.PID != 0 {
		fmt.Fprintf(&b, "\tpid = %d\n\timmediate reason = non-ipc demand\n\tforks = 0\n\texecs = 1\n\tinitialized = 1\n", e.PID)
	}
	switch {
	case e.Signal != "":
		fmt.Fprintf(&b, "\tlast terminating signal = %s\n\n", e.Signal)
	case e.Exit != nil && e.Stops.IsZero():
		fmt.Fprintf(&b, "\tlast exit code = %d\n\n", *e.Exit)
	default:
		b.WriteString("\tlast exit code = (never exited)\n\n")
	}
	properties := "inferred program"
	switch e.Spec.Keep {
	case "failure":
		b.WriteString("\tsemaphores = {\n\t\tsuccessful exit => 0\n\t}\n\n")
	case "always":
		properties = "keepalive | " + properties
	}
	fmt.Fprintf(&b, "\tresource coalition = {\n\t\tID = 4782\n\t\ttype = resource\n\t\tstate = active\n\t\tactive count = %d\n\t\tname = %s\n\t}\n\n", active, label)
	fmt.Fprintf(&b, "\tspawn type = daemon (3)\n\tjetsam priority = 40\n\n\tproperties = %s\n}\n", properties)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *state) printDisabled(w io.Writer, of string) (int, error) {
	if of != domain {
		return noDomain, errors.New("Could not find domain for " + of)
	}
	words := map[bool]string{true: "disabled", false: "enabled"}
	var lines []string
	for label, e := range s.Jobs {
		if e.Disabled != nil {
			lines = append(lines, fmt.Sprintf("\t\t%q => %s\n", label, words[*e.Disabled]))
		}
	}
	slices.Sort(lines)
	_, err := fmt.Fprintf(w, "\n\tdisabled services = {\n\t\t\"com.apple.Siri.agent\" => disabled\n%s\t}\n\tlogin item associations = {\n\t}\n", strings.Join(lines, ""))
	return ok, err
}

// control is what happens to the machine behind launchd's back.
func (s *state) control(folder, self string, args []string) (int, error) {
	switch args[0] {
	case "gone":
		s.Gone = true
		return ok, nil
	case "hang":
		s.Hangs = true
		return ok, nil
	case "back":
		s.Gone, s.Hangs = false, false
		return ok, nil
	}
	if len(args) < 2 {
		return usage, errors.New("which job?")
	}
	label := args[1]
	if args[0] == "install" {
		return s.install(folder, self, label, args[2:])
	}
	e := s.Jobs[label]
	if e == nil {
		return failed, fmt.Errorf("no job %q", label)
	}
	switch args[0] {
	case "remove":
		delete(s.Jobs, label)
		return ok, os.Remove(e.Plist)
	case "crash":
		if e.PID == 0 {
			return failed, fmt.Errorf("%s does not run", label)
		}
		e.die(time.Now(), 0, "Killed: 9")
		return ok, nil
	case "freeze":
		e.Frozen = true
		return ok, nil
	}
	return usage, fmt.Errorf("unknown verb %q", args[0])
}

// install puts the definition of a job into place and loads it.
func (s *state) install(folder, self, label string, rest []string) (int, error) {
	e := &entry{Plist: filepath.Join(folder, "Library", "LaunchAgents", label+".plist"), Loaded: true}
	if len(rest) > 0 {
		if err := json.Unmarshal([]byte(rest[0]), &e.Spec); err != nil {
			return failed, err
		}
	}
	s.Jobs[label] = e
	target, err := filepath.EvalSymlinks(self)
	if err != nil {
		return failed, err
	}
	if err := os.MkdirAll(filepath.Dir(e.Plist), 0o755); err != nil {
		return failed, err
	}
	if err := os.WriteFile(e.Plist, []byte("<plist/>\n"), 0o644); err != nil {
		return failed, err
	}
	if err := os.Symlink(target, filepath.Join(folder, "launchctl")); err != nil && !errors.Is(err, os.ErrExist) {
		return failed, err
	}
	return ok, nil
}
