package main

import (
	"strings"
	"testing"
)

func TestRun_WrongCommandLine(t *testing.T) {
	cases := map[string]string{
		"-seed 0":                        "seeds count from 1",
		"-seed x":                        "invalid value",
		"-seeds 0":                       "nothing to run",
		"-first 0":                       "seeds count from 1",
		"-workers 0":                     "at least 1",
		"-only 2":                        "-only goes with -seed",
		"-seed 3 -seeds 4":               "-seeds has no meaning with -seed",
		"-seed 3 -planted":               "-planted has no meaning with -seed",
		"-planted -first 3":              "-first has no meaning with -planted",
		"-seed 3 -only 0":                "not the number of a fault",
		"-seed 3 -only 2,":               "not the number of a fault",
		"-seed 3 -only 1,1":              "twice",
		"-seed 3 -only 1:x":              "invalid duration",
		"-seed 3 -only 1:0s":             "longer than nothing",
		"-seed 3 -only 99":               "there is no fault 99",
		"-case hung-revive/1/1s":         "-case goes with -crashpoints",
		"-crashpoints -seeds 3":          "-seeds has no meaning with -crashpoints",
		"-crashpoints -case hang/1/1s":   "DEED one of hung-revive,",
		"-crashpoints -case hung-revive": "want DEED/STEP/COMEBACK",
		"-crashpoints -case hung-revive/1/1s/2/3": "want DEED/STEP/COMEBACK",
		"-crashpoints -case hung-revive/1/2s":     "one of 1s, 30s, reboot",
		"-crashpoints -case hung-revive/0/1s":     `"0" is none of its`,
		"-crashpoints -case hung-revive/x/1s":     `"x" is none of its`,
		"-crashpoints -case hung-revive/1/1s/1":   `of the recovery, "1" is none of its 0 steps`,
		"-bogus":                                  "not defined: -bogus",
		"seeds":                                   `unknown argument "seeds"`,
	}
	for line, want := range cases {
		t.Run(line, func(t *testing.T) {
			var out, problems strings.Builder
			if got := run(strings.Fields(line), &out, &problems); got != 2 {
				t.Errorf("status %d, want 2", got)
			}
			if !strings.Contains(problems.String(), want) || out.Len() > 0 {
				t.Errorf("said %q and printed %q, want %q said", problems.String(), out.String(), want)
			}
		})
	}
}

func TestRun_HelpNamesEveryFlag(t *testing.T) {
	for _, ask := range []string{"-h", "-help", "--help"} {
		var out, problems strings.Builder
		if got := run([]string{ask}, &out, &problems); got != 0 || problems.Len() > 0 {
			t.Errorf("%s: status %d, said %q", ask, got, problems.String())
		}
		for _, flag := range []string{"-seeds n", "-first n", "-seed n", "-only faults", "-workers n", "-planted", "-crashpoints", "-case crash", "Exit status"} {
			if !strings.Contains(out.String(), flag) {
				t.Errorf("%s does not tell of %q:\n%s", ask, flag, out.String())
			}
		}
	}
}
