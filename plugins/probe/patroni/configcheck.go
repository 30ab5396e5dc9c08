package patroni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

var _ probe.Prober[probe.ConfigCheck] = (*ConfigCheck)(nil)

// DefaultCheckTimeout bounds one run of the validator. It connects to every host of the DCS without a limit of its own,
// so a host that swallows packets makes it hang for minutes.
const DefaultCheckTimeout = 30 * time.Second

// firstTry is how long the validator may take on the configuration as it is. It takes a second, on a busy machine three.
const firstTry = 4 * time.Second

// apiElsewhere tells the validator that Patroni's API listens where nobody does. The validator connects to the address
// that the file names, also with --ignore-listen-port, and where Patroni has hung for a while its queue is full: the
// connect then takes two minutes, exactly when the verdict is wanted (lab, F04-late). What the file says of that one
// address is not judged then.
const apiElsewhere = "PATRONI_RESTAPI_LISTEN=127.0.0.1:1"

// Runner runs a command to its end; service.Runner is one.
type Runner interface {
	Run(ctx context.Context, c service.Command) (service.Output, error)
}

// CheckConfig says which file to check and with what.
type CheckConfig struct {
	File    string        // absolute path of Patroni's configuration file or directory
	Patroni string        // absolute path of Patroni's executable; empty to look in the usual places
	Env     []string      // what the unit sets for Patroni and the file needs, "PATRONI_...=value"
	Timeout time.Duration // DefaultCheckTimeout if 0
	Tree    probe.Tree    // with the file and the executable; the zero value is this machine's files
}

// Validate reports every path that is not absolute and every setting that is none.
func (c CheckConfig) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.File) {
		errs = append(errs, fmt.Errorf("file %q is not an absolute path", c.File))
	}
	if c.Patroni != "" && !filepath.IsAbs(c.Patroni) {
		errs = append(errs, fmt.Errorf("patroni %q is not an absolute path", c.Patroni))
	}
	for i, e := range c.Env {
		if name, _, found := strings.Cut(e, "="); !found || name == "" {
			errs = append(errs, fmt.Errorf("env[%d] is not NAME=value", i)) // the value may be a secret
		}
	}
	if c.Timeout < 0 {
		errs = append(errs, errors.New("timeout is negative"))
	}
	return errors.Join(errs...)
}

// CheckDeps is what a ConfigCheck needs.
type CheckDeps struct {
	Runner Runner
	User   func(context.Context) (string, error) // user that the unit runs as; nil for the agent's own
}

// ConfigCheck asks Patroni's own validator for its verdict on the configuration on disk. A broken file is a latent
// fault: the running Patroni keeps the old settings, and the next restart fails (FAULTS.md L22, F13).
//
// It starts a Python program that takes most of a second: call it when FileID has changed, not on every look.
type ConfigCheck struct {
	config CheckConfig
	deps   CheckDeps
	gate   *probe.Gate
}

// NewConfigCheck returns a prober for a configuration.
func NewConfigCheck(c CheckConfig, d CheckDeps) (*ConfigCheck, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure config check: %w", err)
	}
	if d.Runner == nil {
		return nil, errors.New("configure config check: needs a runner")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultCheckTimeout
	}
	return &ConfigCheck{config: c, deps: d, gate: probe.NewGate()}, nil
}

// FileID identifies the configuration on disk as the package's FileID does, without ever blocking longer than ctx.
func (c *ConfigCheck) FileID(ctx context.Context) (string, error) {
	return probe.Do(ctx, c.gate, func() (string, error) { return FileIDIn(c.config.Tree, c.config.File) })
}

// Probe implements probe.Prober. A file that is missing, irregular or unreadable for Patroni's user is a verdict. A file
// that changed meanwhile, a validator that does not work or does not end, and complaints that are all of the moment
// (see judge) are errors: the caller asks again later.
func (c *ConfigCheck) Probe(ctx context.Context) (probe.ConfigCheck, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	before, err := lookAt(ctx, c.gate, c.config.Tree, c.config.File)
	if err != nil {
		return probe.ConfigCheck{}, fmt.Errorf("look at configuration: %w", err)
	}
	check := probe.ConfigCheck{File: c.config.File, FileID: before.id, Name: before.name, Scope: before.scope}
	switch {
	case before.id == absentID:
		// The validator would pass over a missing file and judge its own environment instead.
		check.Problems = []string{"the file does not exist"}
		return check, nil
	case strings.HasPrefix(before.id, "irregular"):
		check.Problems = []string{"not a regular file"}
		return check, nil
	}
	out, err := c.run(ctx)
	if err != nil {
		return probe.ConfigCheck{}, err
	}
	after, err := lookAt(ctx, c.gate, c.config.Tree, c.config.File)
	if err != nil {
		return probe.ConfigCheck{}, fmt.Errorf("look at configuration: %w", err)
	}
	if after != before {
		return probe.ConfigCheck{}, errors.New("check configuration: the file changed meanwhile") // FAULTS.md F15
	}
	v, err := interpret(out)
	if err != nil {
		return probe.ConfigCheck{}, fmt.Errorf("check configuration: %w", err)
	}
	check.Valid = len(v.problems) == 0
	check.Problems, check.Unreachable = atMost(v.problems), atMost(v.unreachable)
	return check, nil
}

func (c *ConfigCheck) run(ctx context.Context) (service.Output, error) {
	program, err := findPatroni(c.config.Tree, c.config.Patroni)
	if err != nil {
		return service.Output{}, err
	}
	user := ""
	if c.deps.User != nil {
		if user, err = c.deps.User(ctx); err != nil {
			return service.Output{}, fmt.Errorf("find Patroni's user: %w", err)
		}
	}
	command := service.Command{
		Path: program,
		// Without --ignore-listen-port every healthy node fails: its port is in use, by Patroni (FAULTS.md L21).
		Args: []string{"--validate-config", "--ignore-listen-port", c.config.File},
		User: user, Env: c.config.Env, Limit: maxOutput,
	}
	first, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	out, err := c.deps.Runner.Run(first, command)
	if err == nil || first.Err() == nil || ctx.Err() != nil {
		return out, err
	}
	command.Env = append(slices.Clone(command.Env), apiElsewhere)
	return c.deps.Runner.Run(ctx, command)
}

// findPatroni returns the path of Patroni's executable.
func findPatroni(tree probe.Tree, configured string) (string, error) {
	places := []string{"/usr/bin/patroni", "/usr/local/bin/patroni", "/opt/patroni/bin/patroni"}
	if configured != "" {
		places = []string{configured}
	}
	for _, p := range places {
		info, err := tree.Stat(p)
		if err == nil && info.Mode().IsRegular() {
			return p, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find patroni: %w", err)
		}
	}
	return "", fmt.Errorf("find patroni: none in %s", strings.Join(places, ", "))
}

// maxOutput bounds what is kept of the validator's output. Tracebacks are long, and their end is what counts.
const maxOutput = 256 << 10

// Exit codes of the validator. Everything else is the code of something that failed before it.
const (
	exitValid   = 0
	exitInvalid = 1
)

// interpret turns the validator's output into a verdict, or into an error if it is none.
func interpret(out service.Output) (verdict, error) {
	lines := nonEmptyLines(out.Stderr)
	switch {
	case out.ExitCode == exitValid:
		return verdict{}, nil
	case out.ExitCode != exitInvalid:
		return verdict{}, fmt.Errorf("the validator ended with code %d%s", out.ExitCode, lastOf(lines))
	case len(lines) == 0:
		return verdict{}, errors.New("the validator ended with code 1 and said nothing")
	}
	exception, ours := parseTraceback(lines)
	switch {
	case len(exception) > 0 && !ours:
		return verdict{}, fmt.Errorf("the validator does not work: %s", exception[0])
	case len(exception) > 0:
		return verdict{problems: exception}, nil
	}
	v := judge(lines)
	if len(v.problems) == 0 && len(v.unsettled) > 0 {
		return verdict{}, fmt.Errorf("the file cannot be judged now: %s", v.unsettled[0])
	}
	return v, nil
}

// lastOf returns the last line for an error, redacted.
func lastOf(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return ": " + bounded(redactException(lines[len(lines)-1], false))
}
