package conformance

import (
	"fmt"
	"io"
	"slices"
)

// Report prints what came of every comparison and returns how many scripts do not agree.
func Report(w io.Writer, all []Comparison) int {
	bad := 0
	for _, c := range all {
		verdict := "agrees"
		if !c.Agrees() {
			verdict = "DOES NOT AGREE"
			bad++
		}
		fmt.Fprintf(w, "%-26s %-5s %s (%d runs of the lab, %d of the model)\n", c.Script.Name, c.Script.Fault, verdict, len(c.Lab), len(c.Model))
		for _, k := range c.Known {
			fmt.Fprintf(w, "    known, only in the %s: %s: %s\n", k.Only, k.Event, k.Why)
		}
		for _, k := range c.Stale {
			fmt.Fprintf(w, "    called known, but not there any more, only in the %s: %s\n", k.Only, k.Event)
		}
		if c.Agrees() {
			continue
		}
		fmt.Fprintf(w, "    script: %s\n    lab:\n", c.Script.Title())
		for _, e := range c.LabEvents {
			fmt.Fprintf(w, "        %s\n", e)
		}
		fmt.Fprintf(w, "    differences, lab | model:\n")
		for _, line := range counted(slices.Concat(c.Lab...), slices.Concat(c.Model...)) {
			fmt.Fprintf(w, "        %s\n", line)
		}
	}
	fmt.Fprintf(w, "%d scripts, %d agree, %d do not\n", len(all), len(all)-bad, bad)
	return bad
}

// counted lists each difference once.
func counted(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}
