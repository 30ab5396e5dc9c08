package scenario

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
)

// Result is what one run showed.
type Result struct {
	Scenario string        `json:"scenario"`
	Title    string        `json:"title"`
	Timings  string        `json:"timings"`
	Agents   bool          `json:"agents"`
	Began    time.Time     `json:"began"`
	Duration time.Duration `json:"duration"`

	// What was measured, whether or not a check asks for it.
	Leader        string                   `json:"leader,omitempty"`
	LongestGap    time.Duration            `json:"longest_gap"`
	WriterErrors  map[string]int           `json:"writer_errors,omitempty"`
	SecondPrimary time.Duration            `json:"second_primary"` // how long two nodes were writable, until the observation ended
	Failovers     int                      `json:"failovers"`
	ProxyDown     time.Duration            `json:"proxy_down"`
	LostWrites    *int64                   `json:"lost_writes"` // nil where they could not be counted
	PatroniBackAt *time.Duration           `json:"patroni_back_at,omitempty"`
	BackAt        map[string]time.Duration `json:"back_at,omitempty"`      // homelab: what lives again, by its name
	AgentPeak     int64                    `json:"agent_memory,omitempty"` // homelab: the most that the agent's container had resident
	Actions       []string                 `json:"actions,omitempty"`      // intents in the agents' journals, as they stand there
	Replayed      int                      `json:"replayed"`               // decisions made again from the journals, with the same answer

	Checks []CheckResult `json:"checks"`
	Error  string        `json:"error,omitempty"`  // the run could not be carried out
	Folder string        `json:"folder,omitempty"` // where a failed run left its evidence
}

// CheckResult is the verdict of one check.
type CheckResult struct {
	Name string `json:"name"`
	Verdict
}

// Passed reports whether the run was carried out and every check held.
func (r Result) Passed() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	return r.Error == ""
}

// Failed names the checks that did not hold, each with what was seen.
func (r Result) Failed() string {
	var out []string
	for _, c := range r.Checks {
		if !c.OK {
			out = append(out, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(out, "; ")
}

func (r *Result) judge(sc Scenario, e Evidence) {
	w := e.Window
	r.Leader = e.Leader
	r.LongestGap = judge.LongestGap(e.Records, w).Length()
	r.WriterErrors = judge.Errors(e.Records, w)
	r.SecondPrimary = judge.Total(judge.SecondPrimary(e.Records, w))
	r.Failovers = judge.Failovers(e.Records, w)
	r.ProxyDown = judge.Total(judge.ProxyDown(e.Records, w))
	if t := judge.Totals(e.Records); t != nil && t.Counted {
		r.LostWrites = &t.Lost
	}
	if lives := judge.Invocations(e.Records, w, e.Leader, patroniUnit); len(lives) > 1 {
		after := lives[1].FirstSeen.Sub(e.Fault)
		r.PatroniBackAt = &after
	}
	for _, t := range things() {
		if lives := t.lives(e); len(lives) > 1 {
			if r.BackAt == nil {
				r.BackAt = map[string]time.Duration{}
			}
			r.BackAt[string(t)] = lives[len(lives)-1].FirstSeen.Sub(e.Fault)
		}
	}
	r.AgentPeak = agentMost(e).Peak
	for _, i := range judge.Intents(e.Records) {
		r.Actions = append(r.Actions, i.Node+": "+string(i.Journal.Line))
	}
	r.Replayed, _ = replays(e)
	checks := append([]Check{watched(sc.Blind), replayed()}, sc.Heal...)
	if !e.Agents {
		checks = append([]Check{watched(sc.Blind)}, sc.Harm...)
	}
	for _, c := range checks {
		r.Checks = append(r.Checks, CheckResult{c.Name, c.Test(e)})
	}
}

// Print writes results as a table, and below it every check that did not hold.
func Print(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tTIMINGS\tPGPATROL\tLONGEST GAP\tTWO PRIMARIES\tFAILOVERS\tBACK\tLOST WRITES\tERRORS\tACTIONS\tREPLAYED\tRESULT")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\n", r.Scenario, r.Timings, with(r.Agents), round(r.LongestGap), orNone(r.SecondPrimary),
			r.Failovers, r.back(), count(r.LostWrites), sum(r.WriterErrors), len(r.Actions), r.Replayed, r.outcome())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if r.Passed() {
			continue
		}
		fmt.Fprintf(w, "\n%s, timings %s, %s pgpatrol: %s", r.Scenario, r.Timings, with(r.Agents), r.outcome())
		if r.Error != "" {
			fmt.Fprintf(w, ": %s", r.Error)
		}
		fmt.Fprintln(w)
		for _, c := range r.Checks {
			if !c.OK {
				fmt.Fprintf(w, "  not so: %s (%s)\n", c.Name, c.Detail)
			}
		}
		if r.Folder != "" {
			fmt.Fprintf(w, "  evidence: %s\n", r.Folder)
		}
	}
	return nil
}

func (r Result) outcome() string {
	switch {
	case r.Error != "":
		return "not carried out"
	case r.Passed():
		return "pass"
	case !r.Agents:
		return "FAIL: proves nothing"
	default:
		return "FAIL"
	}
}

func with(agents bool) string {
	if agents {
		return "with"
	}
	return "without"
}

// back says when what was broken lived again: Patroni on the leader, or the last of the things of the homelab.
func (r Result) back() string {
	if len(r.BackAt) == 0 {
		return at(r.PatroniBackAt)
	}
	last := slices.Max(slices.Collect(maps.Values(r.BackAt)))
	return at(&last)
}

func orNone(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return round(d).String()
}

func at(d *time.Duration) string {
	if d == nil {
		return "-"
	}
	return "+" + round(*d).String()
}

func count(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

// save leaves everything that was seen in a folder and returns its name.
func save(dir string, res Result, e Evidence, logs map[string]string) (string, error) {
	name := fmt.Sprintf("pgpatrol-lab-%s-%s-%s-", strings.ToLower(res.Scenario), with(res.Agents), res.Began.Format("150405"))
	folder, err := os.MkdirTemp(dirOr(dir), name)
	if err != nil {
		return "", fmt.Errorf("make folder for evidence: %w", err)
	}
	files := map[string]func(io.Writer) error{
		"result.json": func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(res)
		},
		"records.jsonl": func(w io.Writer) error {
			enc := json.NewEncoder(w)
			for _, r := range e.Records {
				if r.Journal != nil {
					continue
				}
				if err := enc.Encode(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for node, text := range logs {
		files[node+".log"] = func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
	}
	for node, text := range e.Plans {
		files[node+".plan.json"] = func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
	}
	for _, r := range e.Records {
		if r.Journal != nil {
			files[r.Node+".journal.jsonl"] = journalOf(e, r.Node)
		}
	}
	for name, write := range files {
		if err := writeFile(filepath.Join(folder, name), write); err != nil {
			return folder, err
		}
	}
	return folder, nil
}

func journalOf(e Evidence, node string) func(io.Writer) error {
	return func(w io.Writer) error {
		for _, r := range e.Records {
			if r.Journal == nil || r.Node != node {
				continue
			}
			if _, err := fmt.Fprintf(w, "%s\n", r.Journal.Line); err != nil {
				return err
			}
		}
		return nil
	}
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	if err := write(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}
