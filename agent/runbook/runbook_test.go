package runbook

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// Limits that keep a page readable on a small terminal at night.
const (
	maxLines   = 60
	maxColumns = 120 // of the source
	maxCommand = 100 // a command is not wrapped
	maxSummary = 100
)

// TestPages_EveryTopicHasOne also proves that every page has all sections and that none is empty: parse says so.
func TestPages_EveryTopicHasOne(t *testing.T) {
	for _, topic := range Topics() {
		t.Run(topic.name(), func(t *testing.T) {
			p, err := Load(topic)
			if err != nil {
				t.Fatal(err)
			}
			if p.Topic != topic {
				t.Errorf("topic %v, want %v", p.Topic, topic)
			}
			if n := utf8.RuneCountInString(p.Summary); n > maxSummary {
				t.Errorf("the summary has %d characters, limit %d", n, maxSummary)
			}
			source, err := pages.ReadFile("pages/" + topic.name() + ".md")
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), "\n"); n > maxLines {
				t.Errorf("%d lines, limit %d", n, maxLines)
			}
			for line := range strings.Lines(string(source)) {
				if n := utf8.RuneCountInString(line); n > maxColumns+1 {
					t.Errorf("%d columns, limit %d: %s", n, maxColumns, line)
				}
			}
		})
	}
}

func TestPages_NoneWithoutATopic(t *testing.T) {
	var want []string
	for _, topic := range Topics() {
		want = append(want, topic.name()+".md")
	}
	entries, err := fs.ReadDir(pages, "pages")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			t.Errorf("pages/%s explains nothing that exists", e.Name())
		}
	}
}

// TestPages_TellHowToLook: an operator always gets at least one command to copy.
func TestPages_TellHowToLook(t *testing.T) {
	for _, p := range all(t) {
		if !slices.ContainsFunc(p.Sections[2].Blocks, func(b Block) bool { return b.Form == Command }) {
			t.Errorf("%s: %q has no command", p.name(), p.Sections[2].Title)
		}
		for _, s := range p.Sections {
			for _, b := range s.Blocks {
				if n := utf8.RuneCountInString(b.Text); b.Form == Command && n > maxCommand {
					t.Errorf("%s: a command of %d characters, limit %d: %s", p.name(), n, maxCommand, b.Text)
				}
				if b.Form != Command && strings.Count(b.Text, "`")%2 != 0 {
					t.Errorf("%s: a quotation that does not end: %s", p.name(), b.Text)
				}
			}
		}
	}
}

// TestPages_GuardsAreNotWorkedAround: the page of a guard says how to see its verdict, and what must not be done instead.
func TestPages_GuardsAreNotWorkedAround(t *testing.T) {
	warning := regexp.MustCompile(`(?i)\b(do not|never|restart nothing)\b`)
	for _, p := range all(t) {
		if p.Kind != Guard {
			continue
		}
		if todo := text(p.Sections[2]); !warning.MatchString(todo) || !strings.Contains(todo, "pgpatrol why-not heal") {
			t.Errorf("%s: %q has no warning, or does not name why-not", p.name(), p.Sections[2].Title)
		}
	}
}

// TestPages_NameTheirSources: "because we say so" is no reason.
func TestPages_NameTheirSources(t *testing.T) {
	source := regexp.MustCompile(`FAULTS [FSL]\d|FACTS §\d|DESIGN §\d`)
	for _, p := range all(t) {
		if why := text(p.Sections[3]); !source.MatchString(why) {
			t.Errorf("%s: %q names no source: %s", p.name(), p.Sections[3].Title, why)
		}
	}
}

// known are the commands of pgpatrol that a page may name.
var known = []string{
	"agent", "status", "plan", "history", "check-config", "version", "why", "why-not", "explain", "policy", "pause",
	"resume", "kill-switch", "approve", "help",
}

func TestPages_NameOnlyCommandsThatExist(t *testing.T) {
	for _, p := range all(t) {
		for _, c := range commands(p) {
			if !slices.Contains(known, c) {
				t.Errorf("%s names the command %q, which does not exist", p.name(), c)
			}
		}
	}
}

var (
	call   = regexp.MustCompile(`(?:^|[;|&(] *|sudo )pgpatrol ([a-z][a-z-]*)`)
	quoted = regexp.MustCompile("`[^`]*`")
)

// commands returns the commands of pgpatrol that a page names, in command lines and in quotations.
func commands(p Page) []string {
	var out []string
	for _, s := range p.Sections {
		for _, b := range s.Blocks {
			code := []string{b.Text}
			if b.Form != Command {
				code = quoted.FindAllString(b.Text, -1)
			}
			for _, c := range code {
				for _, m := range call.FindAllStringSubmatch(strings.Trim(c, "`"), -1) {
					out = append(out, m[1])
				}
			}
		}
	}
	return out
}

// TestPages_PointAtPagesThatExist: "pgpatrol explain X" must show something.
func TestPages_PointAtPagesThatExist(t *testing.T) {
	explain := regexp.MustCompile(`pgpatrol explain ([A-Za-z][A-Za-z_-]*)`)
	codes := regexp.MustCompile(`\b[A-Z]{2,}(_[A-Z]+)+\b`)
	guards := regexp.MustCompile(`[Gg]uard ([a-z]+(?:-[a-z]+)+)`)
	others := []string{"PID_OF_THE_POSTMASTER", "ONE_MEMBER", "ETCDCTL_ENDPOINTS"}
	for _, p := range all(t) {
		for _, s := range p.Sections {
			for _, m := range explain.FindAllStringSubmatch(text(s), -1) {
				if m[1] != "CODE" && len(Find(m[1])) == 0 {
					t.Errorf("%s points at the page %q, which does not exist", p.name(), m[1])
				}
			}
			for _, c := range codes.FindAllString(text(s), -1) {
				if !slices.Contains(others, c) && len(Find(c)) == 0 {
					t.Errorf("%s names %s, which is no finding", p.name(), c)
				}
			}
			for _, m := range guards.FindAllStringSubmatch(text(s), -1) {
				if !slices.ContainsFunc(Find(m[1]), func(t Topic) bool { return t.Kind == Guard }) {
					t.Errorf("%s names the guard %q, which does not exist", p.name(), m[1])
				}
			}
		}
	}
}

// text is all of a section in one string.
func text(s Section) string {
	var out []string
	for _, b := range s.Blocks {
		out = append(out, b.Text)
	}
	return strings.Join(out, "\n")
}

func all(t *testing.T) []Page {
	t.Helper()
	var out []Page
	for _, topic := range Topics() {
		p, err := Load(topic)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestFind(t *testing.T) {
	hung, window := Topic{Finding, "PATRONI_HUNG"}, Topic{Guard, "lease-window"}
	cases := map[string][]Topic{
		"PATRONI_HUNG":         {hung},
		"patroni_hung":         {hung},
		"Patroni-Hung":         {hung},
		"finding-patroni-hung": {hung},
		"lease-window":         {window},
		"guard-lease-window":   {window},
		"GUARD_LEASE_WINDOW":   {window},
		"STORM":                {{Finding, "STORM"}},
		"storm":                {{Guard, "storm"}},
		"Storm":                {{Finding, "STORM"}, {Guard, "storm"}},
		"guard-storm":          {{Guard, "storm"}},
		"finding-storm":        {{Finding, "STORM"}},
		"revive":               {{Class, "revive"}},
		"ask":                  {{Mode, "ask"}},
		"Soft-Kill":            {{Verb, "soft-kill"}},
		"verb-lease-window":    nil,
		"":                     nil,
		"guard-":               nil,
		"../runbook.go":        nil,
		"PATRONI_HUNG ":        nil,
	}
	for word, want := range cases {
		if diff := cmp.Diff(want, Find(word)); diff != "" {
			t.Errorf("Find(%q) (-want +got):\n%s", word, diff)
		}
	}
}

func TestLoad_Unknown(t *testing.T) {
	if _, err := Load(Topic{Guard, "no-such"}); err == nil || !strings.Contains(err.Error(), "no page on guard no-such") {
		t.Errorf("error %v", err)
	}
}

// TestREADME_NamesEveryCode: whoever reads before installing sees every finding and every guard, the guards in their order.
func TestREADME_NamesEveryCode(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var guards []string
	_, table, _ := strings.Cut(string(readme), "| guard | refuses |")
	for line := range strings.Lines(table) {
		if m := regexp.MustCompile("^\\| `([a-z-]+)` \\|").FindStringSubmatch(line); m != nil {
			guards = append(guards, m[1])
		} else if len(guards) > 0 {
			break
		}
	}
	var want []string
	for _, topic := range Topics() {
		switch {
		case topic.Kind == Guard:
			want = append(want, topic.Code)
		case !strings.Contains(string(readme), "`"+topic.Code+"`"):
			t.Errorf("README.md does not name the %s %s", topic.Kind, topic.Code)
		}
	}
	if diff := cmp.Diff(want, guards); diff != "" {
		t.Errorf("guards of README.md (-want +got):\n%s", diff)
	}
}
