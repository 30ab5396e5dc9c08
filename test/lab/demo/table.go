package demo

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// half is one of the two runs: what the witnesses saw, and what the agents' journals say of their reasons.
type half struct {
	leader   string // node that led when the fault came
	unit     string // Patroni's unit
	fault    time.Time
	window   judge.Window
	recs     []record.Record
	journals map[string][]byte // by node; nil without pgpatrol
}

// newHalf finds the fault and the end of the observation among the marks.
func newHalf(leader string, recs []record.Record, journals map[string][]byte) half {
	h := half{leader: leader, unit: patroniUnit, recs: recs, journals: journals}
	for _, r := range recs {
		switch {
		case r.Mark == nil:
		case r.Mark.Name == "fault":
			h.fault, h.window.From = r.At, r.At
		case r.Mark.Name == "end":
			h.window.To = r.At
		}
	}
	return h
}

// row is one line of the table.
type row struct {
	name string
	text func(half) string
}

func rows() []row {
	return []row{
		{"longest time without a write", half.gap},
		{"errors that the writer got", half.writerErrors},
		{"writable primaries at once", half.primaries},
		{"failovers", half.failovers},
		{"PostgreSQL on the old leader", half.postmaster},
		{"acknowledged writes lost", half.lost},
		{"what pgpatrol did", half.did},
		{"why", half.why},
		{"what came of it", half.outcome},
		{"what systemd saw", half.systemd},
	}
}

func (h half) gap() string {
	if g := judge.LongestGap(h.recs, h.window).Length(); g > 0 {
		return short(g)
	}
	return "under 0.2 s"
}

func (h half) writerErrors() string {
	total := 0
	for _, n := range judge.Errors(h.recs, h.window) {
		total += n
	}
	return fmt.Sprint(total)
}

func (h half) primaries() string {
	spans := judge.SecondPrimary(h.recs, h.window)
	switch {
	case !h.seen():
		return "not seen"
	case len(spans) == 0:
		return "1"
	}
	text := fmt.Sprintf("2, for %s", short(judge.Total(spans)))
	if h.window.To.Sub(spans[len(spans)-1].To) < judge.StateHolds {
		text += ", until this demonstration ended it"
	}
	return text
}

// seen reports whether any PostgreSQL was seen to accept writes: without that nothing follows from seeing no second.
func (h half) seen() bool { return len(judge.Writable(h.recs, h.window)) > 0 }

func (h half) failovers() string {
	if !h.seen() {
		return "not seen"
	}
	n := judge.Failovers(h.recs, h.window)
	if holders := judge.Holders(h.recs, h.window); len(holders) > 1 {
		return fmt.Sprintf("%d (%s)", n, strings.Join(holders, " to "))
	}
	return fmt.Sprint(n)
}

func (h half) postmaster() string {
	switch n := len(judge.Postmasters(h.recs, h.window, h.leader)); n {
	case 0:
		return "not seen"
	case 1:
		return "same postmaster, never restarted"
	default:
		return fmt.Sprintf("restarted: %d postmasters", n)
	}
}

func (h half) lost() string {
	t := judge.Totals(h.recs)
	if t == nil || !t.Counted {
		return "could not be counted"
	}
	return fmt.Sprintf("%d of %d", t.Lost, t.Acknowledged)
}

func (h half) systemd() string {
	lives := judge.Invocations(h.recs, h.window, h.leader, h.unit)
	switch len(lives) {
	case 0:
		return "not seen"
	case 1:
		return fmt.Sprintf("%s active all the time: nothing to heal", h.unit)
	case 2:
		return fmt.Sprintf("InvocationID of %s changed once, after %s (NRestarts +%d)", h.unit, short(lives[1].FirstSeen.Sub(h.fault)),
			judge.Restarts(h.recs, h.window, h.leader, h.unit))
	default:
		return fmt.Sprintf("InvocationID of %s changed %d times", h.unit, len(lives)-1)
	}
}

func (h half) did() string {
	if h.journals == nil {
		return "not there"
	}
	text := h.each(func(a act) string {
		return fmt.Sprintf("%s of %s on %s, %s after the fault", a.verb, a.unit, a.node, short(a.at.Sub(h.fault)))
	})
	return cmp.Or(text, "nothing")
}

func (h half) why() string {
	return h.each(func(a act) string { return a.finding + ": " + cmp.Or(a.diagnosis, a.reason) })
}

func (h half) outcome() string {
	return h.each(func(a act) string { return a.result })
}

// each puts what f says of every action in one text, in the order of time.
func (h half) each(f func(act) string) string {
	var out []string
	for _, a := range acts(h.journals) {
		out = append(out, f(a))
	}
	return strings.Join(out, "; then ")
}

// act is one action as an agent's journal tells it.
type act struct {
	at               time.Time
	node, verb, unit string
	finding          string // code
	diagnosis        string // text of that finding
	reason           string // what the action is good for
	result           string // the last that was recorded, empty for none
}

// line is what the table needs of a line of a journal.
type line struct {
	Seq     uint64    `json:"seq"`
	Wall    time.Time `json:"wall"`
	Kind    string    `json:"kind"`
	Finding struct {
		Code string `json:"code"`
		Text string `json:"text"`
	} `json:"finding"`
	Action struct {
		Verb    string `json:"verb"`
		Unit    string `json:"unit"`
		Finding string `json:"finding"`
		Reason  string `json:"reason"`
	} `json:"action"`
	Result struct {
		Intent uint64 `json:"intent"`
		Result string `json:"result"`
		Text   string `json:"error"` // of a verification: what was seen
	} `json:"result"`
}

// acts reads what was begun and how it ended from the agents' journals, in the order of time. Lines of other kinds and
// lines that cannot be read are passed over: the table shows reasons, the witnesses are what judges.
func acts(journals map[string][]byte) []act {
	var all []act
	for node, text := range journals {
		seqs := map[uint64]int{} // of the intent, to its place in all
		texts := map[string]string{}
		for text := range strings.Lines(string(text)) {
			var l line
			if json.Unmarshal([]byte(text), &l) != nil {
				continue
			}
			switch l.Kind {
			case "finding":
				texts[l.Finding.Code] = l.Finding.Text
			case "intent":
				seqs[l.Seq] = len(all)
				all = append(all, act{
					at: l.Wall, node: node, verb: l.Action.Verb, unit: l.Action.Unit,
					finding: l.Action.Finding, diagnosis: texts[l.Action.Finding], reason: l.Action.Reason,
				})
			case "result":
				if i, ok := seqs[l.Result.Intent]; ok {
					all[i].result = strings.TrimSuffix(l.Result.Result+": "+l.Result.Text, ": ")
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b act) int { return a.at.Compare(b.at) })
	return all
}

// printTable writes the two runs side by side, in the given number of columns.
func printTable(w io.Writer, width int, without, with half) {
	const first = 29
	if width == 0 {
		width = 100 // no terminal
	}
	width = min(max(width, 80), 132)
	second := (width - first - 4) * 2 / 5
	third := width - first - 4 - second
	put := func(a, b, c string) {
		bs, cs := wrap(b, second), wrap(c, third)
		for i := range max(len(bs), len(cs)) {
			text := pad(a, first) + "  " + pad(at(bs, i), second) + "  " + at(cs, i)
			fmt.Fprintln(w, strings.TrimRight(text, " "))
			a = ""
		}
	}
	rule := strings.Repeat("-", width)
	put("", "without pgpatrol", "with pgpatrol")
	fmt.Fprintln(w, rule)
	for _, r := range rows() {
		put(r.name, r.text(without), r.text(with))
	}
	fmt.Fprintln(w, rule)
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s)))
}

// wrap breaks a text between words into lines of at most n characters; a longer word has a line of its own.
func wrap(text string, n int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := lines[len(lines)-1]
		switch {
		case last == "":
			lines[len(lines)-1] = word
		case utf8.RuneCountInString(last)+1+utf8.RuneCountInString(word) <= n:
			lines[len(lines)-1] = last + " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}
