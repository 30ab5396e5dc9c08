package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const statusHelp = `Shows what the agent of this machine sees: the cluster, its members, the services here,
the open findings and the latest decision.

Exit codes:
  0  no open finding above severity info
  1  failed, or the agent has not decided anything yet
  2  wrong usage
  3  no agent answers
  4  an open finding that someone should look at today (severity warn)
  5  an open finding that someone must look at now (severity page)`

func statusCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "show what the agent sees", Long: statusHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := api.NewClient(e.socket).Status(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				if err := printJSON(e.out, s); err != nil {
					return err
				}
			} else {
				printStatus(newPrinter(e.out, e.screen), s)
			}
			return statusCode(s)
		},
	}
	jsonFlag(cmd, e)
	return cmd
}

// statusCode is nil, or the exit code of the worst finding.
func statusCode(s api.Status) error {
	if s.Plan == nil {
		return api.ErrNotReady
	}
	code := exitOK
	for _, f := range s.Plan.Findings {
		switch f.Severity {
		case node.Info:
		case node.Warn:
			code = max(code, exitWarn)
		default: // page, or a severity of a newer agent
			code = exitPage
		}
	}
	if code == exitOK {
		return nil
	}
	return &codeError{code: code}
}

// field prints one labelled line of the status.
func field(p *printer, label, format string, args ...any) {
	p.para(fmt.Sprintf("%-10s", label), strings.Repeat(" ", 10), format, args...)
}

func printStatus(p *printer, s api.Status) {
	field(p, "Node", "%s, scope %s, pgpatrol %s, started %s ago", s.Node, s.Scope, s.Version, span(s.StartedAgo))
	field(p, "Policy", "adjust %s, revive %s, disrupt %s, expedite %s", s.Policy.Adjust, s.Policy.Revive, s.Policy.Disrupt, s.Policy.Expedite)
	if s.ConfigProblem != "" {
		field(p, "Config", "a newer file is not in force: %s", s.ConfigProblem)
	}
	for _, m := range s.Managers {
		words := "is here"
		if !m.Found {
			words = "does not seem to be here"
		}
		field(p, "Manager", "%s %s: %s", m.Name, words, m.Evidence)
	}
	if s.Snapshot != nil {
		printOrders(p, *s.Snapshot)
		printSelf(p, s.Snapshot.Self)
		printCluster(p, s.Now, s.Snapshot.DCS)
		for _, f := range s.Snapshot.Patroni {
			printPatroni(p, s.Now, f)
		}
		for _, f := range s.Snapshot.Services {
			printService(p, s.Now, f)
		}
	}
	if s.Plan == nil {
		field(p, "Decision", "none yet")
		return
	}
	printFindings(p, s.Now, s.Plan.Findings)
	field(p, "Decision", "%s (%s ago)", s.Plan.Summary, age(s.Now, s.Plan.At))
}

func printSelf(p *printer, s node.Self) {
	if s.JournalBroken != "" {
		field(p, "Journal", "cannot be relied on, so nothing is done: %s", s.JournalBroken)
	}
}

func printCluster(p *printer, now node.Instant, d node.DCS) {
	c := d.Cluster
	if !c.Known {
		field(p, "Cluster", "unknown: %s", why(c.Why))
		return
	}
	v := c.Value
	leader := "no leader"
	if v.Leader != nil {
		leader = "leader " + v.Leader.Name
	}
	if l := d.LeaderLease; l.Known && v.Leader != nil {
		leader += fmt.Sprintf(", its lease lives %s of %s more", span(node.LeaseLeft(l, now)), span(l.Value.Granted))
	}
	if v.Config.Pause {
		leader += ", paused"
	}
	field(p, "Cluster", "%s; ttl %s, loop_wait %s; seen %s ago at revision %d (%s)",
		leader, span(v.Config.TTL), span(v.Config.LoopWait), age(now, c.At), v.Revision, c.Source)
	if len(v.Members) == 0 {
		return
	}
	var rows [][]string
	for _, m := range v.Members {
		rows = append(rows, []string{m.Name, or(m.Role, "?"), or(m.State, "?"), timeline(m), lsn(m)})
	}
	p.table("  ", []string{"MEMBER", "ROLE", "STATE", "TIMELINE", "LSN"}, rows)
}

func timeline(m node.Member) string {
	if m.Timeline == 0 {
		return "-"
	}
	return fmt.Sprint(m.Timeline)
}

func lsn(m node.Member) string {
	if !m.HasLSN {
		return "-"
	}
	return fmt.Sprintf("%X/%X", m.LSN>>32, m.LSN&0xffffffff)
}

func printPatroni(p *printer, now node.Instant, f node.PatroniFacts) {
	unit := unitWords(f.Unit)
	live := "Patroni's answer unknown: " + why(f.Liveness.Why)
	if f.Liveness.Known {
		l := f.Liveness.Value
		switch {
		case l.Alive():
			live = "Patroni said it is alive"
		case l.Dead():
			live = fmt.Sprintf("Patroni did not answer (%s)", l.Outcome)
		default:
			live = fmt.Sprintf("Patroni answered with HTTP status %d", l.Status)
		}
		live += fmt.Sprintf(" %s ago", age(now, f.Liveness.At))
	}
	pg := "PostgreSQL unknown: " + why(f.Postgres.Why)
	if f.Postgres.Known {
		switch v := f.Postgres.Value; {
		case v.Writable():
			pg = "PostgreSQL runs and is writable"
		case v.Running:
			pg = "PostgreSQL runs and is not writable"
		default:
			pg = "PostgreSQL does not run"
		}
	}
	field(p, "Service", "%s", strings.Join(append([]string{fmt.Sprintf("%s: %s; %s; %s", f.Service, unit, live, pg)}, limitWords(f.Limits)...), "; "))
}

// limitWords says what a manager would refuse, or that this cannot be found out; nothing if it would refuse nothing.
func limitWords(l node.Fact[string]) []string {
	switch {
	case l.Known && l.Value != "":
		return []string{"not allowed: " + l.Value}
	case !l.Known && l.Why != "":
		return []string{"what is allowed is unknown: " + l.Why}
	}
	return nil
}

func unitWords(f node.Fact[service.Status]) string {
	if !f.Known {
		return "unit unknown: " + why(f.Why)
	}
	words := fmt.Sprintf("%s is %s", f.Value.Unit, f.Value.State)
	if f.Value.MainPID != 0 {
		words += fmt.Sprintf(" (main process %d)", f.Value.MainPID)
	}
	return words
}

// printService prints a service that is not a Patroni: its unit, what it does, and what its manager would refuse.
func printService(p *printer, now node.Instant, f node.ServiceFacts) {
	words := []string{unitWords(f.Unit)}
	switch {
	case f.Member.Source != "":
		words = append(words, memberWords(now, f.Member))
	case f.Through.Source != "":
		words = append(words, "through it "+outcomeWords(now, f.Through), "past it "+outcomeWords(now, f.Past))
	case f.Check.Source != "" && !f.Check.Known:
		words = append(words, "its check is unknown: "+why(f.Check.Why))
	case f.Check.Source != "":
		words = append(words, fmt.Sprintf("its check passed: %t, %s ago", f.Check.Value.OK, age(now, f.Check.At)))
	}
	words = append(words, limitWords(f.Limits)...)
	if f.Polled > 0 {
		words = append(words, fmt.Sprintf("its manager tells of no changes and is looked at every %s", span(f.Polled)))
	}
	field(p, "Service", "%s: %s", f.Service, strings.Join(words, "; "))
	if len(f.Others) == 0 {
		return
	}
	rows := [][]string{}
	for _, o := range f.Others {
		rows = append(rows, []string{o.URL, memberWords(now, o.Member)})
	}
	p.table("  ", []string{"PEER", "SEEN"}, rows)
}

func memberWords(now node.Instant, f node.Fact[probe.EtcdMember]) string {
	if !f.Known {
		return "unknown: " + why(f.Why)
	}
	m := f.Value
	if m.Outcome != probe.OutcomeAnswered {
		return fmt.Sprintf("no answer (%s), %s ago", m.Outcome, age(now, f.At))
	}
	health := "healthy"
	if !m.Healthy {
		health = "not healthy (" + or(m.Reason, string(m.Health)) + ")"
	}
	return fmt.Sprintf("%s, version %s, %s/%s, leader %s, answers in %s, %s ago", health, or(m.Version, "?"), m.ClusterID, m.MemberID,
		or(m.LeaderID, "none"), m.Took.Round(100*time.Microsecond), age(now, f.At))
}

func outcomeWords(now node.Instant, f node.Fact[probe.Hop]) string {
	if !f.Known {
		return "unknown: " + why(f.Why)
	}
	return fmt.Sprintf("%s %s ago", f.Value.Outcome, age(now, f.At))
}

func printFindings(p *printer, now node.Instant, fs []node.Finding) {
	if len(fs) == 0 {
		field(p, "Findings", "none")
		return
	}
	p.line("Findings")
	for _, f := range fs {
		printFinding(p, now, f)
	}
}

// printFinding prints one finding: severity, code, subject, since, text, advice.
func printFinding(p *printer, now node.Instant, f node.Finding) {
	p.line("  %s %s %s, since %s", severity(f.Severity), f.Code, f.Subject, age(now, f.Since))
	p.para("       ", "       ", "%s", f.Text)
	if f.DivergentBytes != nil {
		p.para("       ", "       ", "WAL written here that the leader does not have: %d bytes.", *f.DivergentBytes)
	}
	if f.Advice != "" {
		p.para("       ", "       ", "Advice: %s", f.Advice)
	}
}

func severity(s node.Severity) painted {
	text := fmt.Sprintf("%-4s", s)
	switch s {
	case node.Page:
		return painted{"1;31", text}
	case node.Warn:
		return painted{"33", text}
	case node.Info:
	}
	return painted{"36", text}
}

func why(s string) string { return or(s, "not observed yet") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
