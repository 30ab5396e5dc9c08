package detect

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestManagers(t *testing.T) {
	const (
		systemd = "/run/systemd/system"
		openrc  = "/run/openrc/softlevel"
		docker  = "/var/run/docker.sock"
		incus   = "/var/lib/incus/unix.socket"
		ubus    = "/var/run/ubus/ubus.sock"
		colima  = "~/.colima/default/docker.sock"
		inHome  = "/Users/me/.colima/default/docker.sock"
	)
	kinds := map[string]PathKind{systemd: PathFolder, openrc: PathFile, "/sbin/procd": PathFile}
	machine := func(goos, init string, paths ...string) Machine {
		m := Machine{OS: goos, Init: init, Home: "/Users/me", Paths: map[string]PathKind{}}
		for _, p := range paths {
			m.Paths[p] = PathSocket
			if k, ok := kinds[p]; ok {
				m.Paths[p] = k
			}
		}
		return m
	}
	dockerHere := Found{Docker, []string{"Docker's socket is there (" + docker + ")"}}
	for _, tc := range []struct {
		name string
		m    Machine
		want []Found
	}{
		{"nothing", Machine{}, nil},
		{"Incus host with systemd", machine("linux", "systemd", systemd, incus), []Found{
			{Systemd, []string{"process 1 is systemd", "systemd booted this machine (/run/systemd/system)"}},
			{Incus, []string{"Incus's socket is there (" + incus + ")"}},
		}},
		{"systemd under another name", machine("linux", "init", systemd), []Found{{Systemd, []string{"systemd booted this machine (/run/systemd/system)"}}}},
		{"Alpine, started by busybox", machine("linux", "init", openrc), []Found{{OpenRC, []string{"OpenRC booted this machine (/run/openrc/softlevel)"}}}},
		{"openrc-init", machine("linux", "openrc-init", openrc), []Found{{OpenRC, []string{"process 1 is openrc-init", "OpenRC booted this machine (/run/openrc/softlevel)"}}}},
		{"OpenRC with Docker", machine("linux", "init", openrc, docker), []Found{
			{OpenRC, []string{"OpenRC booted this machine (/run/openrc/softlevel)"}}, dockerHere,
		}},
		{"OpenWrt", machine("linux", "procd", "/sbin/procd", ubus), []Found{{Procd, []string{
			"process 1 is procd", "procd is installed (/sbin/procd)", "procd's bus is there (" + ubus + ")",
		}}}},
		{"files of OpenWrt in a container", machine("linux", "sh", "/sbin/procd"), nil},
		{"a bus without procd", machine("linux", "sh", ubus), nil},
		{"a container beside Docker, as on the NAS", machine("linux", "pgpatrol", docker), []Found{dockerHere}},
		{"MacBook with colima", machine("darwin", "", colima), []Found{
			{Launchd, []string{"this is macOS"}},
			{Docker, []string{"the socket of Docker in colima is there (" + inHome + ")"}},
		}},
		{"two sockets", machine("darwin", "", docker, colima), []Found{
			{Launchd, []string{"this is macOS"}},
			{Docker, []string{"Docker's socket is there (" + docker + ")", "the socket of Docker in colima is there (" + inHome + ")"}},
		}},
		{"a file where the socket should be", Machine{OS: "linux", Paths: map[string]PathKind{docker: PathFile, systemd: PathFile}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Managers(tc.m)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	alpine := Machine{OS: "linux", Init: "init", Paths: map[string]PathKind{"/run/openrc/softlevel": PathFile}}
	if ok, why := Explain(alpine, OpenRC); !ok || why != "OpenRC booted this machine (/run/openrc/softlevel)" {
		t.Errorf("got %v, %q", ok, why)
	}
	ok, why := Explain(alpine, Systemd)
	if want := "nothing speaks for systemd; process 1 is init; there is openrc (OpenRC booted this machine (/run/openrc/softlevel))"; ok || why != want {
		t.Errorf("got %v, %q", ok, why)
	}
	if ok, why := Explain(Machine{}, Docker); ok || why != "nothing speaks for docker" {
		t.Errorf("got %v, %q", ok, why)
	}
}

func TestLook(t *testing.T) {
	root := fstest.MapFS{
		"proc/1/comm":                          {Data: []byte("systemd\n")},
		"run/systemd/system/x":                 {},
		"var/run/docker.sock":                  {Mode: os.ModeSocket},
		"Users/me/.colima/default/docker.sock": {Mode: os.ModeSocket},
		"sbin/procd":                           {Data: []byte("\x7fELF")},
	}
	m := Look(root, "/Users/me")
	want := map[string]PathKind{
		"/run/systemd/system": PathFolder, "/var/run/docker.sock": PathSocket, "~/.colima/default/docker.sock": PathSocket, "/sbin/procd": PathFile,
	}
	if diff := cmp.Diff(want, m.Paths); diff != "" || m.Init != "systemd" {
		t.Errorf("process 1 is %q\n%s", m.Init, diff)
	}
	if m := Look(root, ""); m.Paths["~/.colima/default/docker.sock"] != PathAbsent {
		t.Error("found in nobody's home")
	}
}

// A real socket, and every path that counts once.
func TestLook_Real(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "var", "run")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(at) // the path of a socket may not be long
	l, err := net.Listen("unix", "docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := Managers(Look(os.DirFS(dir), "")); !slices.ContainsFunc(got, func(f Found) bool {
		return f.Manager == Docker && slices.Equal(f.Evidence, []string{"Docker's socket is there (/var/run/docker.sock)"})
	}) {
		t.Errorf("got %+v", got)
	}
	seen := map[string]bool{}
	for _, k := range marks {
		if seen[k.path] || k.says == "" || !strings.HasPrefix(k.path, "/") && !strings.HasPrefix(k.path, "~/") {
			t.Errorf("mark %+v", k)
		}
		seen[k.path] = true
	}
	_ = Managers(Here())
}
