// Package test checks the repository as a whole: which package may import which.
//
// The layers are those of STYLE.md §2. A violation names the rule and its reason, so that whoever reads it knows whether
// to move the code or to declare an interface. It deliberately reads the source instead of asking the build, so that files
// for every operating system count.
package test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/pgpatrol/pgpatrol/"

// layer is how high a package stands; it may import what is lower.
type layer int

// The layers, lowest first.
const (
	contracts layer = iota // what plugins promise
	nouns                  // the words of the agent
	core                   // pure decisions
	judgement              // puts the decisions together, as pure
	effects                // everything that touches the world, each plugin included
	cycling                // the order of looking, deciding and acting
	wiring                 // puts the parts together
	commands               // the binary
	anything               // test/: the lab, the simulation
)

// layers gives the layer of every package outside plugins/, test/ and cmd/, where the folder says it. A package that is
// not listed is an error: whoever adds one decides where it belongs.
var layers = map[string]layer{
	"agent/planted":   contracts,
	"agent/node":      nouns,
	"agent/engine":    core,
	"agent/guard":     core,
	"agent/runbook":   core,
	"agent/route":     core,
	"agent/router":    cycling,
	"agent/decision":  judgement,
	"agent/whynot":    judgement,
	"agent/loop":      cycling,
	"agent/observer":  effects,
	"agent/orders":    effects,
	"agent/executor":  effects,
	"agent/dcs":       effects,
	"agent/journal":   effects,
	"agent/alert":     effects,
	"agent/api":       effects,
	"agent/config":    effects,
	"coordinator":     effects,
	"agent":           wiring,
	"plugins/builtin": wiring,
	"plugins/service": contracts,
	"plugins/probe":   contracts,
	"plugins/proxy":   contracts,
	"plugins/notify":  contracts,
}

// layerOf returns the layer of a package, given its path below the module.
func layerOf(pkg string) (layer, error) {
	if isTestSupport(pkg) {
		pkg = path.Dir(pkg)
	}
	if l, ok := layers[pkg]; ok {
		return l, nil
	}
	switch top, _, _ := strings.Cut(pkg, "/"); top {
	case "plugins":
		return effects, nil
	case "cmd":
		return commands, nil
	case "test":
		return anything, nil
	}
	return 0, fmt.Errorf("%s has no layer: add it to the table of test/layers_test.go", pkg)
}

// isTestSupport reports whether a package only helps tests: xtest below x, such as plugins/service/servicetest.
func isTestSupport(pkg string) bool {
	return path.Base(pkg) == path.Base(path.Dir(pkg))+"test"
}

// isPlugin reports whether a package implements a contract.
func isPlugin(pkg string) bool {
	l, err := layerOf(pkg)
	return err == nil && l == effects && strings.HasPrefix(pkg, "plugins/")
}

// edge is one import between two packages of this module.
type edge struct {
	from, to string // paths below the module
	test     bool   // only in a _test.go file
}

// rule forbids some imports. Its reason completes the sentence "A must not import B: ...".
type rule struct {
	reason  string
	forbids func(e edge, from, to layer) bool
}

// Imports of test/ and within one family (a package, its tests and its test support) never get as far as the rules.
var rules = []rule{
	{
		"nothing depends on test/, which may depend on everything",
		func(_ edge, _, to layer) bool { return to == anything },
	},
	{
		"test support belongs into tests",
		func(e edge, _, _ layer) bool { return isTestSupport(e.to) && !e.test && !isTestSupport(e.from) },
	},
	{
		"only agent and cmd read the configuration, so that nothing else depends on the file's shape",
		func(e edge, from, _ layer) bool {
			return e.to == "agent/config" && e.from != "agent" && from != commands
		},
	},
	{
		"a plugin knows its contract and nothing of the agent",
		func(e edge, _, to layer) bool { return isPlugin(e.from) && to != contracts },
	},
	{
		"plugins are listed in plugins/builtin; everybody else meets them through their contract",
		func(e edge, _, _ layer) bool { return isPlugin(e.to) && e.from != "plugins/builtin" },
	},
	{
		"siblings meet through interfaces that they declare themselves",
		func(_ edge, from, to layer) bool { return from == to },
	},
	{
		"dependencies point downwards: cmd, wiring, effects, pure core, nouns, contracts",
		func(_ edge, from, to layer) bool { return from < to },
	},
}

// violations returns what is wrong with a graph of imports, one sentence each, by the first rule that forbids it.
func violations(edges []edge) []string {
	var out []string
	for _, e := range edges {
		if family(e.from) == family(e.to) && (e.test || isTestSupport(e.from)) {
			continue
		}
		from, err := layerOf(e.from)
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		to, err := layerOf(e.to)
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		if from == anything {
			continue
		}
		if i := slices.IndexFunc(rules, func(r rule) bool { return r.forbids(e, from, to) }); i >= 0 {
			out = append(out, fmt.Sprintf("%s must not import %s: %s", e.from, e.to, rules[i].reason))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// family is the package that a package's test support supports, or itself.
func family(pkg string) string {
	if isTestSupport(pkg) {
		return path.Dir(pkg)
	}
	return pkg
}

func TestLayers(t *testing.T) {
	edges := readEdges(t, "..")
	if len(edges) == 0 {
		t.Fatal("found no imports: the test looks in the wrong place")
	}
	for _, v := range violations(edges) {
		t.Error(v)
	}
}

// TestLayers_MadeUp proves that every rule bites, on imports that do not exist.
func TestLayers_MadeUp(t *testing.T) {
	for _, tc := range []struct {
		name string
		edge edge
		want string // the reason's beginning, or "" if the import is fine
	}{
		{"core uses nouns", edge{from: "agent/engine", to: "agent/node"}, ""},
		{"nouns use contracts", edge{from: "agent/node", to: "plugins/service"}, ""},
		{"wiring uses effects", edge{from: "agent", to: "agent/dcs"}, ""},
		{"wiring reads the configuration", edge{from: "agent", to: "agent/config"}, ""},
		{"command reads the configuration", edge{from: "cmd/pgpatrol", to: "agent/config"}, ""},
		{"command uses builtin", edge{from: "cmd/pgpatrol", to: "plugins/builtin"}, ""},
		{"builtin uses a plugin", edge{from: "plugins/builtin", to: "plugins/service/systemd"}, ""},
		{"plugin uses its contract", edge{from: "plugins/service/systemd", to: "plugins/service"}, ""},
		{"plugin's test uses the conformance suite", edge{from: "plugins/service/systemd", to: "plugins/service/servicetest", test: true}, ""},
		{"test support uses what it supports", edge{from: "plugins/service/servicetest", to: "plugins/service"}, ""},
		{"test uses its own test support", edge{from: "agent/dcs", to: "agent/dcs/dcstest", test: true}, ""},
		{"lab uses a plugin", edge{from: "test/lab/judge", to: "plugins/probe/postgres"}, ""},
		{"lab uses a part of itself", edge{from: "test/lab", to: "test/lab/stack"}, ""},

		{"agent uses the lab", edge{from: "agent", to: "test/lab"}, "nothing depends on test/"},
		{"code uses test support", edge{from: "agent", to: "plugins/service/servicetest"}, "test support belongs into tests"},
		{"observer reads the configuration", edge{from: "agent/observer", to: "agent/config"}, "only agent and cmd"},
		{"test reads the configuration", edge{from: "agent/engine", to: "agent/config", test: true}, "only agent and cmd"},
		{"plugin uses nouns", edge{from: "plugins/probe/patroni", to: "agent/node"}, "a plugin knows its contract"},
		{"plugin uses another plugin", edge{from: "plugins/probe/patroni", to: "plugins/probe/process"}, "a plugin knows its contract"},
		{"agent uses a plugin", edge{from: "agent", to: "plugins/service/systemd"}, "plugins are listed"},
		{"command uses a plugin", edge{from: "cmd/pgpatrol", to: "plugins/service/systemd"}, "plugins are listed"},
		{"effect uses an effect", edge{from: "agent/executor", to: "agent/journal"}, "siblings meet"},
		{"engine uses guard", edge{from: "agent/engine", to: "agent/guard"}, "siblings meet"},
		{"agent uses builtin", edge{from: "agent", to: "plugins/builtin"}, "siblings meet"},
		{"contract uses a contract", edge{from: "plugins/probe", to: "plugins/service"}, "siblings meet"},
		{"core uses an effect", edge{from: "agent/engine", to: "agent/dcs"}, "dependencies point downwards"},
		{"contract uses nouns", edge{from: "plugins/service", to: "agent/node"}, "dependencies point downwards"},
		{"test of the core uses an effect", edge{from: "agent/guard", to: "agent/journal", test: true}, "dependencies point downwards"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var want []string
			if tc.want != "" {
				i := slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.reason, tc.want) })
				if i < 0 {
					t.Fatalf("no rule says %q", tc.want)
				}
				want = []string{fmt.Sprintf("%s must not import %s: %s", tc.edge.from, tc.edge.to, rules[i].reason)}
			}
			if diff := cmp.Diff(want, violations([]edge{tc.edge})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestLayers_UnknownPackage(t *testing.T) {
	got := violations([]edge{{from: "agent", to: "agent/util"}})
	want := []string{"agent/util has no layer: add it to the table of test/layers_test.go"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// readEdges returns the imports between packages of this module, from every Go file below root.
func readEdges(t testing.TB, root string) []edge {
	t.Helper()
	var edges []edge
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); d.IsDir() && name != root && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if to, ours := strings.CutPrefix(imported, module); ours {
				edges = append(edges, edge{from: filepath.ToSlash(dir), to: to, test: strings.HasSuffix(name, "_test.go")})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return edges
}
