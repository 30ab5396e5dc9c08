// Package journal is the agent's memory on disk: an append-only file of findings, plans, intents and results.
//
// It owns the state directory: the files, their checksums, their rotation, and the lock that keeps a second agent out
// (FAULTS.md F103). It promises that a record whose Append returned nil is on the medium and is read back after any
// crash; that a crash in the middle of a write costs that record and no other; that attempts of the last 24 hours are
// remembered across restarts, boots and rotation (FAULTS.md S26); and that a journal that cannot be trusted or written
// says so in Healthy, whereupon the agent must only observe (FAULTS.md F104k). It deliberately does not decide what is
// worth recording, and it never repairs anything but the end of a file that a crash cut short.
//
// A machine that loses its power cuts records short, and loses nothing by that: what was done in another boot counts no
// more. Within one boot hardly anything but a person's hand does, and nobody knows how much is gone then: for as long as
// budgets reach back, an hour, such a journal is not to be trusted.
//
//	journal.3.jsonl   journal.2.jsonl   journal.1.jsonl   journal.jsonl   lock   journal.torn
//	oldest, next to go                                    written to             what a crash cut short
//
// The lock file notes how far the journal has come in this boot, so that records which are taken from its end whole are
// missed as well.
//
// Every line is one JSON object that ends with the checksum of the bytes before it. Sequence numbers have no gaps, so
// that a line that was taken out is noticed as well as one that was changed.
package journal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Sentinel errors. Compare with errors.Is.
var (
	// ErrLocked says that another agent uses the state directory.
	ErrLocked = errors.New("another agent uses this state directory")
	// ErrCorrupt says that a record in the middle is damaged or missing. Nothing is written until a person has moved the
	// files away, because what was spent of the budgets is not known.
	ErrCorrupt = errors.New("journal is corrupt")
	// ErrNewer says that a newer version of pgpatrol has written to the journal. It can be read, not written.
	ErrNewer = errors.New("journal was written by a newer version")
	// ErrUnreadable says that one of the journal's files cannot be read. It is left as it is, and nothing is written.
	ErrUnreadable = errors.New("journal cannot be read")
	// ErrLost says that the end of the journal was cut off in this boot, less than an hour ago. It is written to, but what
	// was done in the last hour is not known.
	ErrLost = errors.New("journal has lost its end")
	// ErrClosed says that the journal was closed.
	ErrClosed = errors.New("journal is closed")
	// ErrUnknownAttempt says that no intent of that attempt is in the journal.
	ErrUnknownAttempt = errors.New("no such intent in the journal")
)

const (
	currentName = "journal.jsonl"
	tornName    = "journal.torn"
	lockName    = "lock"

	defaultMaxBytes = 8 << 20
	defaultKeep     = 3

	retryAfter = 10 * time.Second // between attempts to write when nothing else is recorded

	lostSpan = time.Hour // how far back anybody counts what was done
)

func rotatedName(i int) string { return fmt.Sprintf("journal.%d.jsonl", i) }

// Deps is what a journal needs from its surroundings.
type Deps struct {
	Now    func() node.Instant // time since boot
	Wall   func() time.Time    // for people, and for the age of attempts of earlier boots
	BootID string

	Program  string // version of pgpatrol, for the records of decisions
	MaxBytes int64  // size at which the file is rotated, 8 MiB if zero
	Keep     int    // rotated files that are kept, 3 if zero
}

// file is what the journal needs of the file that it writes to.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Close() error
	datasync() error
}

type osFile struct{ *os.File }

func (f osFile) datasync() error { return datasync(f.File) }

// Journal is an open journal. All methods are safe for concurrent use.
type Journal struct {
	deps     Deps
	dir      *directory
	maxBytes int64
	keep     int
	create   func() (file, error) // opens the current file, creating it if necessary

	mu     sync.Mutex // guards all below
	lock   *os.File
	noted  note   // by whoever held the lock before
	file   file   // nil while the current file has to be created
	size   int64  // where the next record belongs
	base   int64  // of size, what the carry at the beginning takes
	dirty  bool   // bytes beyond size may exist
	seq    uint64 // of the last record
	began  uint64 // of the last record when it was opened
	boot   string // of that record
	ledger ledger
	refuse error        // why nothing may be written, for good
	broken error        // why the last append failed
	tried  node.Instant // when it failed
}

// Open locks the state directory, reads what is there and prepares for writing. A last line that a crash cut short is
// moved to journal.torn and a record says so. It returns ErrLocked if another agent holds the directory. A journal that
// is corrupt, newer or unreadable opens all the same: it can be read as far as that goes, while Healthy and Append return
// ErrCorrupt, ErrNewer or ErrUnreadable.
func Open(path string, d Deps) (*Journal, error) {
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	j := &Journal{deps: d, dir: dir, maxBytes: d.MaxBytes, keep: d.Keep}
	if j.maxBytes <= 0 {
		j.maxBytes = defaultMaxBytes
	}
	if j.keep <= 0 {
		j.keep = defaultKeep
	}
	j.create = func() (file, error) {
		f, err := dir.open(currentName, unix.O_RDWR|unix.O_CREAT)
		if err != nil {
			return nil, err
		}
		if err := dir.sync(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return osFile{f}, nil
	}
	if j.lock, j.noted, err = dir.lock(); err != nil {
		return nil, errors.Join(err, dir.f.Close())
	}
	if err := j.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.Close())
	}
	return j, nil
}

// start replays and, if the journal may be written to, opens the current file and cuts off a torn end.
func (j *Journal) start() error {
	torn, emptied, err := j.replay()
	if err != nil || j.refuse != nil {
		return err
	}
	j.dirty = torn > 0
	if j.file, err = j.create(); err != nil {
		j.file, j.broken, j.tried = nil, err, j.deps.Now()
		return nil
	}
	lost := j.began == 0 || j.boot == j.deps.BootID
	text := ""
	switch {
	case torn == 0 && j.noted.boot == j.deps.BootID && j.noted.seq > j.seq:
		lost, text = true, fmt.Sprintf("of the %d records that this boot had written, the last is %d", j.noted.seq, j.seq)
	case torn > 0:
		text = fmt.Sprintf("its last record is cut short: %d bytes at byte %d were moved to %s", torn, j.size, tornName)
		if err := j.setAside(torn); err != nil {
			text = fmt.Sprintf("its last record is cut short: %d bytes at byte %d were removed, keeping them failed: %v", torn, j.size, err)
		}
	case emptied && lost:
		text = currentName + " was there, and nothing was in it"
	default:
		return nil
	}
	_, _ = j.try(Record{Kind: Repair, Text: text, Lost: lost}) // Healthy tells if this failed
	return nil
}

// note notes how far the journal has come, so that records which are taken from its end are missed. The caller holds mu, or
// nobody else knows the journal yet.
func (j *Journal) note() { writeNote(j.lock, note{pid: os.Getpid(), boot: j.deps.BootID, seq: j.seq}) }

// lost returns why what was done in the last hour is not known, or nil. The caller holds mu.
func (j *Journal) lost() error {
	for _, o := range j.ledger.orders {
		if ago := j.deps.Now().Sub(o.At); o.Kind == Repair && o.BootID == j.deps.BootID && ago < lostSpan {
			return fmt.Errorf("%w: %s; what was done before is not known for certain, which matters for another %s", ErrLost, o.Text, (lostSpan - ago).Round(time.Minute))
		}
	}
	return nil
}

// Close releases the state directory. Closing twice does nothing.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lock == nil {
		return nil
	}
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	err = errors.Join(err, j.dir.f.Close(), j.lock.Close())
	j.file, j.lock, j.refuse = nil, nil, ErrClosed
	return err
}

// Healthy returns nil if the last append worked and the journal can be trusted, and else why not: an error of the disk,
// ErrCorrupt, ErrNewer, ErrUnreadable, ErrLost or ErrClosed. An agent that only observes has little to record, so after an error of the disk Healthy itself
// tries again, at most every ten seconds, with a record that says so.
func (j *Journal) Healthy() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refuse != nil {
		return j.refuse
	}
	if j.broken != nil && j.deps.Now().Sub(j.tried) >= retryAfter {
		_, _ = j.try(Record{Kind: Repair, Text: fmt.Sprintf("records can be written again; the last that was lost failed with: %v", j.broken)})
	}
	if j.broken != nil {
		return j.broken
	}
	return j.lost()
}

// try appends and remembers whether that worked. The caller holds mu.
func (j *Journal) try(r Record) (Record, error) {
	if j.refuse != nil {
		return Record{}, j.refuse
	}
	r, err := j.append(r)
	if j.broken = err; err != nil {
		j.tried = j.deps.Now()
	}
	return r, err
}

// Append stamps the record, writes it and makes it durable. If it returns an error the record does not exist, whatever
// part of it reached the disk. It returns the record's sequence number.
func (j *Journal) Append(r Record) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	stamped, err := j.try(r)
	return stamped.Seq, err
}

// Intent records that the action is about to be carried out and returns the attempt that this begins. After an error
// the action must not be carried out.
func (j *Journal) Intent(a node.Action) (node.Attempt, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := j.try(Record{Kind: Intent, Action: &a})
	if err != nil {
		return node.Attempt{}, fmt.Errorf("record intent: %w", err)
	}
	return attemptOf(r), nil
}

// Result records how the attempt ended; text says what went wrong, if anything did. It returns ErrUnknownAttempt for an
// attempt that no intent in this journal began.
func (j *Journal) Result(a node.Attempt, r node.AttemptResult, text string, evidence map[string]string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refuse != nil {
		return j.refuse
	}
	e := j.ledger.match(a)
	if e == nil {
		return fmt.Errorf("record result of action %q: %w", a.ActionID, ErrUnknownAttempt)
	}
	_, err := j.try(Record{Kind: Result, Result: &Outcome{
		Intent: e.Intent, ActionID: a.ActionID, Result: r, Error: text, Evidence: evidence,
	}})
	if err != nil {
		return fmt.Errorf("record result: %w", err)
	}
	return nil
}

// Attempts returns the attempts of the last 24 hours, of all boots, at most 1000, newest last.
func (j *Journal) Attempts() []node.Attempt {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ledger.trim(j.deps.BootID, j.deps.Now(), j.deps.Wall())
	return j.ledger.attempts(func(node.Attempt) bool { return true })
}

// Unresolved returns the attempts without a result, of all boots: the agent ended, or the disk failed, before one could
// be recorded.
func (j *Journal) Unresolved() []node.Attempt {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.attempts(func(a node.Attempt) bool { return !a.Done })
}
