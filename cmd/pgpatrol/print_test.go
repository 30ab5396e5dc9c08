package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

var update = flag.Bool("update", false, "rewrite golden files")

const now = node.Instant(3 * time.Hour)

func healthy() api.Status {
	at := now.Add(-1200 * time.Millisecond)
	cluster := node.Cluster{
		Scope: "demo", Revision: 812, Config: node.DefaultDynamicConfig(), Leader: &node.LeaderKey{Name: "postgres-1"},
		Members: []node.Member{
			{Name: "postgres-1", Role: "primary", State: "running", Timeline: 3, HasLSN: true, LSN: 0x3000148},
			{Name: "postgres-2", Role: "replica", State: "streaming", Timeline: 3, HasLSN: true, LSN: 0x3000148},
			{Name: "postgres-3", State: "stopped"},
		},
	}
	cluster.Config.Present = true
	plan := &node.Plan{
		At:      at,
		Summary: "Nothing is to be done: patroni runs, answers, and holds the leader key and renews its lease.",
		Rests: []node.Evidence{
			{Subject: "leader key", Value: "held by postgres-1", Source: "etcd linearizable", At: at, Known: true},
			{Subject: "patroni.service", Value: "running, main process 812", Source: "systemd", At: at.Add(-20 * time.Second), Known: true},
			{Subject: "alarms of etcd", Value: "unknown: not observed yet"},
		},
	}
	return api.Status{
		Version: "1.2.3", Node: "postgres-1", Scope: "demo", Now: now, StartedAgo: 2*time.Hour + 5*time.Minute, Policy: node.DefaultPolicy(), Plan: plan,
		Snapshot: &node.Snapshot{
			Now: at,
			DCS: node.DCS{
				Cluster:     node.Seen(cluster, "etcd linearizable", at),
				LeaderLease: node.Seen(node.Lease{Exists: true, Granted: 30 * time.Second, Remaining: 26 * time.Second}, "etcd", at),
			},
			Patroni: []node.PatroniFacts{{
				Service:  "patroni",
				Unit:     node.Seen(service.Status{Unit: "patroni.service", State: service.StateRunning, MainPID: 812}, "systemd", at),
				Liveness: node.Seen(probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 200}, "http", at),
				Postgres: node.Seen(probe.Postgres{Running: true, ControlState: probe.ControlInProduction}, "files", at),
			}},
		},
	}
}

func sick() api.Status {
	s := healthy()
	bytes := uint64(4096)
	hung := node.Action{
		ID: "a", Verb: node.SoftKill, Service: "patroni", Unit: "patroni.service", Class: node.ClassRevive, Finding: node.PatroniHung,
		Reason: "no answer for 14 s and 3 renewals of the lease missed", Settle: 20 * time.Second,
		Expect: node.Expectation{NewInvocation: true, LeaseRenewed: true, SamePostmaster: true},
	}
	s.Plan = &node.Plan{
		At: now.Add(-time.Second), Summary: "Nothing is done: soft-kill of patroni would heal PATRONI_HUNG, and budget refuses it (3 of 3 used).",
		Findings: []node.Finding{
			{Code: node.PatroniHung, Severity: node.Page, Subject: "patroni", Text: "Patroni lives and does nothing.", Advice: "Raise policy.revive.", Since: now.Add(-42 * time.Second)},
			{Code: node.ZombiePrimary, Severity: node.Warn, Subject: "patroni", Text: "Two are writable.", Since: now.Add(-25 * time.Hour), DivergentBytes: &bytes},
			{Code: node.DCSKeyInvalid, Severity: node.Info, Subject: "demo", Text: "key \x1b]0;owned\a\u009b31m is odd", Since: now},
		},
		Allowed: []node.Action{hung},
		Refused: []node.Refusal{{Action: hung, Verdicts: []node.Verdict{
			{Guard: node.GuardBudget, Text: "3 of 3 in the last hour, the next is free in 12 min"},
			{Guard: node.GuardFreshness, Text: "the leader key was seen 9 s ago, 5 s are allowed"},
		}}},
	}
	s.Snapshot.DCS.Cluster = node.Unseen[node.Cluster]("etcd", "no answer from 3 endpoints", now)
	s.Snapshot.Patroni = []node.PatroniFacts{{Service: "patroni", Liveness: node.Seen(probe.Liveness{Outcome: probe.OutcomeTimeout}, "http", now)}}
	s.Snapshot.Self.JournalBroken = "no space left on device"
	s.ConfigProblem = "line 3\nline 4"
	return s
}

// served is a machine with a service of every kind, under managers that it has and has not, and that refuse something.
func served() api.Status {
	s := healthy()
	at := s.Snapshot.Now
	member := func(id string, took time.Duration) probe.EtcdMember {
		return probe.EtcdMember{
			Outcome: probe.OutcomeAnswered, Took: took, Health: probe.OutcomeAnswered, Healthy: true, ClusterID: "c1", MemberID: id, LeaderID: "a3", Version: "3.5.16",
		}
	}
	unit := func(name string) node.Fact[service.Status] {
		return node.Seen(service.Status{Unit: name, State: service.StateRunning, MainPID: 4711}, "manager", at)
	}
	hop := node.Seen(probe.Hop{Outcome: probe.OutcomeAnswered}, "etcd", at)
	s.Managers = []api.Manager{
		{Name: "docker", Found: true, Evidence: "Docker's socket is there (/var/run/docker.sock)"},
		{Name: "launchd", Evidence: "nothing speaks for launchd; process 1 is systemd; there is systemd (process 1 is systemd)"},
	}
	s.Snapshot.Patroni[0].Limits = node.Seen("start, kill of \"patroni.service\": permission denied by the service manager", "systemd", at)
	s.Snapshot.Services = []node.ServiceFacts{
		{
			Service: "etcd", Unit: unit("etcd-nas"), Limits: node.Seen("", "docker", at), Member: node.Seen(member("a1", 400*time.Microsecond), "etcd", at),
			Others: []node.Peer{{URL: "http://two:2379", Member: node.Seen(member("a2", 3*time.Millisecond), "etcd", at)}, {URL: "http://three:2379", Member: node.Seen(member("a3", 71*time.Millisecond), "etcd", at)}},
		},
		{
			Service: "socat", Unit: unit("gui/501/com.example.socat"), Limits: node.Seen("kickstart: permission denied by the service manager", "launchd", at),
			Polled: 5 * time.Second, Through: hop, Past: hop,
		},
		{Service: "pooler", Unit: unit("pooler"), Limits: node.Unseen[string]("openrc", "no answer", at), Check: node.Seen(probe.Check{OK: true}, "check", at)},
	}
	return s
}

func journalRecords() []api.Record {
	wall := time.Date(2026, 4, 8, 12, 0, 0, 0, time.Local)
	f := sick().Plan.Findings
	a := sick().Plan.Allowed[0]
	return []api.Record{
		{Seq: 1, Wall: wall, Kind: "start", Text: "pgpatrol 1.2.3 on postgres-1"},
		{Seq: 2, Wall: wall, Kind: "finding", Finding: &f[1]},
		{Seq: 3, Wall: wall, Kind: "finding", Finding: &f[2]},
		{Seq: 4, Wall: wall, Kind: "plan", Plan: sick().Plan},
		{Seq: 5, Wall: wall, Kind: "intent", Action: &a},
		{Seq: 6, Wall: wall, Kind: "result", Result: &api.Outcome{Intent: 5, Result: node.ResultExecuted, Error: "slow", Evidence: map[string]string{"gap": "1.2s"}}},
		{Seq: 7, Wall: wall, Kind: "cleared", Finding: &f[0]},
		{Seq: 8, Wall: wall, Kind: "from a newer agent"},
	}
}

// outputs is everything that the program prints as text, by name of its golden file.
func outputs() map[string]func(p *printer) {
	plan := func(s api.Status) func(*printer) {
		return func(p *printer) { printPlan(p, api.PlanReply{Now: s.Now, Plan: *s.Plan}) }
	}
	return map[string]func(p *printer){
		"status-healthy": func(p *printer) { printStatus(p, healthy()) },
		"status-sick":    func(p *printer) { printStatus(p, sick()) },
		"status-starting": func(p *printer) {
			printStatus(p, api.Status{Version: "1", Node: "n", Scope: "s", Snapshot: &node.Snapshot{Patroni: make([]node.PatroniFacts, 1)}})
		},
		"status-held":    func(p *printer) { printStatus(p, held()) },
		"status-served":  func(p *printer) { printStatus(p, served()) },
		"history-orders": func(p *printer) { printHistory(p, orderRecords()) },
		"plan-healthy":   plan(healthy()),
		"plan-sick":      plan(sick()),
		"history":        func(p *printer) { printHistory(p, journalRecords()) },
	}
}

func TestText_Golden(t *testing.T) {
	for name, fn := range outputs() {
		for suffix, s := range map[string]screen{"": {}, "-narrow": {terminal: true, width: 60}} {
			t.Run(name+suffix, func(t *testing.T) {
				var out bytes.Buffer
				fn(newPrinter(&out, s))
				golden := filepath.Join("testdata", name+suffix+".txt")
				if *update {
					if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), out.String()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				for line := range strings.Lines(out.String()) {
					line = strings.TrimSuffix(line, "\n")
					if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x9b || r == 0x7f }) {
						t.Errorf("control character in %q", line)
					}
					if n := utf8.RuneCountInString(line); s.width > 0 && n > s.width && strings.Contains(strings.TrimSpace(line), " ") {
						t.Errorf("%d columns: %q", n, line)
					}
				}
			})
		}
	}
}

func TestPrinter_ColorsOnlyWhereWanted(t *testing.T) {
	for _, color := range []bool{false, true} {
		var out bytes.Buffer
		printStatus(newPrinter(&out, screen{terminal: true, color: color}), sick())
		if got := strings.Contains(out.String(), "\x1b[1;31mpage\x1b[0m"); got != color {
			t.Errorf("color %v: %q", color, out.String())
		}
		if strings.Contains(out.String(), "\x1b]0;") {
			t.Error("an escape sequence of etcd's got through")
		}
	}
}

func TestStatusCode(t *testing.T) {
	of := func(ss ...node.Severity) api.Status {
		s := api.Status{Plan: &node.Plan{}}
		for _, one := range ss {
			s.Plan.Findings = append(s.Plan.Findings, node.Finding{Severity: one})
		}
		return s
	}
	cases := map[string]struct {
		s    api.Status
		want int
	}{
		"none":          {of(), exitOK},
		"info":          {of(node.Info), exitOK},
		"warn":          {of(node.Info, node.Warn), exitWarn},
		"page, warn":    {of(node.Page, node.Warn), exitPage},
		"warn, page":    {of(node.Warn, node.Page, node.Info), exitPage},
		"of the future": {of("catastrophe"), exitPage},
	}
	for name, tc := range cases {
		got := exitOK
		if err := statusCode(tc.s); err != nil {
			ce, _ := errors.AsType[*codeError](err)
			got = ce.code
		}
		if got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 1240 * time.Millisecond: "1.2 s", 42 * time.Second: "42 s", 200 * time.Second: "3 min 20 s",
		2*time.Hour + 5*time.Minute: "2 h 5 min", 76 * time.Hour: "3 d 4 h", -time.Second: "-1.0 s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"agent", "check-config", "history", "plan", "status", "version"}
	for word, want := range map[string]string{
		"statu": "status", "stauts": "status", "hist": "history", "version-": "version", "plam": "plan",
		"check_config": "check-config", "promote": "", "x": "", "": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
