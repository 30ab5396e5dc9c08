package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// DefaultLimit is how many bytes of each output stream a [Runner] keeps unless the command says otherwise.
const DefaultLimit = 64 << 10

// searchPath is where commands without a slash are looked for, and the PATH that they see. The agent's own PATH is
// ignored: it depends on who started the agent.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// waitDelay bounds how long output is awaited from descendants that keep the streams open after the command ended.
const waitDelay = 2 * time.Second

// Command is one program to run. There is no shell anywhere: Args reach the program as they are.
type Command struct {
	Path  string   // absolute path, or a bare name that is looked up in the system's usual folders
	Args  []string // arguments without the program's own name; must not hold secrets, other users can read them
	User  string   // OS user to run as; empty for the agent's own. Switching needs root
	Dir   string   // working directory; empty for "/"
	Env   []string // additions to the minimal environment (PATH, LANG, HOME), "KEY=value"
	Limit int      // bytes kept of each stream, DefaultLimit if 0
	// Survives lets the command go on when ctx ends, and when this program does. Its output is thrown away: a pipe would
	// end it, and any daemon that it leaves behind with the pipe, at the first write after this program is gone.
	Survives bool
}

// Output is what a finished command left behind.
type Output struct {
	Stdout   []byte
	Stderr   []byte
	Dropped  int64 // bytes of both streams beyond the limit, read and thrown away
	ExitCode int   // the exit code; 128+n if the command died of signal n
}

// Runner is the one place where this program runs other programs. The zero value is ready to use and safe for
// concurrent use. It deliberately offers no stdin, no streaming and no shell.
type Runner struct{}

// Run runs c to its end. A non-zero exit code is not an error: what it means is the caller's knowledge. When ctx ends
// first, the command's whole process group is killed, unless c survives, and the error wraps ctx's. ErrPermission is
// returned if c.User is another user and the agent is not root. Errors name the program but not its arguments.
func (Runner) Run(ctx context.Context, c Command) (Output, error) {
	path, err := lookPath(c.Path)
	if err != nil {
		return Output{}, fmt.Errorf("run %q: %w", c.Path, err)
	}
	limit := c.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	stdout, stderr := capped{limit: limit}, capped{limit: limit}
	life := ctx
	if c.Survives {
		life = context.WithoutCancel(ctx)
	}
	cmd := exec.CommandContext(life, path, c.Args...)
	if !c.Survives {
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
	}
	cmd.WaitDelay = waitDelay
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	home, err := isolate(cmd, c.User)
	if err != nil {
		return Output{}, fmt.Errorf("run %q as %q: %w", c.Path, c.User, err)
	}
	cmd.Env = append([]string{"PATH=" + searchPath, "LANG=C.UTF-8", "HOME=" + home}, c.Env...)

	if c.Survives {
		return outlive(ctx, c.Path, cmd)
	}
	err = cmd.Run()
	return result(ctx, c.Path, cmd, Output{Stdout: stdout.kept, Stderr: stderr.kept, Dropped: stdout.dropped + stderr.dropped}, err)
}

// outlive runs a command that ctx does not end. The goroutine that waits for it ends with the command.
func outlive(ctx context.Context, name string, cmd *exec.Cmd) (Output, error) {
	if err := ctx.Err(); err != nil {
		return Output{}, fmt.Errorf("run %q: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Run() }()
	select {
	case err := <-ended:
		return result(context.WithoutCancel(ctx), name, cmd, Output{}, err)
	case <-ctx.Done():
		return Output{}, fmt.Errorf("run %q: %w", name, ctx.Err())
	}
}

// result adds the exit code of a command that has ended to what it left behind, and says what of its end is an error.
func result(ctx context.Context, name string, cmd *exec.Cmd, out Output, err error) (Output, error) {
	if cmd.ProcessState != nil {
		out.ExitCode = exitCode(cmd.ProcessState)
	}
	if ctx.Err() != nil && err != nil {
		return out, fmt.Errorf("run %q: %w", name, ctx.Err())
	}
	// ErrWaitDelay: the command ended well but left a daemon behind that holds its output, as init scripts do.
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return out, fmt.Errorf("run %q: %w", name, err)
	}
	return out, nil
}

// lookPath resolves a bare name in searchPath. Relative paths with a slash are refused, they depend on the directory.
func lookPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", errors.New("not an absolute path or a bare name")
	}
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// identity is the numeric form of an OS user.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookupIdentity resolves an OS user with its supplementary groups. Without cgo this reads /etc/passwd and /etc/group.
func lookupIdentity(name string) (identity, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return identity{}, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return identity{}, err
	}
	id := identity{home: u.HomeDir}
	if id.uid, err = parseID(u.Uid); err != nil {
		return identity{}, err
	}
	if id.gid, err = parseID(u.Gid); err != nil {
		return identity{}, err
	}
	for _, s := range ids {
		g, err := parseID(s)
		if err != nil {
			return identity{}, err
		}
		id.groups = append(id.groups, g)
	}
	return id, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// ownHome is the home directory of the agent's own user, or "/" for a user without an entry (in containers).
func ownHome() string {
	if u, err := user.Current(); err == nil && u.HomeDir != "" {
		return u.HomeDir
	}
	return "/"
}

// capped keeps the first limit bytes that are written to it and counts the rest, so that a chatty command neither
// blocks nor fills the memory.
type capped struct {
	limit   int
	kept    []byte
	dropped int64
}

// Write implements io.Writer and never fails.
func (w *capped) Write(p []byte) (int, error) {
	n := min(len(p), w.limit-len(w.kept))
	w.kept = append(w.kept, p[:n]...)
	w.dropped += int64(len(p) - n)
	return len(p), nil
}
