package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/runbook"
)

// explain runs the command and returns its exit code, output and errors.
func explain(t *testing.T, s screen, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), &env{out: &o, err: &e, screen: s}, append([]string{"explain"}, args...))
	return code, o.String(), e.String()
}

func TestExplain_Golden(t *testing.T) {
	cases := map[string][]string{
		"explain-all":     nil,
		"explain-finding": {"PATRONI_HUNG"},
		"explain-guard":   {"guard-lease-window"},
	}
	for name, args := range cases {
		for suffix, s := range map[string]screen{"": {}, "-narrow": {terminal: true, width: 60}} {
			t.Run(name+suffix, func(t *testing.T) {
				code, out, errs := explain(t, s, args...)
				if code != exitOK || errs != "" {
					t.Fatalf("exit code %d, %q", code, errs)
				}
				golden := filepath.Join("testdata", name+suffix+".txt")
				if *update {
					if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), out); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestExplain_FitsTheTerminal: every page is broken to the width, but for commands, which are there to be copied.
func TestExplain_FitsTheTerminal(t *testing.T) {
	const width, command = 60, "      "
	for _, topic := range runbook.Topics() {
		_, out, _ := explain(t, screen{terminal: true, width: width}, string(topic.Kind)+"-"+topic.Code)
		for line := range strings.Lines(out) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > width && !strings.HasPrefix(line, command) {
				t.Errorf("%s: %d columns: %q", topic.Code, n, line)
			}
		}
	}
}

func TestExplain_AnySpelling(t *testing.T) {
	_, want, _ := explain(t, screen{}, "lease-window")
	for _, word := range []string{"guard-lease-window", "LEASE-WINDOW", "Guard_Lease_Window"} {
		if code, out, errs := explain(t, screen{}, word); code != exitOK || out != want {
			t.Errorf("%s: exit code %d, %q, another page", word, code, errs)
		}
	}
	if _, out, _ := explain(t, screen{}, "Storm"); !strings.Contains(out, "STORM (finding): ") || !strings.Contains(out, "\nstorm (guard): ") {
		t.Errorf("a word with two meanings shows one of them:\n%s", out)
	}
}

func TestExplain_Unknown(t *testing.T) {
	for word, want := range map[string]string{
		"PATRONI_HANG":  "did you mean PATRONI_HUNG?",
		"patroni_hug":   "did you mean PATRONI_HUNG?",
		"leese-window":  "did you mean lease-window?",
		"lease_windo":   "did you mean lease-window?",
		"guard-bugdet":  "did you mean budget?",
		"everything":    `"pgpatrol explain" lists all`,
		"":              `"pgpatrol explain" lists all`,
		"\x1b[31mSTORM": `\x1b[31mSTORM`,
	} {
		code, out, errs := explain(t, screen{}, word)
		if code != exitUsage || out != "" || !strings.Contains(errs, want) || strings.Contains(errs, "\x1b") {
			t.Errorf("%q: exit code %d, output %q, errors %q, want %q", word, code, out, errs, want)
		}
	}
	if code, _, errs := explain(t, screen{}, "STORM", "PAUSED"); code != exitUsage || !strings.Contains(errs, `unexpected argument "PAUSED"`) {
		t.Errorf("two arguments: exit code %d, %q", code, errs)
	}
}

func TestExplain_JSON(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []runbook.Topic
	}{
		{[]string{"--json", "patroni-hung"}, []runbook.Topic{{Kind: runbook.Finding, Code: "PATRONI_HUNG"}}},
		{[]string{"--json"}, runbook.Topics()},
	} {
		code, out, errs := explain(t, screen{}, tc.args...)
		if code != exitOK || errs != "" {
			t.Fatalf("%v: exit code %d, %q", tc.args, code, errs)
		}
		var pages []runbook.Page
		if err := json.Unmarshal([]byte(out), &pages); err != nil {
			t.Fatal(err)
		}
		var got []runbook.Topic
		for _, p := range pages {
			got = append(got, p.Topic)
			if p.Summary == "" || len(p.Sections) != len(runbook.Titles()) {
				t.Errorf("%s is not complete", p.Code)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.args, diff)
		}
	}
}

// TestExplain_CommandsWork: every command of pgpatrol that a page gives to copy exists, with its flags and arguments.
func TestExplain_CommandsWork(t *testing.T) {
	call := regexp.MustCompile(`(?:^|[;|] *|sudo )pgpatrol ([^#;|>]+)`)
	for _, topic := range runbook.Topics() {
		page, err := runbook.Load(topic)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Sections {
			for _, b := range s.Blocks {
				for _, m := range call.FindAllStringSubmatch(b.Text, -1) {
					if b.Form != runbook.Command {
						continue
					}
					if err := understood(m[1]); err != nil {
						t.Errorf("%s: %q: %v", topic.Code, b.Text, err)
					}
				}
			}
		}
	}
}

// understood reports why the program would refuse a command line as wrong usage, without carrying it out.
func understood(line string) error {
	args := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1)
	cmd, rest, err := newRoot(&env{}).Find(args)
	if err != nil {
		return err
	}
	if !cmd.HasParent() {
		return fmt.Errorf("there is no command %q", args[0])
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
