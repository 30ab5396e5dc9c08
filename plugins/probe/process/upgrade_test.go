package process

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

const python = "/usr/bin/python3.13"

func TestMachine_Upgrades(t *testing.T) {
	waits := []string{"/usr/bin/python3", "/usr/share/unattended-upgrades/unattended-upgrade-shutdown", "--wait-for-signal"}
	works := []string{"/usr/bin/python3", "/usr/bin/unattended-upgrade", "-v"}
	for name, c := range map[string]struct {
		procs []proc
		want  []string
	}{
		"nothing":                      {procs: []proc{{comm: "bash"}, {comm: "apt.systemd.dai"}, {comm: "dpkg-query"}, {comm: "packagekitd"}}},
		"apt-get and its dpkgs":        {procs: []proc{{comm: "dpkg"}, {comm: "apt-get", exe: "/usr/bin/apt-get"}, {comm: "dpkg"}}, want: []string{"apt-get", "dpkg"}},
		"a script":                     {procs: []proc{{comm: "dnf", exe: python, args: []string{"/usr/bin/python3", "/usr/bin/dnf", "upgrade"}}}, want: []string{"dnf"}},
		"an unattended upgrade":        {procs: []proc{{comm: unattended, exe: python, args: works}}, want: []string{unattended}},
		"the daemon that waits":        {procs: []proc{{comm: unattended, exe: python, args: waits}}},
		"the daemon and the upgrade":   {procs: []proc{{comm: unattended, exe: python, args: waits}, {comm: unattended, args: works}}, want: []string{unattended}},
		"the name in a later argument": {procs: []proc{{comm: unattended, args: append(waits, "unattended-upgrade")}}},
		"no argument list":             {procs: []proc{{comm: unattended}}},
		"in a container":               {procs: []proc{{comm: "apk", nspid: "40\t7"}}},
		"somebody without rights":      {procs: []proc{{comm: "rpm", uid: "1000"}}},
		"ended":                        {procs: []proc{{comm: "rpm", state: "Z"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.write("proc/uptime", "1 1")
			f.add(proc{pid: 1, comm: "systemd"})
			for i, p := range c.procs {
				p.pid, p.parent = 40+i, 1
				f.add(p)
			}
			m, err := NewMachine(MachineConfig{Unit: "patroni"}, MachineDeps{Table: f.table()})
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Probe(t.Context())
			if diff := cmp.Diff(c.want, got.Upgrades); err != nil || diff != "" {
				t.Error(err, diff)
			}
			probetest.Run(t, m)
		})
	}
}

func TestMayBeRoot(t *testing.T) {
	for in, want := range map[string]bool{
		"Uid:\t0\t0\t0\t0\n":           true,
		"Uid:\t1000\t0\t0\t0\n":        true, // setuid
		"Uid:\t0\t1000\t0\t0\n":        false,
		"Name:\tx\nUid:\t5\t5\t5\t5\n": false,
		"Uid:\n":                       true,
		"":                             true,
	} {
		if got := mayBeRoot([]byte(in)); got != want {
			t.Errorf("%q: %t", in, got)
		}
	}
}
