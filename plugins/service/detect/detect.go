// Package detect finds out which service managers run a machine.
//
// It owns the marks by which a manager is known, and the words for why one was found ([Found.Evidence]). [Managers] is a pure
// function of what was looked at ([Machine]), so that a machine can be put into a test; [Look] looks. A machine can have
// several managers: OpenRC with Docker beside it, systemd with Incus. It deliberately connects to nothing and runs nothing:
// that a socket is there says that a manager is meant to be there, whether it answers is for the manager's own plugin.
package detect

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Manager is the name of a service manager, as it stands in the configuration.
type Manager string

// The managers.
const (
	Systemd Manager = "systemd"
	OpenRC  Manager = "openrc"
	Launchd Manager = "launchd"
	Procd   Manager = "procd"
	Docker  Manager = "docker"
	Incus   Manager = "incus"
)

// Machine is what was looked at.
type Machine struct {
	OS    string              // of the build, as runtime.GOOS
	Init  string              // name of process 1, empty if it cannot be seen
	Home  string              // the user's home, which a leading ~ stands for; empty for none
	Paths map[string]PathKind // what is there, of all that Marks names
}

// PathKind is what stands at a path.
type PathKind uint8

// Kinds of paths. The zero value means that there is nothing.
const (
	PathAbsent PathKind = iota
	PathFile
	PathFolder
	PathSocket
)

// Found is a manager that the machine has.
type Found struct {
	Manager  Manager
	Evidence []string // why, a sentence each
}

// mark is a path that speaks for a manager.
type mark struct {
	manager Manager
	path    string // a leading ~ is the user's home
	kind    PathKind
	says    string
}

// marks are the paths that speak for a manager. Those of the managers that are process 1 exist only when that manager booted
// the machine: systemd's is what sd_booted(3) looks for, OpenRC's what its own scripts ask for before they do anything.
var marks = []mark{
	{Systemd, "/run/systemd/system", PathFolder, "systemd booted this machine"},
	{OpenRC, "/run/openrc/softlevel", PathFile, "OpenRC booted this machine"},
	{Procd, "/sbin/procd", PathFile, "procd is installed"},
	{Procd, "/var/run/ubus/ubus.sock", PathSocket, "procd's bus is there"},
	{Procd, "/var/run/ubus.sock", PathSocket, "procd's bus is there (before OpenWrt 21)"},
	{Docker, "/var/run/docker.sock", PathSocket, "Docker's socket is there"},
	{Docker, "~/.colima/default/docker.sock", PathSocket, "the socket of Docker in colima is there"},
	{Docker, "~/.config/colima/default/docker.sock", PathSocket, "the socket of Docker in colima is there"},
	{Docker, "~/.docker/run/docker.sock", PathSocket, "the socket of Docker Desktop is there"},
	{Incus, "/var/lib/incus/unix.socket", PathSocket, "Incus's socket is there"},
	{Incus, "/run/incus/unix.socket", PathSocket, "Incus's socket is there"},
}

// inits are the names of process 1. OpenRC is mostly started by another one, which says nothing of what runs the services.
var inits = map[string]Manager{"systemd": Systemd, "openrc-init": OpenRC, "procd": Procd, "launchd": Launchd}

// Managers returns the managers that a machine has, in a fixed order, the one that runs the machine itself first. None of
// those that could run it being there is not an error: in a container nothing may.
func Managers(m Machine) []Found {
	found := map[Manager]*Found{}
	add := func(manager Manager, evidence string) {
		f := found[manager]
		if f == nil {
			f = &Found{Manager: manager}
			found[manager] = f
		}
		f.Evidence = append(f.Evidence, evidence)
	}
	if manager, ok := inits[m.Init]; ok {
		add(manager, fmt.Sprintf("process 1 is %s", m.Init))
	}
	if m.OS == "darwin" {
		add(Launchd, "this is macOS")
	}
	for _, k := range marks {
		if m.Paths[k.path] == k.kind {
			add(k.manager, fmt.Sprintf("%s (%s)", k.says, expand(k.path, m.Home)))
		}
	}
	// Installed is not the same as running the machine: a build of OpenWrt in a container has the file.
	if f := found[Procd]; f != nil && m.Init != "procd" && len(f.Evidence) == 1 {
		delete(found, Procd)
	}
	var out []Found
	for _, manager := range []Manager{Systemd, OpenRC, Procd, Launchd, Docker, Incus} {
		if f := found[manager]; f != nil {
			out = append(out, *f)
		}
	}
	return out
}

// Explain says whether a machine has a manager, and from what that follows. It is for the log, and for whoever asks why a
// configured manager does not work.
func Explain(m Machine, manager Manager) (ok bool, why string) {
	all := Managers(m)
	if i := slices.IndexFunc(all, func(f Found) bool { return f.Manager == manager }); i >= 0 {
		return true, strings.Join(all[i].Evidence, "; ")
	}
	var others []string
	for _, f := range all {
		others = append(others, fmt.Sprintf("%s (%s)", f.Manager, strings.Join(f.Evidence, "; ")))
	}
	why = "nothing speaks for " + string(manager)
	if m.Init != "" {
		why += "; process 1 is " + m.Init
	}
	if len(others) > 0 {
		why += "; there is " + strings.Join(others, ", ")
	}
	return false, why
}

// Look looks at a machine below a root: its process table, and the paths that count. home is the user's home, empty for none.
func Look(root fs.FS, home string) Machine {
	m := Machine{OS: runtime.GOOS, Home: home, Paths: map[string]PathKind{}}
	if b, err := fs.ReadFile(root, "proc/1/comm"); err == nil {
		m.Init = strings.TrimSpace(string(b))
	}
	for _, k := range marks {
		at := expand(k.path, home)
		if kind := kindOf(root, strings.TrimPrefix(at, "/")); kind != PathAbsent {
			m.Paths[k.path] = kind
		}
	}
	return m
}

// expand puts the home into a path that begins with ~. Without a home such a path stays one that nothing stands at.
func expand(at, home string) string {
	if rest, ok := strings.CutPrefix(at, "~"); ok && home != "" {
		return path.Join(filepath.ToSlash(home), rest)
	}
	return at
}

func kindOf(root fs.FS, name string) PathKind {
	info, err := fs.Stat(root, name)
	switch {
	case err != nil:
		return PathAbsent
	case info.IsDir():
		return PathFolder
	case info.Mode()&os.ModeSocket != 0:
		return PathSocket
	}
	return PathFile
}

// Here looks at this machine.
func Here() Machine {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	return Look(os.DirFS("/"), home)
}
