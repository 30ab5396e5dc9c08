package patroni

import (
	"fmt"
	"regexp"
	"strings"
)

// Bounds of what is kept of the validator's output.
const (
	maxProblems = 20
	maxLine     = 300 // characters
)

const redacted = "<redacted>"

// verdict is what the validator's output means.
type verdict struct {
	problems    []string // faults of the file
	unreachable []string // a DCS that the validator could not connect to
	unsettled   []string // faults of the moment: nobody can judge the file now
}

// Patterns of the validator's lines. A complaint is "path value complaint" (patroni/validator.py, Result.__repr__).
var (
	complaintLine  = regexp.MustCompile(`^([A-Za-z0-9_]+(?:\.[A-Za-z0-9_-]+)*) (.*)$`)
	complaintStart = regexp.MustCompile(`didn't pass validation|is not (?:a|an) [a-z]+$|is not defined\.$|is an empty list$|is not unknown type$`)
	dcsPath        = regexp.MustCompile(`^(?:etcd3?|consul|zookeeper|exhibitor|raft)(?:\.|$)`)
	noConnection   = regexp.MustCompile(`didn't pass validation: .*(?:is not reachable|\[Errno -\d+\]|timed out)`)
	noNameNow      = regexp.MustCompile(`\[Errno -3\]`) // "Temporary failure in name resolution"
	halfDataDir    = regexp.MustCompile(`^postgresql\.data_dir .*(?:doesn't look like a valid data directory|data dir for the cluster is not empty, but doesn't contain)`)
	secretPath     = regexp.MustCompile(`(?i)pass|secret|token|auth|credential|key`)
	plainValue     = regexp.MustCompile(`^[A-Za-z0-9_.,:/*\[\]-]{0,128}$`)
)

// judge sorts the lines with which the validator ended without success.
//
// The validator walks the whole schema and lists every complaint, so complaints about a DCS alone prove that all the
// rest is well. It tries to connect to every host of the DCS and complains if one of three is down; the running
// Patroni, and one that starts, just waits for them. Such lines are no fault of the file: to treat them as one would
// forbid every restart and page somebody for the wrong reason whenever etcd is in trouble. Likewise a data directory
// that a base backup is filling fails the check, and a name that cannot be resolved for the moment.
func judge(lines []string) verdict {
	var v verdict
	for _, line := range lines {
		clean := cleanLine(line)
		switch {
		case dcsPath.MatchString(line) && noConnection.MatchString(line):
			v.unreachable = append(v.unreachable, clean)
		case halfDataDir.MatchString(line), noNameNow.MatchString(line):
			v.unsettled = append(v.unsettled, clean)
		default:
			v.problems = append(v.problems, clean)
		}
	}
	return v
}

// cleanLine makes one complaint fit for logs and pages. The validator repeats the value that it does not like, so a
// password that is a number or stands in the wrong place would get out (testdata/validate/userattr, values).
func cleanLine(line string) string {
	m := complaintLine.FindStringSubmatch(line)
	if m == nil {
		return bounded(redactText(line))
	}
	path, rest := m[1], m[2]
	secret := secretPath.MatchString(path)
	if secret {
		all := complaintStart.FindAllStringIndex(rest, -1)
		if len(all) == 0 {
			return bounded(path + " " + redacted)
		}
		last := all[len(all)-1]
		return bounded(path + " " + redacted + " " + rest[last[0]:last[1]])
	}
	start := complaintStart.FindStringIndex(rest)
	if start == nil {
		return bounded(path + " " + redactText(strings.TrimSpace(rest)))
	}
	value, complaint := strings.TrimSpace(rest[:start[0]]), rest[start[0]:]
	if !plainValue.MatchString(value) {
		value = redacted
	}
	return bounded(strings.Join(strings.Fields(path+" "+value+" "+redactText(complaint)), " "))
}

// Patterns of secrets in other texts.
var (
	assignment = regexp.MustCompile(`(?i)((?:pass(?:word|wd)?|secret|token|key)['"]?\s*[:=]\s*)("[^"]*"|'[^']*'|\S+)`)
	userInfo   = regexp.MustCompile(`://[^/@\s]+@`)
	quoted     = regexp.MustCompile(`'((?:[^'\\]|\\.)*)'`)
	harmless   = regexp.MustCompile(`^(?:.{0,2}|\\.|<[a-z ]+>|str|int|float|bool|list|dict|NoneType|get|items|keys|values|split|utf-8|ascii)$`)
)

func redactText(s string) string {
	s = assignment.ReplaceAllString(s, "${1}"+redacted)
	return userInfo.ReplaceAllString(s, "://"+redacted+"@")
}

// redactException removes the words that an exception quotes from the file: YAML takes a password that begins with an
// asterisk for an alias and repeats it (testdata/validate/alias). Paths are quoted too, but only by OSError.
func redactException(line string, quotesPath bool) string {
	line = redactText(line)
	if quotesPath {
		return line
	}
	return quoted.ReplaceAllStringFunc(line, func(q string) string {
		if harmless.MatchString(q[1 : len(q)-1]) {
			return q
		}
		return "'" + redacted + "'"
	})
}

var (
	exceptionLine = regexp.MustCompile(`^[A-Za-z_][\w.]*(?::|$)`)
	fileError     = regexp.MustCompile(`^(?:PermissionError|FileNotFoundError|IsADirectoryError|OSError):`)
	// notTheFile are the exceptions of a Patroni that does not work whatever its file says.
	notTheFile = regexp.MustCompile(`^(?:ImportError|ModuleNotFoundError|MemoryError|KeyboardInterrupt|BlockingIOError|SystemError|` +
		`(?:[\w.]+\.)?(?:DistributionNotFound|PackageNotFoundError|VersionConflict))(?::|$)`)
)

// parseTraceback returns the end of the last traceback among the lines: the exception with its explanation, redacted.
// ours is false if the exception has nothing to do with the file. No traceback gives no lines.
func parseTraceback(lines []string) (end []string, ours bool) {
	last := -1
	for i, line := range lines {
		if strings.HasPrefix(line, "Traceback (most recent call last):") {
			last = i
		}
	}
	if last < 0 {
		return nil, true
	}
	for i, line := range lines[last+1:] {
		if !exceptionLine.MatchString(line) {
			continue
		}
		quotesPath := fileError.MatchString(line)
		for _, l := range lines[last+1+i:] {
			end = append(end, bounded(redactException(strings.TrimSpace(l), quotesPath)))
		}
		return end, !notTheFile.MatchString(line)
	}
	return []string{"the validator ended with a traceback that was cut off"}, true
}

// bounded makes a text printable and cuts it to the length of a line.
func bounded(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxLine {
		s = string(r[:maxLine]) + "..."
	}
	return s
}

// atMost keeps the first maxProblems lines and says how many more there were.
func atMost(lines []string) []string {
	if len(lines) <= maxProblems {
		return lines
	}
	return append(lines[:maxProblems:maxProblems], fmt.Sprintf("... and %d more", len(lines)-maxProblems))
}

// nonEmptyLines splits the validator's output.
func nonEmptyLines(b []byte) []string {
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(string(b), "?")) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
