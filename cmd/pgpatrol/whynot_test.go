package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/agent/whynot"
)

// answers is what the commands of this file print, by name of the golden file.
func answers(t *testing.T) map[string]func(p *printer) {
	t.Helper()
	action := func(q node.Question, v node.Verb) func(*printer) {
		a, ok := whynot.Action(q, v, nodetest.Service)
		if !ok {
			t.Fatal("no such service")
		}
		return func(p *printer) { printWhyNot(p, a) }
	}
	race := func(changes ...nodetest.Change) func(*printer) {
		s := nodetest.Snap(time.Hour, changes...)
		return func(p *printer) { printRace(p, whynot.Failover(s.Now, s.DCS)) }
	}
	c, err := chronicleOf(&env{}, written(t, "1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	told := func(id string) func(*printer) {
		s, err := storyOf(t.Context(), c, id)
		if err != nil {
			t.Fatal(err)
		}
		r := replayStory(s)
		s.Replay = &r
		return func(p *printer) { printStory(p, s) }
	}
	well := node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: nodetest.Memory(time.Hour), Snapshot: nodetest.Snap(time.Hour)}
	return map[string]func(p *printer){
		"why-done":       told("6"),
		"why-refused":    told("7"),
		"why-start":      told("1"),
		"whynot-well":    action(well, node.SoftKill),
		"whynot-start":   action(well, node.StartFailed),
		"whynot-refused": action(hungQuestion(node.ModeObserve), node.SoftKill),
		"race-leader":    race(),
		"race-nobody": race(nodetest.WithCluster(func(c *node.Cluster) {
			c.Leader, c.Members, c.Optime, c.Config.FailsafeMode = nil, c.Members[1:], 1<<30, true
			c.Members[1].NoFailover, c.Members[1].State, c.Members[1].Name = true, "stopped\x1b[31m", "pg3"
		}), func(s *node.Snapshot) { s.DCS.Alarms.Value = []string{"NOSPACE"} }),
		"race-blind": race(func(s *node.Snapshot) { s.DCS.Cluster = node.Unseen[node.Cluster]("etcd", "no quorum", s.Now) }),
		"policy":     func(p *printer) { printPolicies(p, policiesOf(mixedSpec(), true)) },
	}
}

// mixedSpec has modes of every origin.
func mixedSpec() node.Spec {
	s := nodetest.Spec(node.ModeAuto)
	s.Policy = node.DefaultPolicy()
	s.Patroni[0].Policy.Disrupt = node.ModeObserve
	s.Patroni[0].Policy.Findings = map[node.Code]node.Mode{node.PatroniHung: node.ModeAsk, node.PatroniFailed: node.ModeAuto}
	return s
}

func TestAnswers_Golden(t *testing.T) {
	for name, fn := range answers(t) {
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
				if strings.Contains(out.String(), "\x1b") {
					t.Error("an escape sequence got through")
				}
			})
		}
	}
}

func TestWhyNot_WrongUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"ACTION is missing: heal, soft-kill, start-failed, restart, failover": {},
		"did you mean soft-kill?":                  {"softkill", "patroni"},
		"did you mean failover?":                   {"failver"},
		"there are heal, soft-kill":                {"promote", "patroni"},
		"TARGET is missing":                        {"heal"},
		`unexpected argument "pg2"`:                {"failover", "pg2"},
		`unexpected argument "pg2": one target at`: {"heal", "patroni", "pg2"},
	} {
		if code, _, errs := pgpatrol(append([]string{"why-not"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit code %d, %q does not hold %q", args, code, errs, want)
		}
	}
}

func TestServiceOf(t *testing.T) {
	spec := nodetest.Spec(node.ModeAuto)
	for target, want := range map[string]string{
		"patroni": "", "patroni@host1": "", "patroni@host2": "knows only its own node host1", "patrony": "did you mean patroni?",
		"": "unknown service", "@host1": "unknown service", "patroni@": "only its own node",
	} {
		name, err := serviceOf(spec, target)
		switch {
		case want == "" && (err != nil || name != "patroni"):
			t.Errorf("%q: %q, %v", target, name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", target, err, want)
		}
	}
	if _, err := serviceOf(node.Spec{}, "patroni"); err == nil || !strings.Contains(err.Error(), "no service") {
		t.Errorf("an agent without services: %v", err)
	}
}

func TestPolicy_FromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgpatrol.yaml")
	if err := os.WriteFile(path, []byte("node: host1\npolicy:\n  revive: sometimes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := pgpatrol("policy", "--config", path); code != exitFailed || !strings.Contains(errs, "sometimes") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := pgpatrol("policy", "--config", path+".no"); code != exitFailed || errs == "" {
		t.Errorf("%d %s", code, errs)
	}
	reference := filepath.Join("..", "..", "packaging", "pgpatrol.yaml")
	code, out, errs := pgpatrol("policy", "--config", reference, "--no-dcs", "--json")
	if code != 0 || !strings.Contains(out, `"no_dcs"`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if code, out, _ := pgpatrol("policy", "--config", reference); code != 0 || strings.Contains(out, "While etcd") || !strings.Contains(out, "* the default") {
		t.Errorf("%d %s", code, out)
	}
}
