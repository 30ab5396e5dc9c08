// Package record is the language that the lab's witnesses speak and its judges read: JSON lines, one observation
// each, with the wall-clock time of the machine that all containers share.
//
// It holds types and their decoding only. It deliberately holds nothing that pgpatrol says of itself except the
// lines of its journal, which a judge may use to prove that nothing was done, never that something was done well.
package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// Record is one observation. Exactly one of the pointers is set.
type Record struct {
	At   time.Time `json:"at"`   // when it was observed, UTC, nanoseconds
	Node string    `json:"node"` // container it was observed in, or "lab"

	Gap     *Gap     `json:"gap,omitempty"`
	Error   *Error   `json:"error,omitempty"`
	Beat    *Beat    `json:"beat,omitempty"`
	Totals  *Totals  `json:"totals,omitempty"`
	PG      *PG      `json:"pg,omitempty"`
	Unit    *Unit    `json:"unit,omitempty"`
	Life    *Life    `json:"life,omitempty"`
	REST    *REST    `json:"rest,omitempty"`
	Proxy   *Proxy   `json:"proxy,omitempty"`
	Lock    *Lock    `json:"lock,omitempty"`
	Etcd    *Etcd    `json:"etcd,omitempty"`
	Memory  *Memory  `json:"memory,omitempty"`
	Mark    *Mark    `json:"mark,omitempty"`
	Journal *Journal `json:"journal,omitempty"`
}

// Gap is the time between two acknowledged writes, where it is longer than the writer's threshold.
type Gap struct {
	From   time.Time     `json:"from"`   // acknowledgement of the write before
	To     time.Time     `json:"to"`     // acknowledgement of the write after, or the end of the recording
	Open   bool          `json:"open"`   // true where no write followed
	Length time.Duration `json:"length"` // To - From, nanoseconds
}

// Error is one failed connect or write of the writer.
type Error struct {
	Step     string `json:"step"`               // "connect" or "write"
	SQLState string `json:"sqlstate,omitempty"` // five characters, empty where the server did not answer
	Text     string `json:"text"`
}

// Beat is the writer's sign of life, once a second.
type Beat struct {
	Acknowledged int64 `json:"acknowledged"` // writes acknowledged so far
}

// Totals is what the writer knows at its end.
type Totals struct {
	Acknowledged int64   `json:"acknowledged"`
	Errors       int64   `json:"errors"`
	Counted      bool    `json:"counted"` // whether the table could be read at the end; Lost means nothing otherwise
	Lost         int64   `json:"lost"`    // acknowledged writes that are not in the table
	LostExamples []int64 `json:"lost_examples,omitempty"`
}

// PG is what PostgreSQL on a node answered over its own unix socket.
type PG struct {
	Answered bool      `json:"answered"`
	Recovery bool      `json:"recovery"` // pg_is_in_recovery(); a node that answers and is not in recovery is writable
	Timeline int       `json:"timeline,omitempty"`
	Started  time.Time `json:"started,omitzero"` // pg_postmaster_start_time()
	LSN      string    `json:"lsn,omitempty"`    // written (primary) or replayed (replica)
	Text     string    `json:"text,omitempty"`   // the error where it did not answer
}

// Writable reports whether this answer proves a primary that accepts writes.
func (p PG) Writable() bool { return p.Answered && !p.Recovery }

// Unit is what systemd says of a unit, or in systemd's words what Docker says of a container and OpenRC of a service:
// "active" is one whose process lives.
type Unit struct {
	Name         string `json:"name"`
	ActiveState  string `json:"active_state"`
	SubState     string `json:"sub_state"`
	Result       string `json:"result"`
	InvocationID string `json:"invocation_id"` // Docker: StartedAt; OpenRC: the process and its start
	NRestarts    uint32 `json:"n_restarts"`    // Docker: RestartCount
	MainPID      uint32 `json:"main_pid"`
	Text         string `json:"text,omitempty"` // the error where systemd did not answer
}

// Life is a moment in the life of a unit, from systemd's own journal.
type Life struct {
	Name string `json:"name"`
	What string `json:"what"` // of package conformance: died, lives, given-up, stopped
}

// REST is what Patroni's REST API on a node answered to GET /liveness from there.
type REST struct {
	Status int    `json:"status"`         // of HTTP, 0 where it did not answer
	Text   string `json:"text,omitempty"` // the error where it did not answer
}

// Proxy is HAProxy's view of its servers: name to status ("UP", "DOWN", "UP 1/3").
type Proxy struct {
	Servers map[string]string `json:"servers,omitempty"`
	Text    string            `json:"text,omitempty"`
}

// Lock is Patroni's leader key, read linearizably.
type Lock struct {
	Answered bool   `json:"answered"`
	Holder   string `json:"holder,omitempty"` // member name, empty where the key is absent
	Revision int64  `json:"revision,omitempty"`
	Lease    int64  `json:"lease,omitempty"`
	Left     int64  `json:"left,omitempty"`    // seconds until the lease ends
	Granted  int64  `json:"granted,omitempty"` // seconds that the lease was granted for
	Text     string `json:"text,omitempty"`
}

// Etcd is what a member of etcd says of itself.
type Etcd struct {
	Name     string `json:"name"`
	Answered bool   `json:"answered"`
	Healthy  bool   `json:"healthy"` // GET /health: it has a leader and a quorum
	Member   string `json:"member,omitempty"`
	Leader   string `json:"leader,omitempty"` // "0" or empty where it knows none
	Index    uint64 `json:"index,omitempty"`  // of raft
	Term     uint64 `json:"term,omitempty"`
	Size     int64  `json:"size,omitempty"` // of the database, in bytes
	Text     string `json:"text,omitempty"` // the error where it did not answer
}

// Memory is what the kernel counts of a process, in bytes.
type Memory struct {
	Name      string `json:"name"`
	Resident  int64  `json:"resident"`  // with the pages of the program itself
	Anonymous int64  `json:"anonymous"` // without them
	Peak      int64  `json:"peak"`      // the most that was ever resident
}

// Mark is a moment that the lab itself made: the fault, the end of the observation.
type Mark struct {
	Name string `json:"name"`
	Text string `json:"text,omitempty"`
}

// Journal is one line of an agent's journal, undecoded but for its kind.
type Journal struct {
	Kind string          `json:"kind"`
	Line json.RawMessage `json:"line"`
}

// Parse decodes one line. It returns an error for a line that is not a record, and never panics.
func Parse(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("decode record: %w", err)
	}
	if r.At.IsZero() {
		return Record{}, fmt.Errorf("decode record: no time in %.80q", line)
	}
	return r, nil
}
