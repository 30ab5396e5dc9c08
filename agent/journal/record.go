package journal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// version is the format that this package writes. A record of a higher version is read as far as it is understood, and
// a journal that holds one is never written to (FAULTS.md F104i).
const version = 1

// maxLine bounds one record, newline included. It exceeds the largest record there can be (a carry of maxAttempts
// attempts) several times over.
const maxLine = 4 << 20

// Kind says what a record is about.
type Kind string

// Kinds of records.
const (
	Start   Kind = "start"   // the agent started
	Stop    Kind = "stop"    // the agent stopped in an orderly way
	Finding Kind = "finding" // a condition was diagnosed, or its severity or text changed
	Cleared Kind = "cleared" // a condition ended
	Plan    Kind = "plan"    // what is allowed or refused changed
	Intent  Kind = "intent"  // an action is about to be carried out
	Result  Kind = "result"  // how an intent ended
	Config  Kind = "config"  // a configuration came into force or was refused
	Repair  Kind = "repair"  // the journal itself was repaired
	Carry   Kind = "carry"   // what is remembered of files that rotation may delete
	Hold    Kind = "hold"    // a person ordered to do nothing
	Lift    Kind = "lift"    // a person, or its time, ended a hold
	Approve Kind = "approve" // a person agreed to one action
	Route   Kind = "route"   // something is about to be told to a proxy, was told, or was not
	Memory  Kind = "memory"  // what the next process of the agent has to know, see node.Kept
)

// Valid reports whether this version knows the kind.
func (k Kind) Valid() bool {
	switch k {
	case Start, Stop, Finding, Cleared, Plan, Intent, Result, Config, Repair, Carry, Hold, Lift, Approve, Route, Memory:
		return true
	}
	return false
}

// Internal reports whether records of the kind tell people nothing that others do not tell.
func (k Kind) Internal() bool { return k == Carry || k == Memory }

// Record is one line of the journal. Append fills Version, Seq, Wall, BootID and At; the caller gives the rest.
type Record struct {
	Version int           `json:"v"`
	Seq     uint64        `json:"seq"` // 1, 2, 3, ... without gaps, across files and boots
	Wall    time.Time     `json:"wall"`
	BootID  string        `json:"boot_id"`
	At      node.Instant  `json:"at"` // comparable within one boot only
	Kind    Kind          `json:"kind"`
	Finding *node.Finding `json:"finding,omitempty"`
	Plan    *node.Plan    `json:"plan,omitempty"`
	// Question is what the plan answers: all inputs of the decision.
	Question *node.Question `json:"question,omitempty"`
	// Program is the version of pgpatrol that answered the question: another one may answer differently.
	Program string `json:"program,omitempty"`
	// Decision is the sequence number of the plan that a finding or its end belongs to.
	Decision uint64       `json:"decision,omitempty"`
	Action   *node.Action `json:"action,omitempty"` // of an intent
	Result   *Outcome     `json:"result,omitempty"`
	Text     string       `json:"text,omitempty"`
	Carried  []Carried    `json:"carried,omitempty"`
	// Hold is what a hold or lift is about, Approval what an approval is.
	Hold     *node.Hold     `json:"hold,omitempty"`
	Approval *node.Approval `json:"approval,omitempty"`
	Kept     *node.Kept     `json:"kept,omitempty"` // of a memory
	// Lost says of a repair that records before it may be missing, and nobody knows which.
	Lost bool `json:"lost,omitempty"`
	// Orders are the records of orders, and of what was kept last, that a carry keeps, as they were written.
	Orders []Record `json:"orders,omitempty"`
}

// Outcome says how the intent with that sequence number ended. An intent may have two: executed, then verified or
// unverified.
type Outcome struct {
	Intent   uint64             `json:"intent"`
	ActionID string             `json:"action_id"`
	Result   node.AttemptResult `json:"result"`
	Error    string             `json:"error,omitempty"`
	Evidence map[string]string  `json:"evidence,omitempty"`
}

// Carried is an attempt as it stood when the file that holds it was rotated.
type Carried struct {
	Intent  uint64       `json:"intent"`
	Wall    time.Time    `json:"wall"`
	Attempt node.Attempt `json:"attempt"`
}

// The checksum is the last member of the object, so that it covers exactly the bytes before it, whatever members a
// later version adds.
const (
	sumHead = `,"sum":"`
	sumTail = `"}`
	sumLen  = len(sumHead) + 8 + len(sumTail)
)

var errLine = errors.New("not a record")

// encode returns the record as one line with its checksum and newline.
func encode(r Record) ([]byte, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode %s record: %w", r.Kind, err)
	}
	line := append(body[:len(body)-1:len(body)-1], sumHead...)
	line = append(line, sum(body)...)
	line = append(line, sumTail...)
	line = append(line, '\n')
	if len(line) > maxLine {
		return nil, fmt.Errorf("encode %s record: %d bytes, at most %d are allowed", r.Kind, len(line), maxLine)
	}
	return line, nil
}

// check refuses a record that could not be understood when it is read back.
func check(r Record) error {
	switch {
	case !r.Kind.Valid():
		return fmt.Errorf("encode record: unknown kind %q", r.Kind)
	case r.Kind == Intent && r.Action == nil:
		return errors.New("encode intent record: it names no action")
	case r.Kind == Result && (r.Result == nil || r.Result.Intent == 0 || r.Result.Result == ""):
		return errors.New("encode result record: it names no intent or no result")
	case (r.Kind == Hold || r.Kind == Lift) && r.Hold == nil:
		return fmt.Errorf("encode %s record: it names no hold", r.Kind)
	case r.Kind == Approve && r.Approval == nil:
		return errors.New("encode approve record: it names no approval")
	case r.Kind == Memory && r.Kept == nil:
		return errors.New("encode memory record: it keeps nothing")
	}
	return nil
}

// parse reads one line without its newline. It accepts exactly what encode writes, and of a higher version whatever can
// be understood: such a line's checksum is not judged, because its rule may have changed.
func parse(line []byte) (Record, error) {
	var r Record
	if len(line) < sumLen || line[0] != '{' {
		return Record{}, errLine
	}
	err := json.Unmarshal(line, &r)
	if r.Version > version {
		return r, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", errLine, err)
	}
	tail := line[len(line)-sumLen:]
	if !bytes.HasPrefix(tail, []byte(sumHead)) || !bytes.HasSuffix(tail, []byte(sumTail)) {
		return Record{}, fmt.Errorf("%w: no checksum", errLine)
	}
	body := append(bytes.Clone(line[:len(line)-sumLen]), '}')
	if want := sum(body); string(tail[len(sumHead):len(sumHead)+8]) != want {
		return Record{}, fmt.Errorf("%w: checksum differs", errLine)
	}
	if r.Version < 1 || r.Seq == 0 {
		return Record{}, fmt.Errorf("%w: version %d, sequence number %d", errLine, r.Version, r.Seq)
	}
	if err := check(r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", errLine, err)
	}
	return r, nil
}

// sum is the CRC-32C of b in hexadecimal.
func sum(b []byte) string {
	c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return hex.EncodeToString([]byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)})
}
