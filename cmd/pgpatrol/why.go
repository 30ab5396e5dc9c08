package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const whyHelp = `Shows why pgpatrol did what it did, or did nothing: what was decided, because of which
findings and facts (their source and their age at that time), which guards refused with
which numbers, what was done and how it ended.

ID is the number of a record, as "pgpatrol history" prints it, or the id of an action,
which means its latest attempt. "all" stands for every record and needs --replay.

--replay decides again from the recorded inputs, with this very program, and compares
the answer with the recorded one, byte by byte. A record that is no decision has no
inputs; that is said and is no difference. Damaged lines of a journal are counted and
named, and are no difference either.

Exit codes:
  0  shown, and with --replay no answer differs
  1  failed, there is no such record, or a replay gives another answer
  2  wrong usage
  3  no agent answers`

func whyCommand(e *env) *cobra.Command {
	var again bool
	var dir string
	cmd := &cobra.Command{
		Use: "why ID", Short: "show why something was decided, and decide it again", Long: whyHelp,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usageError("ID is missing: the number of a record, the id of an action, or all")
			case len(args) > 1:
				return usageError("unexpected argument %q: one record is shown at a time", args[1])
			case args[0] == "all" && !again:
				return usageError(`"all" needs --replay; "pgpatrol history" lists records`)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := chronicleOf(e, dir)
			if err != nil {
				return err
			}
			if args[0] == "all" {
				return replayAll(cmd.Context(), e, c)
			}
			return tellWhy(cmd.Context(), e, c, args[0], again)
		},
	}
	cmd.Flags().BoolVar(&again, "replay", false, "decide again from the recorded inputs and compare")
	cmd.Flags().StringVar(&dir, "journal", "", "read the journal in this `DIR`, which may be a copy, instead of asking the agent")
	jsonFlag(cmd, e)
	return cmd
}

// story is a record with what it belongs to; it is the reply of why --json.
type story struct {
	Record   api.Record  `json:"record"`
	Decision *api.Record `json:"decision,omitempty"` // the plan that the record belongs to, with its inputs
	Attempts []attempt   `json:"attempts"`           // what was done because of that plan, and how it ended
	Replay   *replay     `json:"replay,omitempty"`
	// Older says that what was done lies further back than an agent tells at once.
	Older   bool             `json:"older,omitempty"`
	Damaged []journal.Damage `json:"damaged_lines,omitempty"`
}

// attempt is an intent with its results.
type attempt struct {
	Intent  api.Record   `json:"intent"`
	Results []api.Record `json:"results"`
}

func tellWhy(ctx context.Context, e *env, c chronicle, id string, again bool) error {
	s, err := storyOf(ctx, c, id)
	if err != nil {
		return err
	}
	s.Damaged = c.damage()
	if again {
		r := replayStory(s)
		s.Replay = &r
	}
	if e.json {
		if err := printJSON(e.out, s); err != nil {
			return err
		}
	} else {
		p := newPrinter(e.out, e.screen)
		printStory(p, s)
		printDamage(p, s.Damaged)
	}
	if s.Replay != nil && s.Replay.Outcome == different {
		return &codeError{code: exitFailed}
	}
	return nil
}

// storyOf finds a record and everything that belongs to it.
func storyOf(ctx context.Context, c chronicle, id string) (story, error) {
	acts, err := c.acts(ctx)
	if err != nil {
		return story{}, err
	}
	r, err := recordOf(ctx, c, acts, id)
	if err != nil {
		return story{}, err
	}
	s := story{Record: r, Attempts: []attempt{}}
	decided, only := r.Decision, uint64(0)
	switch {
	case r.Plan != nil:
		decided, s.Decision = r.Seq, &r
	case r.Action != nil:
		decided, only = r.Action.Decision, r.Seq
	case r.Result != nil:
		only = r.Result.Intent
		if i, err := c.one(ctx, only); err == nil && i.Action != nil {
			decided = i.Action.Decision
		}
	}
	if decided != 0 && s.Decision == nil {
		// The plan may be gone while what was done because of it is not: then the rest is still worth telling.
		if d, err := c.one(ctx, decided); err == nil && d.Plan != nil {
			s.Decision = &d
		}
	}
	s.Older = len(acts) >= api.MaxHistory && cmp.Or(only, decided) < acts[0].Seq
	for _, a := range acts {
		if a.Action != nil && (a.Seq == only || only == 0 && decided != 0 && a.Action.Decision == decided) {
			s.Attempts = append(s.Attempts, attempt{Intent: a, Results: resultsOf(acts, a.Seq)})
		}
	}
	return s, nil
}

func resultsOf(acts []api.Record, intent uint64) []api.Record {
	out := []api.Record{}
	for _, r := range acts {
		if r.Result != nil && r.Result.Intent == intent {
			out = append(out, r)
		}
	}
	return out
}

// recordOf finds the record that an argument means.
func recordOf(ctx context.Context, c chronicle, acts []api.Record, id string) (api.Record, error) {
	if seq, err := strconv.ParseUint(strings.TrimPrefix(id, "#"), 10, 64); err == nil && seq > 0 {
		return c.one(ctx, seq)
	}
	var known []string
	for _, r := range slices.Backward(acts) {
		if r.Action == nil {
			continue
		}
		if r.Action.ID == id {
			return c.one(ctx, r.Seq)
		}
		known = append(known, r.Action.ID)
	}
	near := `; "pgpatrol history" prints the numbers of records`
	if n := nearest(id, known); n != "" {
		near = "; did you mean " + n + "?"
	}
	return api.Record{}, fmt.Errorf("%q is neither the number of a record nor the id of an action that was taken%s", id, near)
}

// printStory says what was decided, why, and what became of it.
func printStory(p *printer, s story) {
	r := s.Record
	p.para("", "  ", "#%d %s %s: %s", r.Seq, r.Wall.Local().Format("2006-01-02 15:04:05.000"), r.Kind, recordWords(r))
	if f := r.Finding; f != nil {
		p.line("\nFinding:")
		printFinding(p, r.At, *f)
		printFacts(p, r.At, f.Evidence)
	}
	if a := r.Action; a != nil {
		p.line("\nAction:")
		printAction(p, *a)
	}
	if s.Decision != nil {
		printDecision(p, *s.Decision, r.Seq)
	} else if r.Decision != 0 {
		p.para("\n", "", "The decision that it belongs to, #%d, is not in the journal any more.", r.Decision)
	}
	printAttempts(p, s)
	if s.Replay != nil {
		printReplay(p, *s.Replay)
	}
}

func printDecision(p *printer, d api.Record, asked uint64) {
	plan := *d.Plan
	if d.Seq == asked {
		p.line("\nDecided:")
	} else {
		p.line("\nDecided (#%d):", d.Seq)
	}
	p.para("  ", "  ", "%s", plan.Summary)
	for _, a := range plan.Allowed {
		printAction(p, a)
		p.para("    ", "        ", "no guard refused it")
	}
	for _, f := range plan.Refused {
		printAction(p, f.Action)
		for _, v := range f.Verdicts {
			p.para("    ", "        ", "%s %s: %s", painted{"33", "refused by"}, v.Guard, v.Text)
		}
	}
	if len(plan.Findings) > 0 {
		p.line("\nBecause of:")
	}
	for _, f := range plan.Findings {
		printFinding(p, plan.At, f)
		printFacts(p, plan.At, f.Evidence)
	}
	if len(plan.Rests) > 0 {
		p.line("\nThis rested on (ages at that time):")
		p.table("  ", []string{"FACT", "VALUE", "SOURCE", "AGE"}, factRows(plan.At, plan.Rests))
	}
}

// printFacts prints the evidence of a finding below it.
func printFacts(p *printer, at node.Instant, facts []node.Evidence) {
	if len(facts) > 0 {
		p.table("       ", []string{"FACT", "VALUE", "SOURCE", "AGE"}, factRows(at, facts))
	}
}

func printAttempts(p *printer, s story) {
	switch {
	case len(s.Attempts) > 0:
	case s.Older:
		p.para("\n", "", "What was done lies further back than the agent tells at once: copy its state directory and use --journal.")
		return
	case s.Decision != nil:
		p.para("\n", "", "Nothing was done because of this decision.")
		return
	default:
		return
	}
	p.line("\nDone:")
	for _, a := range s.Attempts {
		p.para("  ", "    ", "#%d %s of %s, begun %s", a.Intent.Seq, a.Intent.Action.Verb, a.Intent.Action.Service, a.Intent.Wall.Local().Format("15:04:05.000"))
		for _, r := range a.Results {
			p.para("    ", "      ", "#%d %s, %s later%s", r.Seq, r.Result.Result, span(r.At.Sub(a.Intent.At)), resultWords(*r.Result))
		}
		if len(a.Results) == 0 {
			p.para("    ", "      ", "how it ended is not recorded")
		}
	}
}

// resultWords names what went wrong and what was measured.
func resultWords(o api.Outcome) string {
	s := ""
	if o.Error != "" {
		s = ": " + o.Error
	}
	keys := make([]string, 0, len(o.Evidence))
	for k := range o.Evidence {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	for i, k := range keys {
		keys[i] = strings.ReplaceAll(k, "_", " ") + " " + o.Evidence[k]
	}
	if len(keys) > 0 {
		s += " (" + strings.Join(keys, ", ") + ")"
	}
	return s
}
