package openrc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// maxFile is how much is read of a file of OpenRC's. All of them are a few lines.
const maxFile = 64 << 10

// attempts is how often the files of a service are read to find them the same twice.
const attempts = 8

// read returns what is known of a service. Its error wraps ErrNotFound if there is no init script, and ErrUnavailable if
// OpenRC did not boot this machine or changes the service faster than it can be read.
func (m *Manager) read(ctx context.Context, unit string) (record, error) {
	if err := checkName(unit); err != nil {
		return record{}, err
	}
	var last record
	for i := range attempts {
		if err := ctx.Err(); err != nil {
			return record{}, unanswered(err)
		}
		rec, err := m.readOnce(unit)
		if err != nil {
			return record{}, err
		}
		if i > 0 && rec == last {
			return rec, nil
		}
		last = rec
	}
	return record{}, fmt.Errorf("%w: the service changes while it is read", service.ErrUnavailable)
}

func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	return err
}

// readOnce reads everything once. The links come first: OpenRC sets the link in stopping before it signals anything.
func (m *Manager) readOnce(unit string) (record, error) {
	if _, err := os.Stat(m.state("softlevel")); err != nil {
		return record{}, fmt.Errorf("%w: OpenRC does not run this machine: %w", service.ErrUnavailable, err)
	}
	info, err := os.Stat(filepath.Join(m.config.Scripts, unit))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record{}, fmt.Errorf("%w: %w", service.ErrNotFound, err)
	case err != nil:
		return record{}, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	case !info.Mode().IsRegular():
		return record{}, fmt.Errorf("%w: %s is no file", service.ErrNotFound, info.Name())
	}
	rec := record{executable: info.Mode().Perm()&0o111 != 0}
	link, err := m.readMark(unit, &rec)
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	enabled, err := filepath.Glob(filepath.Join(m.config.Runlevels, "*", unit))
	if err != nil {
		return record{}, err
	}
	rec.enabled = len(enabled) > 0
	if err := m.readDaemon(unit, link, &rec); err != nil {
		return record{}, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	return rec, nil
}

func (m *Manager) state(elem ...string) string {
	return filepath.Join(append([]string{m.config.State}, elem...)...)
}

// readMark finds the link that decides and returns what is known of its file.
func (m *Manager) readMark(unit string, rec *record) (fs.FileInfo, error) {
	for _, k := range linked {
		info, err := os.Lstat(m.state(string(k), unit))
		if err == nil {
			rec.mark = k
			return info, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if found, _ := filepath.Glob(m.state(string(markScheduled), "*", unit)); len(found) > 0 {
		rec.mark = markScheduled
	}
	return nil, nil
}

// readDaemon reads what start-stop-daemon or supervise-daemon recorded when it started the service, and looks the
// processes up.
//
// OpenRC has no id of a run. The record of the daemon is written anew by every start and by nothing else, survives a crash,
// and is removed by a stop; supervise-daemon writes child_pid anew with every child. So the times at which these files were
// written, with their inodes, name a run. The link in started would not do: a stop that fails makes it anew.
func (m *Manager) readDaemon(unit string, link fs.FileInfo, rec *record) error {
	d, file, err := m.daemon(unit)
	if err != nil {
		return err
	}
	id := fnv.New64a()
	if file == nil {
		rec.untracked = true
		if link != nil && rec.mark != markStarting && rec.mark != markStopping {
			stamp(id, link)
			rec.run = id.Sum64()
		}
		return nil
	}
	stamp(id, file)
	opts, err := m.options(unit)
	if err != nil {
		return err
	}
	if opts.childFile != nil {
		stamp(id, opts.childFile)
	}
	rec.run = id.Sum64()
	if d.pidfile != "" {
		d.pidfile = opts.chroot + d.pidfile
	}
	if opts.supervised {
		rec.supervised, rec.restarts, rec.delay, rec.limit, rec.span = true, opts.starts, opts.delay, opts.limit, opts.span
		err = m.findSupervised(d, opts, rec)
	} else {
		err = m.find(d, opts, rec)
	}
	if err != nil {
		return err
	}
	m.compare(unit, rec)
	return nil
}

// stamp adds when a file was written, and which one it is.
func stamp(w io.Writer, info fs.FileInfo) {
	_ = binary.Write(w, binary.LittleEndian, info.ModTime().UnixNano())
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = binary.Write(w, binary.LittleEndian, sys.Ino)
	}
}

// daemon reads the first daemon of a service. file is nil if none is recorded.
func (m *Manager) daemon(unit string) (d daemon, file fs.FileInfo, err error) {
	dir := m.state("daemons", unit)
	entries, err := os.ReadDir(dir) // sorted: 001, 002, ...
	if errors.Is(err, fs.ErrNotExist) {
		return daemon{}, nil, nil
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return daemon{}, nil, err
		}
		if file, err = os.Lstat(path); err != nil {
			continue // removed: the next reading sees it
		}
		return parseDaemon(b), file, nil
	}
	return daemon{}, nil, err
}

// options reads the values that OpenRC keeps for a started service.
func (m *Manager) options(unit string) (options, error) {
	values := map[string]string{}
	for _, key := range optionKeys {
		b, err := readFile(m.state("options", unit, key))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return options{}, err
		}
		values[key] = string(b)
	}
	o := parseOptions(values)
	if info, err := os.Lstat(m.state("options", unit, keyChild)); err == nil {
		o.childFile = info
	}
	return o, nil
}

// findSupervised looks up supervise-daemon and its child. A child is known by its parent.
func (m *Manager) findSupervised(d daemon, o options, rec *record) error {
	pid, err := m.pidIn(d.pidfile)
	if err != nil {
		return err
	}
	switch p, err := lookup(m.proc, pid); {
	case err != nil && !errors.Is(err, os.ErrProcessDone):
		return err
	case err == nil && p.name == clip(supervisorName):
		rec.supervisor = p
	}
	p, err := lookup(m.proc, o.child)
	if err != nil {
		return unlessDone(err)
	}
	mine := p.parent == rec.supervisor.pid
	if rec.supervisor.pid == 0 {
		if mine, err = m.resembles(p, d, o); err != nil {
			return err
		}
	}
	if mine {
		rec.main = p
	}
	return nil
}

// unlessDone is nil for the error that says that a process has ended.
func unlessDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// find looks up the daemon of start-stop-daemon: by its pidfile, or by its command line if it has none, as OpenRC does.
func (m *Manager) find(d daemon, o options, rec *record) error {
	pid, err := m.pidIn(d.pidfile)
	if err != nil {
		return err
	}
	if pid == 0 {
		alike, err := m.search(d.args)
		switch {
		case err != nil:
			return err
		case d.pidfile != "" && len(alike) > 0:
			rec.doubt = fmt.Sprintf("%s names no process, but process %d may be it", d.pidfile, alike[0].pid)
		case len(alike) == 1:
			rec.main = alike[0]
		case len(alike) > 1:
			rec.doubt = fmt.Sprintf("%d processes may be it", len(alike))
		}
		return nil
	}
	p, err := lookup(m.proc, pid)
	if err != nil {
		return unlessDone(err)
	}
	mine, err := m.resembles(p, d, o)
	switch {
	case err != nil:
		return err
	case mine:
		rec.main = p
	default:
		// The number went to somebody else after a crash, or the daemon calls itself something else: set procname.
		rec.doubt = fmt.Sprintf("process %d of %s is %q", pid, d.pidfile, p.name)
	}
	return nil
}

// pidIn returns the number in a pidfile, 0 if there is none.
func (m *Manager) pidIn(pidfile string) (int, error) {
	if pidfile == "" {
		return 0, nil
	}
	b, err := readFile(pidfile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parsePid(b), nil
}

// compare drops a process that is not the one first seen in this run under its number: the daemon died, and its number went
// to another process (FAULTS.md T15).
func (m *Manager) compare(unit string, rec *record) {
	if rec.main.pid == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.seen[unit]; s.run == rec.run && s.main.pid == rec.main.pid && s.main.start != rec.main.start {
		rec.main = process{}
		return
	}
	m.seen[unit] = sighting{run: rec.run, main: rec.main}
}

// readFile reads a small file. What OpenRC did not write may be large or a fifo.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// clip shortens a name as the kernel does.
func clip(name string) string { return name[:min(len(name), 15)] }

// resembles reports whether a process may be the daemon: the name that it has, or its command line, is one that OpenRC
// recorded. Scripts show the interpreter first, wrappers leave only their arguments.
func (m *Manager) resembles(p process, d daemon, o options) (bool, error) {
	names := append([]string{d.exec, o.procname}, d.args...)
	for _, n := range names {
		if n != "" && clip(filepath.Base(n)) == p.name {
			return true, nil
		}
	}
	if d.exec == "" {
		return false, nil
	}
	cmdline, err := m.cmdline(p.pid)
	return slices.Contains(cmdline, d.exec), err
}
