package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// directory is the state directory held open, so that nothing that happens to its path later redirects a file
// (FAULTS.md T14).
type directory struct {
	f    *os.File
	path string
}

// openDir opens the state directory, creates its last component if it is missing, and makes it private. It refuses one
// that others own or may write to.
func openDir(path string) (*directory, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open state directory", Path: path, Err: err}
	}
	d := &directory{f: os.NewFile(uintptr(fd), path), path: path}
	if err := d.secure(); err != nil {
		return nil, errors.Join(err, d.f.Close())
	}
	return d, nil
}

// secure checks who may change the directory and takes everybody else's rights away.
func (d *directory) secure() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat state directory", Path: d.path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("use state directory %s: it belongs to user %d, not to the agent's user %d", d.path, st.Uid, os.Geteuid())
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("use state directory %s: others may write to it (mode %04o)", d.path, st.Mode&0o7777)
	}
	if st.Mode&0o777 != 0o700 {
		if err := d.f.Chmod(0o700); err != nil {
			return fmt.Errorf("make state directory private: %w", err)
		}
	}
	return nil
}

// open opens a file of the directory. It follows no symbolic link, waits for no FIFO, and refuses what is not a regular
// file of its own.
func (d *directory) open(name string, flags int) (*os.File, error) {
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(int(d.f.Fd()), name, flags, 0o600) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, name), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.path, name))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "stat", Path: f.Name(), Err: err}, f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return nil, errors.Join(fmt.Errorf("open %s: not a regular file of the agent's user with one name", f.Name()), f.Close())
	}
	if flags&(unix.O_RDWR|unix.O_WRONLY) != 0 && st.Mode&0o777 != 0o600 {
		if err := f.Chmod(0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("make file private: %w", err), f.Close())
		}
	}
	return f, nil
}

// rename renames a file of the directory. A file that is not there is nothing to rename.
func (d *directory) rename(from, to string) error {
	fd := int(d.f.Fd())
	if err := unix.Renameat(fd, from, fd, to); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rename", Path: filepath.Join(d.path, from), Err: err}
	}
	return nil
}

// sync makes created and renamed names durable.
func (d *directory) sync() error {
	if err := d.f.Sync(); err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	return nil
}

// note is what stands in the lock file: who holds the lock, for people only, and how far the journal had come in which boot.
type note struct {
	pid  int
	boot string
	seq  uint64
}

// lock takes the lock that only one agent can hold, for as long as the returned file is open, and returns what its last holder
// noted.
func (d *directory) lock() (*os.File, note, error) {
	f, err := d.open(lockName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, note{}, err
	}
	last := readNote(f)
	if _, err := retry(func() (int, error) { return 0, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		holder := ""
		if last.pid > 0 {
			holder = fmt.Sprintf(" (held by process %d)", last.pid)
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, note{}, errors.Join(fmt.Errorf("lock state directory %s%s: %w", d.path, holder, err), f.Close())
	}
	writeNote(f, note{pid: os.Getpid(), boot: last.boot, seq: last.seq})
	return f, last, nil
}

// readNote reads a note, as much of it as there is.
func readNote(f *os.File) note {
	b := make([]byte, 256)
	size, _ := f.ReadAt(b, 0)
	var n note
	line, _, _ := strings.Cut(string(b[:size]), "\n")
	_, _ = fmt.Sscanf(line, "%d %s %d", &n.pid, &n.boot, &n.seq)
	return n
}

// writeNote replaces the note. It need not survive the machine: it counts in its own boot only, and as long as the kernel runs it
// has what was written.
func writeNote(f *os.File, n note) {
	b := fmt.Appendf(nil, "%d %s %d\n", n.pid, cmp.Or(n.boot, "-"), n.seq)
	if _, err := f.WriteAt(b, 0); err == nil {
		_ = f.Truncate(int64(len(b)))
	}
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
