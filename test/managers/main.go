// Command managers runs the one conformance suite of plugins/service against every manager, the real one where it can run
// here, and prints one table: what each passes, and what it lacks and why.
//
// A manager is one line of the list below. Its test runs [servicetest.Conformance] and nothing is taken from what a
// manager says of itself: the table is made of the results of Go's tests. A manager that cannot run here is named with the
// reason. The exit code is 1 if a case failed, or if a manager that could run did not run every case.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
	"github.com/pgpatrol/pgpatrol/test/lab/incus"
)

// manager is one column of the table.
type manager struct {
	name  string
	how   string   // what the suite meets: the real thing, or what stands for it
	pkg   string   // with the test, below plugins
	test  string   // that runs the suite
	place place    // where the test runs
	env   []string // that the test wants
}

// managers are all managers, in the order of the table.
var managers = []manager{
	{"fake", "in memory, what the other tests use", "service/servicetest", "TestFake_Conformance", here{}, nil},
	{"systemd", "real, in a container", "service/systemd", "TestE2E_Bus", systemd, []string{"PGPATROL_E2E_SYSTEMD=1"}},
	{"openrc", "real, in a container", "service/openrc", "TestE2E_Conformance", openrc, []string{"PGPATROL_E2E_OPENRC=1"}},
	{"launchd", "a replay of it, which keeps state", "service/launchd", "TestReplay_Conformance", here{}, nil},
	{"procd", "a replay of it, which keeps state", "service/procd", "TestReplay_Conformance", here{}, nil},
	{"docker", "real, behind a proxy that refuses undocumented calls", "service/docker", "TestE2E_Conformance", here{engineHere}, []string{"PGPATROL_E2E_DOCKER=" + engineSocket}},
	{"incus", "real, in a container, behind a proxy that refuses undocumented calls", "service/incus", "TestE2E_Conformance", incusHost, []string{"PGPATROL_E2E_INCUS=" + incus.Socket}},
	{"inside", "real systemd inside a real Incus instance, through Incus", "builtin", "TestE2E_IncusSystemd", incusNode, []string{"PGPATROL_E2E_INCUS=" + incus.Socket, "PGPATROL_E2E_INCUS_IMAGE=" + incusAlias}},
}

var (
	systemd   = container{node, "/lib/systemd/systemd", []string{"systemctl", "is-active", "multi-user.target"}, false, nil}
	openrc    = container{openrcImage, "/sbin/openrc-init", []string{"grep", "-q", "default", "/run/openrc/softlevel"}, false, nil}
	incusHost = container{incusImage, "/usr/local/sbin/incus-host", incus.Ready(), true, nil}
	incusNode = container{incusImage, "/usr/local/sbin/incus-host", incus.Ready(), true, giveNode}
)

func main() {
	only := flag.String("only", "", "run the suite against this manager alone")
	verbose := flag.Bool("v", false, "show what the tests say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, *only, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 2
	}
	os.Exit(code)
}

func run(ctx context.Context, only string, verbose bool) (int, error) {
	dir, err := os.MkdirTemp("", "pgpatrol-managers-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var columns []column
	for _, m := range managers {
		if only != "" && m.name != only {
			continue
		}
		c := column{manager: m}
		fmt.Fprintf(os.Stderr, "%s: %s\n", m.name, m.how)
		if c.absent = m.place.absent(ctx); c.absent == "" {
			if c.results, err = m.run(ctx, dir, verbose); err != nil {
				return 0, fmt.Errorf("%s: %w", m.name, err)
			}
		}
		columns = append(columns, c)
	}
	if len(columns) == 0 {
		return 0, fmt.Errorf("no manager %q", only)
	}
	text, ok := table(servicetest.Cases(), columns)
	fmt.Print(text)
	if !ok {
		return 1, nil
	}
	return 0, nil
}

// run builds the manager's test, runs it where it belongs and reads its results.
func (m manager) run(ctx context.Context, dir string, verbose bool) (results, error) {
	program, err := build(ctx, dir, m)
	if err != nil {
		return results{}, err
	}
	args := []string{"-test.run", "^" + m.test + "$", "-test.v=test2json", "-test.timeout=15m"}
	out, err := m.place.run(ctx, program, m.env, args)
	if verbose {
		_, _ = os.Stderr.Write(out)
	}
	if err != nil {
		return results{}, err
	}
	events, err := test2json(ctx, out)
	if err != nil {
		return results{}, err
	}
	r, err := read(m.test, events)
	if err != nil {
		return results{}, err
	}
	if len(r.cases) == 0 {
		return results{}, fmt.Errorf("%s ran no case:\n%s", m.test, out)
	}
	for name := range r.cases {
		if !slices.Contains(servicetest.Cases(), name) {
			return results{}, fmt.Errorf("%s ran %q, which is no case of the suite", m.test, name)
		}
	}
	return r, nil
}
