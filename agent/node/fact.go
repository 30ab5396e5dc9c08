// Package node holds the nouns of pgpatrol: facts, snapshots, findings, actions, plans, and the one vocabulary of
// reasons that log, journal, API, command line and page share.
//
// It owns plain values and their JSON form. It promises that every value carries its own time, so that whoever decides
// needs no clock. It deliberately holds no behaviour beyond what a value can say of itself: nothing here reads, waits,
// decides or acts.
package node

import (
	"fmt"
	"time"
)

// Instant is a moment on this machine: time since boot on a clock that runs on in suspend (CLOCK_BOOTTIME). Decisions
// compare instants only; wall-clock time is for people (FAULTS.md S3, S39).
type Instant time.Duration

// Sub returns the time from u to i.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// Add returns the moment d after i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// String prints the instant as a duration since boot.
func (i Instant) String() string { return time.Duration(i).String() }

// Fact is one observation: a value, where it came from, and when. A fact that is not known says why.
//
// The zero value is "never observed". A fact keeps its last value when a later observation fails only if the observer
// says so by leaving Known true with the old At; freshness is then the guard's business.
type Fact[T any] struct {
	Value  T       `json:"value"`
	Known  bool    `json:"known"`
	Source string  `json:"source,omitempty"` // e.g. "etcd linearizable", "systemd", "http://127.0.0.1:8008/liveness"
	At     Instant `json:"at,omitempty"`     // when the observation began, which is the latest moment it can vouch for
	Why    string  `json:"why,omitempty"`    // why it is unknown
}

// Seen returns a known fact.
func Seen[T any](v T, source string, at Instant) Fact[T] {
	return Fact[T]{Value: v, Known: true, Source: source, At: at}
}

// Unseen returns an unknown fact with the reason.
func Unseen[T any](source, why string, at Instant) Fact[T] {
	return Fact[T]{Source: source, Why: why, At: at}
}

// Age returns how long ago the fact was observed.
func (f Fact[T]) Age(now Instant) time.Duration { return now.Sub(f.At) }

// Fresh reports whether the fact is known and at most limit old.
func (f Fact[T]) Fresh(now Instant, limit time.Duration) bool {
	return f.Known && f.Age(now) <= limit
}

// Evidence is a fact as it is shown to a person: what, from where, how old.
type Evidence struct {
	Subject string  `json:"subject"` // e.g. "leader key", "patroni.service"
	Value   string  `json:"value"`
	Source  string  `json:"source"`
	At      Instant `json:"at"`
	Known   bool    `json:"known"`
}

// Show turns a fact into evidence with the given words for its value.
func Show[T any](subject string, f Fact[T], format string, args ...any) Evidence {
	e := Evidence{Subject: subject, Source: f.Source, At: f.At, Known: f.Known}
	switch {
	case f.Known:
		e.Value = fmt.Sprintf(format, args...)
	case f.Why != "":
		e.Value = "unknown: " + f.Why
	default:
		e.Value = "unknown: not observed yet"
	}
	return e
}
