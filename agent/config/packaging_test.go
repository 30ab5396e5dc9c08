package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

const reference = "../../packaging/pgpatrol.yaml"

func readFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReference_StatesTheDefaults(t *testing.T) {
	got := mustParse(t, readFile(t, reference))
	got.Node, got.Scope, got.Etcd.Endpoints = "", "", nil // required, so the file holds an example
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("(-Default +%s)\n%s", reference, diff)
	}
}

// TestReference_NamesEveryKey sets everything that is commented out: it must still be valid, and no field be empty.
func TestReference_NamesEveryKey(t *testing.T) {
	text := strings.ReplaceAll(uncomment(readFile(t, reference)), "http://127.0.0.1:2379", "https://127.0.0.1:2379")
	c := mustParse(t, text)
	c.Services = []Service{union(c.Services)}
	checkFilled(t, reflect.ValueOf(c), "")
}

// union puts together what is set in any of the services: no kind has every key.
func union(all []Service) Service {
	var out Service
	var fill func(to, from reflect.Value)
	fill = func(to, from reflect.Value) {
		for i := range to.NumField() {
			switch {
			case to.Field(i).Kind() == reflect.Struct && to.Field(i).CanSet() && to.Field(i).NumField() > 0 && to.Type().Field(i).Tag.Get("yaml") != "-":
				fill(to.Field(i), from.Field(i))
			case to.Field(i).IsZero():
				to.Field(i).Set(from.Field(i))
			}
		}
	}
	for _, s := range all {
		fill(reflect.ValueOf(&out).Elem(), reflect.ValueOf(s))
	}
	return out
}

// uncomment removes the # from settings: lines that begin with #key, and those below it with two spaces after the #.
func uncomment(text string) string {
	setting, below := regexp.MustCompile(`^ *#[a-z_]+:`), regexp.MustCompile(`^ *#  `)
	lines, inside := strings.Split(text, "\n"), false
	for i, line := range lines {
		inside = setting.MatchString(line) || inside && below.MatchString(line)
		if inside {
			lines[i] = strings.Replace(line, "#", "", 1)
		}
	}
	return strings.Join(lines, "\n")
}

func checkFilled(t testing.TB, v reflect.Value, path string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Tag.Get("yaml"); name != "-" {
				checkFilled(t, v.Field(i), join(path, name))
			}
		}
	case reflect.Slice:
		if v.Len() == 0 {
			t.Errorf("%s is not in %s", path, reference)
			return
		}
		checkFilled(t, v.Index(0), path)
	case reflect.Map:
		if v.Len() == 0 {
			t.Errorf("%s is not in %s", path, reference)
		}
	default:
		if v.IsZero() {
			t.Errorf("%s is not in %s", path, reference)
		}
	}
}

// TestExamples_AreValid loads the examples of the machines without a Patroni.
func TestExamples_AreValid(t *testing.T) {
	for file, services := range map[string]int{"etcd-nas": 1, "etcd-mbp": 3, "etcd-jp1": 1} {
		c, err := Load("../../packaging/examples/homelab/" + file + ".yaml")
		if err != nil || len(c.Spec().Services) != services {
			t.Errorf("%s: %d services, %v", file, len(c.Spec().Services), err)
		}
	}
}

// TestExamples_IncusHost: the same Patroni, from outside its instance.
func TestExamples_IncusHost(t *testing.T) {
	c, err := Load("../../packaging/examples/homelab/incus-hp2.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Spec().Patroni; len(p) != 1 || p[0].Member != "postgres-1" || p[0].Unit != "postgres-1/systemd/patroni.service" {
		t.Errorf("got %+v", p)
	}
}

func TestExamples_Homelab(t *testing.T) {
	files, err := filepath.Glob("../../packaging/examples/homelab/postgres-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		member := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(member, func(t *testing.T) {
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			policy := node.Policy{Adjust: node.ModeObserve, Revive: node.ModeAuto, Disrupt: node.ModeObserve, Expedite: node.ModeOff}
			want := node.Spec{Node: member, Scope: "nocodb-cluster", Policy: policy, Patroni: []node.PatroniSpec{
				{Service: "patroni", Member: member, Unit: "patroni.service", Policy: policy},
			}}
			if diff := cmp.Diff(want, c.Spec()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
