//go:build planted

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// The command that a violation is printed with must show that violation, with no more faults than were printed.
func TestExplain_PrintsACommandThatReplays(t *testing.T) {
	for _, bug := range []string{"engine/one-probe", "engine/killmode-ignored"} {
		planted.Current = bug
		defer func() { planted.Current = "" }()
		found := runSeeds(1, 300, 2, true).Violations
		if len(found) == 0 {
			t.Errorf("%s was not found", bug)
			continue
		}
		var text strings.Builder
		explain(&text, found[:1])
		command := regexp.MustCompile(`go run ./test/sim (-seed \d+ -only \S+)`).FindStringSubmatch(text.String())
		if command == nil {
			t.Errorf("%s: no command in\n%s", bug, text.String())
			continue
		}
		var out strings.Builder
		if status := run(strings.Fields(command[1]), &out, &out); status != 1 || !strings.Contains(out.String(), "VIOLATION "+found[0].Invariant) {
			t.Errorf("%s: %s gave status %d and no %s:\n%s", bug, command[0], status, found[0].Invariant, out.String())
		}
		t.Log(text.String())
	}
}

// Every promise that the crash points check must be one that they see broken.
func TestCrashes_FindPlantedBugs(t *testing.T) {
	for bug, want := range map[string]string{
		"coordinator/lock-for-an-hour":  "F101",
		"coordinator/two-slots":         "S26",
		"executor/forget-result":        "F101",
		"executor/intent-means-execute": "F101",
		"executor/nothing-is-claimed":   "S26",
		"executor/resolve-nothing":      "F101",
	} {
		planted.Current = bug
		found := brokenByCrashes(2)
		planted.Current = ""
		t.Log(bug, found)
		if !slices.ContainsFunc(found, func(v violation) bool { return v.Invariant == want }) {
			t.Errorf("%s broke %v, want %s broken", bug, found, want)
		}
	}
}
