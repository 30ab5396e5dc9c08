package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// excerpt is the part of a seed's script that happens: the numbers of its faults, and how long each lasts, 0 for as long
// as it was drawn. Nil is the whole script. Everything else of the seed stays as it is.
type excerpt map[int]time.Duration

// parseExcerpt reads what String writes.
func parseExcerpt(s string) (excerpt, error) {
	x := excerpt{}
	if s == "none" {
		return x, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		number, lasts, timed := strings.Cut(part, ":")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not the number of a fault", number)
		}
		if _, twice := x[n]; twice {
			return nil, fmt.Errorf("fault %d is there twice", n)
		}
		if x[n] = 0; !timed {
			continue
		}
		if x[n], err = time.ParseDuration(lasts); err != nil {
			return nil, err
		}
		if x[n] <= 0 {
			return nil, errors.New("a fault lasts longer than nothing")
		}
	}
	return x, nil
}

func (x excerpt) String() string {
	if len(x) == 0 {
		return "none"
	}
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(x)) {
		part := strconv.Itoa(n)
		if x[n] > 0 {
			part += ":" + x[n].String()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

// of returns what is left of a script.
func (x excerpt) of(script []fault) []fault {
	if x == nil {
		return script
	}
	var out []fault
	for _, f := range script {
		lasts, kept := x[f.number]
		if lasts > 0 {
			f.lasts = lasts
		}
		if kept {
			out = append(out, f)
		}
	}
	return out
}

// beyond returns a number that the script does not have, 0 if there is none.
func (x excerpt) beyond(script []fault) int {
	if n := slices.Max(append(slices.Collect(maps.Keys(x)), 0)); n > len(script) {
		return n
	}
	return 0
}

// scriptOf returns what happens in a seed.
func scriptOf(seed uint64) []fault {
	script, _ := draw(newWorld(seed, false, nil))
	return script
}

// list prints a script so that -only can name its faults.
func list(w io.Writer, indent string, script []fault) {
	for _, f := range script {
		on := fmt.Sprintf("another machine (pick %d)", f.pick)
		if f.leader {
			on = "the leader"
		}
		fmt.Fprintf(w, "%sfault %d  %7.3fs  %s on %s%s\n", indent, f.number, f.at.Seconds(), f.kind, on, f.span())
	}
}

// momentary are the faults without a length: what was drawn for it changes nothing.
var momentary = map[string]bool{
	"patroni-stopped": true, "patroni-killed": true, "start-limit": true, "loop-stuck": true, "rest-refused": true,
	"postmaster-killed": true, "agents-killed-soon-after-act": true, "operator-stop": true, "operator-mask": true,
	"operator-disable": true, "operator-restart": true, "policy-observe": true, "agent-crash-loop": true,
	"postmaster-killed-after-action": true, "restart-no": true, "watchdog-device": true, "storm": true,
	"flapping-leader": true, "switchover": true, "keys-deleted": true,
}

// span says how long a fault lasts, if it does.
func (f fault) span() string {
	if momentary[f.kind] {
		return ""
	}
	return " for " + f.lasts.String()
}
