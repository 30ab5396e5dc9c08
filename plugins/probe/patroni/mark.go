package patroni

import (
	"regexp"
	"strings"
)

// Texts of Patroni's log, the same in 4.0.7 and 4.1.5 (patroni/ha.py, postgresql/__init__.py, postgresql/bootstrap.py).
const (
	textCrashRecovery = "doing crash recovery in a single user mode"
	textReplicaMade   = "replica has been created using "
	textNewCluster    = "initialized a new cluster"
	textRemoved       = "Removing data directory: "
	textControlState  = "Database cluster state:"
)

var (
	// textCopied is how Patroni says that this data directory is a fresh copy of another member's. Whether it came
	// from the leader, from a replica or from a backup does not matter.
	textCopied = regexp.MustCompile(`bootstrapped (?:from (?:leader|replica) '|clone from remote member |\(without leader\))`)
	// textLeads is how Patroni says that it writes: from then on the data directory is no mere copy any more. A
	// standby leader leads but does not write.
	textLeads = regexp.MustCompile(`\), the leader with the lock|promoted self to leader |continue to run as primary `)
	// serverLine is a line of PostgreSQL's own log, which goes to the same place: two spaces after the severity. Clients
	// choose what stands in it.
	serverLine = regexp.MustCompile(`\b(?:DEBUG[1-5]?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|DETAIL|HINT|CONTEXT|STATEMENT|QUERY|LOCATION):  `)
)

// parseMark looks through Patroni's log, oldest line first, for crash recovery in single-user mode on a data directory
// that had just been copied from another member (FAULTS.md L32, F105). It returns the line, empty if there is none.
//
// Patroni before 4.1.5 takes a fresh base backup whose first start fails for a primary that crashed: the backup's
// control file says "in production". Recovery then ignores the backup's label and ends with a checkpoint of its own on
// the leader's timeline: the copy has diverged, and nothing that Patroni says later shows it.
//
// What does not count: recovery of a directory that has led since it was copied, which is what the procedure is for;
// and recovery of one that has been a standby ("in archive recovery"), which Patroni does before pg_rewind repairs it.
// The state does not have to come between copy and recovery: Patroni logs the control file before every recovery, at
// the same level. A copy made later clears the mark; leading later does not, the others' data is still missing.
func parseMark(lines []string) string {
	copied, state, mark := false, "", ""
	for _, line := range lines {
		if strings.HasPrefix(line, "\t") || strings.Contains(line, ":  ") && serverLine.MatchString(line) {
			continue
		}
		_, control, hasControl := strings.Cut(line, textControlState)
		switch {
		case strings.Contains(line, textCrashRecovery):
			if copied && mark == "" && state != "in archive recovery" {
				mark = line
			}
		case strings.Contains(line, textReplicaMade), textCopied.MatchString(line):
			if !copied || mark != "" {
				state, mark = "", ""
			}
			copied = true
		case strings.Contains(line, textRemoved), strings.Contains(line, textNewCluster):
			copied, state, mark = false, "", ""
		case textLeads.MatchString(line):
			copied = false
		case hasControl:
			state = controlState(control)
		}
	}
	return mark
}

// controlState returns the state at the beginning of a text. In a log in JSON the rest of the control file follows on
// the same line, after an escaped line break.
func controlState(s string) string {
	s, _, _ = strings.Cut(s, `\n`)
	return strings.Trim(s, ` "`)
}
