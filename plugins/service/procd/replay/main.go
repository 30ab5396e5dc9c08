// Command replay is no procd: it answers as procd's ubus object "service" and as OpenWrt's init scripts do, from a state
// that it keeps in a file, so that the manager can be driven where no OpenWrt runs. Nothing that it starts is a process.
//
// Below a folder of its own it is found under several names, links to this one program:
//
//	bin/ubus           ubus -t SECONDS call service list|signal JSON
//	bin/ubus-nobody    the same as a user whom the bus refuses (exit code 6)
//	init.d/NAME        start, stop, restart, enable, disable, enabled
//	rc.d/S99NAME       made and removed by enable and disable
//	state.json         the state; locked while it is used
//
// What a person, a program or bad luck does besides is asked for as "replay FOLDER VERB [NAME [SPEC]]": install, remove,
// crash, freeze, gone, hang, back.
//
// The answers have the form that procd's source gives them (service/instance.c, instance_dump, and service/service.c,
// service_dump, of procd in 2026): the fields, their order and when each is left out, exit codes as 128 and the signal's
// number, and the life of an instance between instance_start and instance_exit. The exit codes of ubus are those of
// libubus's ubusmsg.h. That a script knows nothing of what became of its call to procd is so in OpenWrt's rc.common.
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
		fmt.Fprintln(os.Stderr, "replay:", err)
	}
	os.Exit(code)
}

// Exit codes.
const (
	ok               = 0
	failed           = 1
	statusInvalid    = 2
	statusNotFound   = 4
	statusPermission = 6
	noBus            = 255
)

func run(args []string) (int, error) {
	base := filepath.Base(args[0])
	folder := filepath.Dir(filepath.Dir(args[0]))
	switch {
	case strings.HasPrefix(base, "ubus"):
		return ubus(folder, base, args[1:])
	case filepath.Base(filepath.Dir(args[0])) == "init.d":
		return with(folder, func(s *state) (int, error) { return s.script(folder, base, args[1:]) })
	case len(args) < 3:
		return failed, errors.New("usage: replay FOLDER VERB [NAME [SPEC]]")
	}
	return with(args[1], func(s *state) (int, error) { return s.control(args[1], args[0], args[2:]) })
}

// ubus is the bus. It is gone, or hangs, before procd sees anything.
func ubus(folder, as string, args []string) (int, error) {
	if len(args) > 2 && args[0] == "-t" {
		args = args[2:]
	}
	if len(args) != 4 || args[0] != "call" || args[1] != "service" {
		return statusInvalid, fmt.Errorf("ubus %q is not replayed", args)
	}
	return with(folder, func(s *state) (int, error) {
		switch {
		case s.Gone:
			return noBus, errors.New("Failed to connect to ubus") //nolint:staticcheck // the words of ubus
		case s.Hangs:
			time.Sleep(time.Hour)
		}
		var q struct {
			Name, Instance string
			Signal         int
		}
		if err := json.Unmarshal([]byte(args[3]), &q); err != nil {
			return statusInvalid, err
		}
		switch args[2] {
		case "list":
			return ok, s.list(os.Stdout, q.Name)
		case "signal":
			if as != "ubus" {
				return statusPermission, errors.New("Command failed: Permission denied") //nolint:staticcheck // the words of ubus
			}
			return s.signal(q.Name, q.Instance, q.Signal)
		}
		return statusInvalid, fmt.Errorf("method %q is not replayed", args[2])
	})
}

// spec is what a service is installed with.
type spec struct {
	Respawn   *respawn      `json:"respawn,omitempty"`
	Terminate int           `json:"terminate"` // term_timeout in seconds
	Child     bool          `json:"child,omitempty"`
	StopTakes time.Duration `json:"stop_takes,omitempty"`
	Deaf      bool          `json:"deaf,omitempty"` // to SIGTERM
	OnTerm    int           `json:"on_term,omitempty"`
}

type respawn struct {
	Threshold int `json:"threshold"`
	Timeout   int `json:"timeout"`
	Retry     int `json:"retry"`
}

// entry is a service with its one instance.
type entry struct {
	Spec     spec      `json:"spec"`
	Known    bool      `json:"known"` // to procd
	PID      int       `json:"pid,omitempty"`
	Began    time.Time `json:"began"`
	Exit     int       `json:"exit"`
	Crashes  int       `json:"crashes"`
	GaveUp   bool      `json:"gave_up,omitempty"`
	Frozen   bool      `json:"frozen,omitempty"`
	Children []int     `json:"children,omitempty"`
	Respawns time.Time `json:"respawns"` // when procd starts it again, zero if it does not
	Stops    time.Time `json:"stops"`    // when the stop in progress ends, zero if there is none
	Again    bool      `json:"again,omitempty"`
}

type state struct {
	Gone     bool              `json:"gone,omitempty"`
	Hangs    bool              `json:"hangs,omitempty"`
	LastPID  int               `json:"last_pid"`
	Services map[string]*entry `json:"services"`
}

// with lets fn work on the state as it is by now, and keeps it. Looking does not need the lock for long: who hangs has none.
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
	s := state{LastPID: 1000, Services: map[string]*entry{}}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &s); err != nil {
			return failed, err
		}
	}
	s.advance(time.Now())
	if s.Hangs {
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
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
	for _, e := range s.Services {
		if !e.Stops.IsZero() && !now.Before(e.Stops) {
			at := e.Stops
			e.Stops, e.PID = time.Time{}, 0
			if e.Again {
				s.spawn(e, at)
			} else {
				e.forget()
			}
		}
		if !e.Respawns.IsZero() && !now.Before(e.Respawns) {
			s.spawn(e, e.Respawns)
		}
	}
}

func (s *state) spawn(e *entry, at time.Time) {
	s.LastPID += 2
	e.Known, e.PID, e.Began, e.Frozen, e.Again, e.Respawns = true, s.LastPID, at, false, false, time.Time{}
	if e.Spec.Child {
		e.Children = append(e.Children, s.LastPID-1)
	}
}

// forget takes a service from procd, as "delete" does.
func (e *entry) forget() {
	*e = entry{Spec: e.Spec, Children: e.Children}
}

// die ends the process: instance_exit.
func (e *entry) die(now time.Time, code int) {
	e.PID, e.Exit = 0, code
	r := e.Spec.Respawn
	if r == nil || e.GaveUp {
		return
	}
	if now.Sub(e.Began) < time.Duration(r.Threshold)*time.Second {
		e.Crashes++
	} else {
		e.Crashes = 0
	}
	if e.Crashes > r.Retry && r.Retry > 0 {
		e.GaveUp = true
		return
	}
	e.Respawns = now.Add(time.Duration(r.Timeout) * time.Second)
}

// stop ends the process on request: instance_stop.
func (e *entry) stop(now time.Time, again bool) {
	if e.PID == 0 {
		e.forget()
		return
	}
	took := e.Spec.StopTakes
	if e.Spec.Deaf || e.Frozen {
		took = time.Duration(e.Spec.Terminate) * time.Second
	}
	e.Stops, e.Again, e.Exit = now.Add(took), again, e.Spec.OnTerm
}

// script is /etc/init.d/NAME. The links of enable come with START=99.
func (s *state) script(folder, name string, args []string) (int, error) {
	e := s.Services[name]
	if e == nil || len(args) != 1 {
		return failed, fmt.Errorf("no service %q, or arguments %q", name, args)
	}
	now := time.Now()
	link := filepath.Join(folder, "rc.d", "S99"+name)
	switch args[0] {
	case "start":
		switch {
		case !e.Stops.IsZero():
			e.Again = true
		case e.PID == 0:
			e.GaveUp = false
			s.spawn(e, now)
		}
		return ok, nil
	case "stop":
		e.stop(now, false)
		s.advance(now)
		return ok, nil
	case "restart":
		e.stop(now, true)
		s.advance(now)
		if e.PID == 0 {
			s.spawn(e, now)
		}
		return ok, nil
	case "enable":
		return ok, os.Symlink("../init.d/"+name, link)
	case "disable":
		return ok, os.Remove(link)
	case "enabled":
		if _, err := os.Lstat(link); err != nil {
			return failed, nil
		}
		return ok, nil
	}
	return failed, fmt.Errorf("command %q is not replayed", args[0])
}

// list prints the services, all or one, as blobmsg_format_json_indent does.
func (s *state) list(w io.Writer, name string) error {
	out := map[string]any{}
	for n, e := range s.Services {
		if e.Known && (name == "" || n == name) {
			out[n] = map[string]any{"instances": map[string]any{"instance1": e.dump(n)}}
		}
	}
	b, err := json.MarshalIndent(out, "", "\t")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

func (e *entry) dump(name string) map[string]any {
	out := map[string]any{
		"running": e.PID != 0, "command": []string{"/usr/sbin/" + name, "-f", "/etc/" + name + ".cfg"}, "term_timeout": e.Spec.Terminate,
	}
	if e.PID != 0 {
		out["pid"] = e.PID
	} else {
		out["exit_code"] = e.Exit
	}
	if e.Spec.Respawn != nil && !e.GaveUp && e.Stops.IsZero() {
		out["respawn"] = e.Spec.Respawn
	}
	return out
}

// signal is the method of that name. Only the end by SIGKILL is replayed.
func (s *state) signal(name, instance string, sig int) (int, error) {
	e := s.Services[name]
	switch {
	case e == nil || !e.Known || instance != "" && instance != "instance1", e.PID == 0:
		return statusNotFound, errors.New("Command failed: Not found") //nolint:staticcheck // the words of ubus
	case sig == int(syscall.SIGKILL):
		e.die(time.Now(), 128+sig)
	case sig != 0:
		return statusInvalid, fmt.Errorf("signal %d is not replayed", sig)
	}
	return ok, nil
}

// control is what happens to the machine behind procd's back.
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
		return failed, errors.New("which service?")
	}
	name := args[1]
	if args[0] == "install" {
		return s.install(folder, self, name, args[2:])
	}
	e := s.Services[name]
	if e == nil {
		return failed, fmt.Errorf("no service %q", name)
	}
	switch args[0] {
	case "remove":
		delete(s.Services, name)
		return ok, errors.Join(os.RemoveAll(filepath.Join(folder, "init.d", name)), os.RemoveAll(filepath.Join(folder, "rc.d", "S99"+name)))
	case "crash":
		if e.PID == 0 {
			return failed, fmt.Errorf("%s does not run", name)
		}
		e.die(time.Now(), 128+int(syscall.SIGKILL))
		return ok, nil
	case "freeze":
		e.Frozen = true
		return ok, nil
	case "children":
		return ok, json.NewEncoder(os.Stdout).Encode(slices.Clip(e.Children))
	}
	return failed, fmt.Errorf("unknown verb %q", args[0])
}

// install puts a service's init script into place, disabled and not known to procd.
func (s *state) install(folder, self, name string, rest []string) (int, error) {
	e := &entry{}
	if len(rest) > 0 {
		if err := json.Unmarshal([]byte(rest[0]), &e.Spec); err != nil {
			return failed, err
		}
	}
	s.Services[name] = e
	target, err := filepath.EvalSymlinks(self)
	if err != nil {
		return failed, err
	}
	for _, dir := range []string{"bin", "init.d", "rc.d"} {
		if err := os.MkdirAll(filepath.Join(folder, dir), 0o755); err != nil {
			return failed, err
		}
	}
	for _, link := range []string{"bin/ubus", "bin/ubus-nobody", "init.d/" + name} {
		if err := os.Symlink(target, filepath.Join(folder, link)); err != nil && !errors.Is(err, os.ErrExist) {
			return failed, err
		}
	}
	return ok, nil
}
