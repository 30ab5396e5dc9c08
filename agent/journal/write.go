package journal

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// append stamps, rotates if necessary, writes and folds one record. The caller holds mu.
func (j *Journal) append(r Record) (Record, error) {
	r = j.stamp(r)
	b, err := encode(r)
	if err != nil {
		return Record{}, err
	}
	if j.size > j.base && j.size-j.base+int64(len(b)) > j.maxBytes {
		if err := j.rotate(); err != nil {
			return Record{}, fmt.Errorf("rotate journal: %w", err)
		}
	}
	if j.file == nil {
		if err := j.begin(); err != nil {
			return Record{}, fmt.Errorf("begin journal file: %w", err)
		}
	}
	if r.Seq != j.seq+1 { // a carry was written in between
		r.Seq = j.seq + 1
		if b, err = encode(r); err != nil {
			return Record{}, err
		}
	}
	if err := j.write(r, b); err != nil {
		return Record{}, err
	}
	return r, nil
}

// stamp gives a record its number and its time.
func (j *Journal) stamp(r Record) Record {
	r.Version, r.Seq, r.BootID = version, j.seq+1, j.deps.BootID
	r.At, r.Wall = j.deps.Now(), j.deps.Wall().UTC()
	if r.Question != nil {
		r.Program = j.deps.Program
	}
	return r
}

// write puts the line at the end of what is valid and makes it durable. What a failed write left behind is cut off at
// once, or, if that fails too, before the next write: bytes that Append denied must never be read back as a record.
func (j *Journal) write(r Record, b []byte) error {
	if err := j.cut(); err != nil {
		return err
	}
	j.dirty = true
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		return errors.Join(fmt.Errorf("write journal: %w", err), j.cut())
	}
	if err := j.file.datasync(); err != nil {
		return errors.Join(fmt.Errorf("sync journal: %w", err), j.cut())
	}
	j.dirty = false
	j.size += int64(len(b))
	j.seq = r.Seq
	j.note()
	j.ledger.add(r)
	if len(j.ledger.entries) > maxAttempts {
		j.ledger.trim(j.deps.BootID, r.At, r.Wall)
	}
	return nil
}

// cut removes whatever lies beyond the last valid record.
func (j *Journal) cut() error {
	if !j.dirty {
		return nil
	}
	if err := j.file.Truncate(j.size); err != nil {
		return fmt.Errorf("cut journal: %w", err)
	}
	j.dirty = false
	return nil
}

// rotate moves the current file out of the way, at the boundary of a record. Every step can be repeated after a failure
// or a crash: a name that is not there is skipped, and replay does not mind a missing file.
func (j *Journal) rotate() error {
	if err := j.cut(); err != nil {
		return err
	}
	for i := j.keep - 1; i >= 1; i-- {
		if err := j.dir.rename(rotatedName(i), rotatedName(i+1)); err != nil {
			return err
		}
	}
	if err := j.dir.rename(currentName, rotatedName(1)); err != nil {
		return err
	}
	old := j.file
	j.file, j.size, j.base = nil, 0, 0
	return errors.Join(old.Close(), j.dir.sync())
}

// begin opens the current file anew. After a rotation it starts with the attempts that are still remembered, because
// the file that recorded them may be deleted before they are a day old.
func (j *Journal) begin() error {
	f, err := j.create()
	if err != nil {
		return err
	}
	j.file = f
	if j.size > 0 {
		return nil
	}
	if err := j.carry(); err != nil {
		j.file = nil // so that the next append tries the carry again
		return errors.Join(err, f.Close())
	}
	return nil
}

// carry writes the attempts and orders that are still remembered, if there are any.
func (j *Journal) carry() error {
	j.ledger.trim(j.deps.BootID, j.deps.Now(), j.deps.Wall())
	if len(j.ledger.entries) == 0 && len(j.ledger.orders) == 0 {
		return nil
	}
	r := j.stamp(Record{Kind: Carry, Carried: slices.Clone(j.ledger.entries), Orders: slices.Clone(j.ledger.orders)})
	b, err := encode(r)
	if err != nil {
		return err
	}
	if err := j.write(r, b); err != nil {
		return err
	}
	j.base = j.size
	return nil
}

// Query selects records. Its zero value selects all of them, however many.
type Query struct {
	Limit int    // the newest this many, all if zero
	Kinds []Kind // only these; without any, all but those that are for the agent itself
	Since uint64 // only records with a higher sequence number
}

func (q Query) match(r Record) bool {
	if r.Seq <= q.Since {
		return false
	}
	if len(q.Kinds) == 0 {
		return !r.Kind.Internal()
	}
	return slices.Contains(q.Kinds, r.Kind)
}

// Records returns the records that the query selects, oldest first, straight from the files. Lines that are no records
// are left out. It does not hold up appends while it reads.
func (j *Journal) Records(q Query) ([]Record, error) {
	files, err := j.snapshot()
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	var out []Record
	for _, f := range files { // newest first
		var part []Record
		if err := scan(f.reader(), func(l line) {
			if l.err != nil || !q.match(l.record) {
				return
			}
			if part = append(part, l.record); q.Limit > 0 && len(part) >= 2*q.Limit {
				part = slices.Clone(part[len(part)-q.Limit:])
			}
		}); err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		out = append(part, out...)
		if q.Limit > 0 && len(out) >= q.Limit {
			return out[len(out)-q.Limit:], nil
		}
	}
	return out, nil
}

// snapshot opens all files, newest first, with the length that is valid now. A rotation meanwhile only renames them.
func (j *Journal) snapshot() ([]part, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lock == nil {
		return nil, ErrClosed
	}
	var files []part
	for i := range j.keep + 1 {
		name, size := rotatedName(i), int64(-1)
		if i == 0 {
			if name = currentName; j.refuse == nil {
				size = j.size
			}
		}
		f, err := j.dir.open(name, unix.O_RDONLY)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return files, err
		}
		files = append(files, part{File: f, size: size})
	}
	return files, nil
}
