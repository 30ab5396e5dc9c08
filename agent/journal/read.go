package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoRecord says that the journal does not hold a record of that number: it was deleted by rotation, is damaged, or
// was never written.
var ErrNoRecord = errors.New("no such record")

// Record returns the record with that sequence number, straight from the files. It returns ErrNoRecord with the numbers
// that there are if it is not among them.
func (j *Journal) Record(seq uint64) (Record, error) {
	var found *Record
	var first, last uint64
	err := j.each(func(r Record, _ int64) {
		if first == 0 {
			first = r.Seq
		}
		last = r.Seq
		if r.Seq == seq {
			found = &r
		}
	})
	switch {
	case err != nil:
		return Record{}, err
	case found != nil:
		return *found, nil
	case last == 0:
		return Record{}, fmt.Errorf("%w: the journal is empty", ErrNoRecord)
	}
	return Record{}, fmt.Errorf("%w as %d: the journal holds %d to %d", ErrNoRecord, seq, first, last)
}

// Page returns the records that follow the given sequence number, oldest first, until they are as many as limit or their
// lines as long as size. An empty page is the end. Records that are for the agent itself are left out.
func (j *Journal) Page(after uint64, limit int, size int64) ([]Record, error) {
	var out []Record
	var used int64
	err := j.each(func(r Record, n int64) {
		if r.Seq <= after || r.Kind.Internal() || len(out) >= limit || used >= size {
			return
		}
		used += n
		out = append(out, r)
	})
	return out, err
}

// each calls fn for every record and the length of its line, oldest first.
func (j *Journal) each(fn func(Record, int64)) error {
	files, err := j.snapshot()
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, f := range slices.Backward(files) {
		if err := scan(f.reader(), func(l line) {
			if l.err == nil {
				fn(l.record, l.size)
			}
		}); err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
	}
	return nil
}

// Copy is a journal as it lies in a directory, which may be a copy on another machine.
type Copy struct {
	Records []Record // oldest first
	Damaged []Damage
}

// Damage is something in a journal that is not a record, or a record that is missing.
type Damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // of the line in the file
	Reason string `json:"reason"`
}

// ReadDir reads the journal in a directory without locking or changing anything. What is damaged is left out and named.
// It returns fs.ErrNotExist if the directory holds no journal.
func ReadDir(path string) (Copy, error) {
	names, err := journalFiles(path)
	if err != nil {
		return Copy{}, fmt.Errorf("read journal: %w", err)
	}
	if len(names) == 0 {
		return Copy{}, fmt.Errorf("read journal: %s holds no %s: %w", path, currentName, fs.ErrNotExist)
	}
	var c Copy
	for _, name := range names {
		if err := c.read(filepath.Join(path, name)); err != nil {
			return Copy{}, fmt.Errorf("read journal: %w", err)
		}
	}
	return c, nil
}

// journalFiles returns the names of a journal's files, oldest first, however many rotated ones were kept.
func journalFiles(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var rotated []int
	current := false
	for _, e := range entries {
		if e.Name() == currentName {
			current = true
			continue
		}
		number := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "journal."), ".jsonl")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && rotatedName(n) == e.Name() {
			rotated = append(rotated, n)
		}
	}
	slices.Sort(rotated)
	var names []string
	for _, n := range slices.Backward(rotated) {
		names = append(names, rotatedName(n))
	}
	if current {
		names = append(names, currentName)
	}
	return names, nil
}

// read adds one file. It waits for no FIFO.
func (c *Copy) read(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("%s is not a regular file", path), err)
	}
	return scan(f, func(l line) { c.add(path, l) })
}

func (c *Copy) add(path string, l line) {
	damaged := func(format string, args ...any) {
		c.Damaged = append(c.Damaged, Damage{File: path, Offset: l.offset, Reason: fmt.Sprintf(format, args...)})
	}
	if l.err != nil {
		damaged("%v", l.err)
		return
	}
	r := l.record
	if r.Version > version {
		damaged("record %d has version %d, this program knows %d: it is read as far as it is understood", r.Seq, r.Version, version)
	}
	if n := len(c.Records); n > 0 && r.Seq != c.Records[n-1].Seq+1 {
		damaged("record %d follows record %d", r.Seq, c.Records[n-1].Seq)
	}
	c.Records = append(c.Records, r)
}
