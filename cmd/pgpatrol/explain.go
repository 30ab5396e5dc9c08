package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/runbook"
)

const explainHelp = `Shows the page of the manual on a finding (PATRONI_HUNG), a guard (lease-window), a class,
a mode or a verb: what it means, what pgpatrol does, what you should do, and why. Case
does not matter; where a name has two meanings, put its kind before it (guard-storm).
Without CODE it lists every page. It asks no agent and works on any machine.

Exit codes:
  0  shown
  2  wrong usage, or there is no such page`

func explainCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain [CODE]", Short: "explain a finding, a guard, a class, a mode or a verb", Long: explainHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError("unexpected argument %q: one page is shown at a time", args[1])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			topics := runbook.Topics()
			if len(args) == 1 {
				if topics = runbook.Find(args[0]); len(topics) == 0 {
					return usageError("there is no page on %q%s", args[0], meantPage(args[0]))
				}
			}
			pages, err := loadPages(topics)
			if err != nil {
				return err
			}
			p := newPrinter(e.out, e.screen)
			switch {
			case e.json:
				return printJSON(e.out, pages)
			case len(args) == 0:
				printContents(p, pages)
			default:
				printPages(p, pages)
			}
			return nil
		},
	}
	jsonFlag(cmd, e)
	return cmd
}

func loadPages(topics []runbook.Topic) ([]runbook.Page, error) {
	out := make([]runbook.Page, 0, len(topics))
	for _, t := range topics {
		p, err := runbook.Load(t)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// meantPage names the page that was probably meant, or says where all are listed.
func meantPage(word string) string {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
	topics := runbook.Topics()
	var known []string
	for _, t := range topics {
		known = append(known, plain(t.Code), string(t.Kind)+"-"+plain(t.Code))
	}
	i := slices.Index(known, nearest(plain(word), known))
	if i < 0 {
		return `; "pgpatrol explain" lists all`
	}
	return "; did you mean " + topics[i/2].Code + "?"
}

func printContents(p *printer, pages []runbook.Page) {
	titles := map[runbook.Kind]string{
		runbook.Finding: "Findings: what is wrong", runbook.Guard: "Guards: what refuses an action",
		runbook.Class: "Classes of actions, least disruptive first", runbook.Mode: "Modes of a policy, least bold first",
		runbook.Verb: "Verbs: what an action does",
	}
	var last runbook.Kind
	for i, page := range pages {
		if page.Kind != last {
			if i > 0 {
				p.line("")
			}
			p.line("%s", painted{"1", titles[page.Kind]})
			last = page.Kind
		}
		name := "  " + page.Code + strings.Repeat(" ", max(0, 21-len(page.Code)))
		p.para(name+" ", strings.Repeat(" ", 6), "%s", page.Summary)
	}
}

func printPages(p *printer, pages []runbook.Page) {
	for i, page := range pages {
		if i > 0 {
			p.line("")
		}
		p.para("", "  ", "%s (%s): %s", painted{"1", page.Code}, page.Kind, page.Summary)
		for _, s := range page.Sections {
			printSection(p, s)
		}
		if hasCommands(page) {
			p.line("")
			p.para("", "", "%s", "In commands CAPITALS stand for your own names, and patroni for the unit that the finding names; patronictl may need -c CONFIG.")
		}
	}
}

func hasCommands(page runbook.Page) bool {
	return slices.ContainsFunc(page.Sections, func(s runbook.Section) bool {
		return slices.ContainsFunc(s.Blocks, func(b runbook.Block) bool { return b.Form == runbook.Command })
	})
}

func printSection(p *printer, s runbook.Section) {
	p.line("\n%s", painted{"1", s.Title})
	for i, b := range s.Blocks {
		// Commands and items stand close to the words that introduce them.
		if i > 0 && (b.Form == runbook.Paragraph || b.Form == runbook.Item && s.Blocks[i-1].Form == runbook.Command) {
			p.line("")
		}
		printBlock(p, b)
	}
}

func printBlock(p *printer, b runbook.Block) {
	switch b.Form {
	case runbook.Command:
		p.line("      %s", b.Text)
	case runbook.Item:
		p.para("  - ", "    ", "%s", b.Text)
	case runbook.Paragraph:
		p.para("  ", "  ", "%s", b.Text)
	}
}
