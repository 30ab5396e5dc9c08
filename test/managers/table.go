package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// result is what became of one case.
type result struct {
	outcome string // pass, fail or skip
	why     string // of a skip; all that the test said of a fail
}

// results are what became of the suite.
type results struct {
	cases map[string]result
	waked time.Duration // the longest time from a change to the wake-up; 0 if it was not measured
	every time.Duration // how often it looks; 0 if it is told
}

// column is a manager with its results.
type column struct {
	manager
	absent string // why it could not run here
	results
}

var (
	position = regexp.MustCompile(`^\s*[a-z_]+\.go:[0-9]+: `)
	woken    = regexp.MustCompile(`woken within ([0-9.a-zµ]+)$`)
	looks    = regexp.MustCompile(`it looks every ([0-9.a-zµ]+)$`)
)

// read returns the results of the cases below test from Go's test events.
func read(test string, events []byte) (results, error) {
	r := results{cases: map[string]result{}}
	names := map[string]string{} // as a test is called, to the case
	for _, name := range servicetest.Cases() {
		names[strings.ReplaceAll(name, " ", "_")] = name
	}
	last, all := map[string]string{}, map[string]*strings.Builder{} // that a case said: its last message, and everything
	for _, line := range bytes.Split(bytes.TrimSpace(events), []byte("\n")) {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(line, &e); err != nil {
			return r, fmt.Errorf("read test events: %w: %s", err, line)
		}
		sub, ok := strings.CutPrefix(e.Test, test+"/")
		if !ok {
			continue
		}
		sub, _, below := strings.Cut(sub, "/")
		name, ok := names[sub]
		if !ok {
			name = sub
		}
		if e.Action == "output" && !strings.HasPrefix(e.Output, "===") {
			if all[name] == nil {
				all[name] = &strings.Builder{}
			}
			all[name].WriteString(e.Output)
		}
		if below {
			continue
		}
		switch e.Action {
		case "output":
			text := strings.TrimSpace(e.Output)
			if position.MatchString(text) {
				last[name] = position.ReplaceAllString(text, "")
			}
			r.waked = max(r.waked, duration(woken, text))
			r.every = max(r.every, duration(looks, text))
		case "pass", "fail", "skip":
			c := result{outcome: e.Action}
			switch b := all[name]; {
			case e.Action == "skip":
				c.why = last[name]
			case e.Action == "fail" && b != nil:
				c.why = strings.TrimRight(b.String(), "\n")
			}
			r.cases[name] = c
		}
	}
	return r, nil
}

// duration returns the one that text ends with, 0 if there is none.
func duration(words *regexp.Regexp, text string) time.Duration {
	m := words.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	d, err := time.ParseDuration(m[1])
	if err != nil {
		return 0
	}
	return d
}

// table returns the table, with what the managers lack and what the cases that failed said below it, and whether every manager
// that could run ran every case and failed none.
func table(cases []string, columns []column) (string, bool) {
	var b strings.Builder
	var notes, failures []string
	passed, failed, lacking := 0, 0, 0
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\ncase")
	for _, c := range columns {
		fmt.Fprint(w, "\t", c.name)
	}
	fmt.Fprintln(w)
	for _, name := range cases {
		fmt.Fprint(w, name)
		for _, c := range columns {
			switch r := c.cases[name]; {
			case c.absent != "":
				fmt.Fprint(w, "\t.")
			case r.outcome == "pass":
				passed++
				fmt.Fprint(w, "\tpass")
			case r.outcome == "skip":
				lacking++
				var n int
				n, notes = note(notes, c.name+": "+r.why)
				fmt.Fprintf(w, "\tlacks %d", n)
			case r.outcome == "fail":
				failed++
				failures = append(failures, fmt.Sprintf("FAIL  %s: %s\n%s\n", c.name, name, r.why))
				fmt.Fprint(w, "\tFAIL")
			default:
				failed++
				fmt.Fprint(w, "\tNOT RUN")
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	b.WriteString("\n")
	for i, text := range notes {
		fmt.Fprintf(&b, "lacks %d  %s\n", i+1, text)
	}
	for _, text := range failures {
		b.WriteString(text)
	}
	b.WriteString("\n")
	for _, c := range columns {
		switch {
		case c.absent != "":
			fmt.Fprintf(&b, "%s: not here: %s\n", c.name, c.absent)
		case c.every > 0:
			fmt.Fprintf(&b, "%s: %s; it looks every %v, and woke within %v\n", c.name, c.how, c.every, c.waked)
		case c.waked > 0:
			fmt.Fprintf(&b, "%s: %s; events within %v\n", c.name, c.how, c.waked)
		default:
			fmt.Fprintf(&b, "%s: %s\n", c.name, c.how)
		}
	}
	fmt.Fprintf(&b, "%d passed, %d failed, %d lacking with a reason\n", passed, failed, lacking)
	return b.String(), failed == 0
}

// note returns the number of a note, which is added if it is new.
func note(notes []string, text string) (int, []string) {
	for i, n := range notes {
		if n == text {
			return i + 1, notes
		}
	}
	return len(notes) + 1, append(notes, text)
}
