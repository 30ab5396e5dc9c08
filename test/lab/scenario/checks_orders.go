package scenario

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
)

// refusesSaying demands that an action for that finding is refused by that guard, in words that hold all of those.
func refusesSaying(code node.Code, guard node.Guard, words ...string) func(spoken) (bool, string) {
	refused := refuses(string(code), string(guard))
	return func(s spoken) (bool, string) {
		ok, text := refused(s)
		for _, w := range words {
			ok = ok && strings.Contains(text, w)
		}
		return ok, text
	}
}

// Answered demands that a command whose answer the scenario kept under that mark ended with that code, and that what it
// printed holds every word.
func Answered(mark string, code int, words ...string) Check {
	return Check{fmt.Sprintf("%s: exit code %d and why", mark, code), func(e Evidence) Verdict {
		_, text, ok := marked(e, mark)
		if !ok {
			return verdict(false, "not asked")
		}
		got, printed, _ := strings.Cut(text, " ")
		ok = got == strconv.Itoa(code)
		for _, w := range words {
			ok = ok && strings.Contains(printed, w)
		}
		return verdict(ok, "exit code %s: %s", got, printed)
	}}
}

// NotBefore demands that nothing was begun before the mark, neither by the journals nor by what systemd shows of Patroni.
func NotBefore(mark string) Check {
	return Check{"nothing done before " + mark, func(e Evidence) Verdict {
		at, _, ok := marked(e, mark)
		if !ok {
			return verdict(false, "no mark %q", mark)
		}
		for _, l := range journals(e) {
			if l.Kind == "intent" && l.Wall.Before(at) {
				return verdict(false, "intent on %s %s before it", l.node, round(at.Sub(l.Wall)))
			}
		}
		until := judge.Window{From: e.Window.From, To: at}
		for _, n := range databases() {
			if lives := len(judge.Invocations(e.Records, until, n, patroniUnit)); lives != 1 {
				return verdict(false, "%d lives of Patroni on %s before it", lives, n)
			}
		}
		return verdict(true, "held back for %s", round(at.Sub(e.Fault)))
	}}
}
