package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// line is one line of a file as it was found.
type line struct {
	record Record
	offset int64
	size   int64 // newline included
	last   bool  // nothing follows it
	err    error // why it is not a record
}

// scan calls fn for every line of r, also for those that are no records. It returns only errors of reading.
func scan(r io.Reader, fn func(line)) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var offset int64
	for {
		text, size, err := readLine(br)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if size == 0 {
			return nil
		}
		l := line{offset: offset, size: size, last: err != nil}
		switch {
		case err != nil:
			l.err = fmt.Errorf("%w: it has no end", errLine)
		case text == nil:
			l.err = fmt.Errorf("%w: longer than %d bytes", errLine, maxLine)
		default:
			l.record, l.err = parse(text)
		}
		if !l.last {
			_, err := br.Peek(1)
			l.last = errors.Is(err, io.EOF)
		}
		fn(l)
		offset += size
	}
}

// readLine returns the next line without its newline, nil if it is too long to be a record, and how many bytes it took.
// io.EOF means that the line has no newline.
func readLine(br *bufio.Reader) (text []byte, size int64, err error) {
	for {
		part, err := br.ReadSlice('\n')
		size += int64(len(part))
		if size <= maxLine {
			text = append(text, part...)
		} else {
			text = nil
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return text, size, err
		case text == nil:
			return nil, size, nil
		}
		return text[:len(text)-1], size, nil
	}
}

// replay reads every file, oldest first, into the ledger, and decides whether the journal may be written to. It leaves
// in size where the next record of the current file belongs; torn tells how many bytes beyond it are not a record, and
// emptied that the current file is there and holds nothing.
func (j *Journal) replay() (torn int64, emptied bool, err error) {
	for i := j.keep; i >= 1; i-- {
		if _, _, err := j.replayFile(rotatedName(i), false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.refuseWith(ErrUnreadable, err.Error())
		}
	}
	j.size, torn, err = j.replayFile(currentName, true)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		j.refuseWith(ErrUnreadable, err.Error())
	default:
		emptied = j.size == 0 && torn == 0
	}
	now, wall := j.deps.Now(), j.deps.Wall()
	j.ledger.trim(j.deps.BootID, now, wall)
	j.began = j.seq
	return torn, emptied, nil
}

// replayFile reads one file; fs.ErrNotExist says that there is none. A last line that is not a record is torn, which only the file that was being written to
// can have; any other is corruption, and so is a sequence number that does not follow.
func (j *Journal) replayFile(name string, current bool) (size, torn int64, err error) {
	f, err := j.dir.open(name, unix.O_RDONLY)
	if err != nil {
		return 0, 0, err
	}
	first := true
	err = scan(f, func(l line) {
		switch {
		case l.err != nil && l.last && current:
			torn = l.size
			return
		case l.err != nil:
			j.refuseWith(ErrCorrupt, fmt.Sprintf("%s: line at byte %d: %v", f.Name(), l.offset, l.err))
		case l.record.Version > version:
			j.refuseWith(ErrNewer, fmt.Sprintf("%s: line at byte %d has version %d, this agent knows %d", f.Name(), l.offset, l.record.Version, version))
		case l.record.Seq <= j.seq || (!first && l.record.Seq != j.seq+1):
			j.refuseWith(ErrCorrupt, fmt.Sprintf("%s: line at byte %d: record %d follows record %d", f.Name(), l.offset, l.record.Seq, j.seq))
		}
		size += l.size
		if l.err == nil {
			first = false
			j.seq, j.boot = max(j.seq, l.record.Seq), l.record.BootID
			j.ledger.add(l.record)
		}
	})
	return size, torn, errors.Join(err, f.Close())
}

// refuseWith forbids writing for good, for the first reason found.
func (j *Journal) refuseWith(reason error, detail string) {
	if j.refuse == nil {
		j.refuse = fmt.Errorf("%w: %s (the files are kept as they are; pgpatrol explain AGENT_DEGRADED says what to do)", reason, detail)
	}
}

// setAside keeps a copy of the torn bytes for a person to look at. They are evidence, not state: a copy that fails to
// be written changes nothing.
func (j *Journal) setAside(torn int64) error {
	src, err := j.dir.open(currentName, unix.O_RDONLY)
	if err != nil {
		return err
	}
	dst, err := j.dir.open(tornName, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	_, err = io.Copy(dst, io.NewSectionReader(src, j.size, min(torn, maxLine)))
	return errors.Join(err, dst.Close(), src.Close())
}
