package patroni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

var _ probe.Prober[probe.LogMark] = (*LogMark)(nil)

// How much of a log is read. A quiet Patroni writes a line or two in ten seconds, so this is most of a day; one that
// has just been bootstrapped, which is when it matters, has written less.
const (
	logLines = 5000
	logBytes = 4 << 20
)

// MarkConfig says where Patroni's log is.
type MarkConfig struct {
	Unit string     // unit whose journal is read
	File string     // absolute path of Patroni's own log file, instead of the journal
	Tree probe.Tree // with the file; the zero value is this machine's files
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}$`) // no option: it does not begin with a dash

// Validate reports whether there is exactly one place, and whether it can be one.
func (c MarkConfig) Validate() error {
	switch {
	case (c.Unit == "") == (c.File == ""):
		return errors.New("needs either a unit or a file")
	case c.Unit != "" && !unitName.MatchString(c.Unit):
		return fmt.Errorf("unit %q is not a unit name", c.Unit)
	case c.File != "" && !filepath.IsAbs(c.File):
		return fmt.Errorf("file %q is not an absolute path", c.File)
	}
	return nil
}

// MarkDeps is what a LogMark needs.
type MarkDeps struct {
	Runner    Runner                                // runs journalctl; not needed with a file
	DataDirID func(context.Context) (string, error) // identity of the data directory now
}

// LogMark looks in Patroni's log for how the data directory came to be. The log forgets: whoever asks keeps a mark that
// was found for as long as the data directory is the same.
type LogMark struct {
	config MarkConfig
	deps   MarkDeps
	gate   *probe.Gate
}

// NewLogMark returns a prober for one Patroni's log.
func NewLogMark(c MarkConfig, d MarkDeps) (*LogMark, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure log probe: %w", err)
	}
	if d.DataDirID == nil || (c.Unit != "" && d.Runner == nil) {
		return nil, errors.New("configure log probe: needs the data directory's identity, and a runner for a unit")
	}
	return &LogMark{config: c, deps: d, gate: probe.NewGate()}, nil
}

// Probe implements probe.Prober. A log without a line, or one that this user may not read, is an error: a Patroni that
// runs always says something.
func (l *LogMark) Probe(ctx context.Context) (probe.LogMark, error) {
	if err := ctx.Err(); err != nil {
		return probe.LogMark{}, err
	}
	before, err := l.deps.DataDirID(ctx)
	if err != nil {
		return probe.LogMark{}, fmt.Errorf("identify data directory: %w", err)
	}
	var lines []string
	if l.config.File != "" {
		lines, err = probe.Do(ctx, l.gate, func() ([]string, error) { return tail(l.config.Tree, l.config.File) })
	} else {
		lines, err = l.journal(ctx)
	}
	if err == nil && len(lines) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return probe.LogMark{}, fmt.Errorf("read Patroni's log: %w", err)
	}
	after, err := l.deps.DataDirID(ctx)
	if err != nil {
		return probe.LogMark{}, fmt.Errorf("identify data directory: %w", err)
	}
	if after != before {
		return probe.LogMark{}, errors.New("read Patroni's log: the data directory was replaced meanwhile")
	}
	line := parseMark(lines)
	return probe.LogMark{DataDirID: before, SingleUserOnCopy: line != "", Line: bounded(redactText(line))}, nil
}

// journal returns the unit's newest lines from the journal, oldest first. The journal is asked for the newest first, so
// that what a bound cuts off is old.
func (l *LogMark) journal(ctx context.Context) ([]string, error) {
	out, err := l.deps.Runner.Run(ctx, service.Command{
		Path: "journalctl",
		Args: []string{
			"--unit=" + l.config.Unit, "--output=cat", "--no-pager", "--reverse", "--lines=" + strconv.Itoa(logLines),
		},
		Limit: logBytes,
	})
	if err != nil {
		return nil, err
	}
	said := nonEmptyLines(out.Stderr)
	if out.ExitCode != 0 {
		return nil, fmt.Errorf("journalctl ended with code %d%s", out.ExitCode, lastOf(said))
	}
	for _, s := range said {
		// It shows what it may and calls the rest a hint.
		if strings.Contains(s, "insufficient permissions") || strings.Contains(s, "not seeing messages") {
			return nil, errors.New("this user may not read all of the journal (group systemd-journal may)")
		}
	}
	lines := nonEmptyLines(out.Stdout)
	lines = slices.DeleteFunc(lines, func(s string) bool { return strings.HasPrefix(s, "-- ") })
	slices.Reverse(lines)
	return lines, nil
}

// tail returns the last lines of a regular file.
func tail(tree probe.Tree, path string) ([]string, error) {
	f, err := tree.OpenFile(path, syscall.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-logBytes), logBytes))
	if err != nil {
		return nil, err
	}
	lines := nonEmptyLines(b)
	return lines[max(0, len(lines)-logLines):], nil
}
