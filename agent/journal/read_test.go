package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

func seqs(rs []Record) []uint64 {
	var out []uint64
	for _, r := range rs {
		out = append(out, r.Seq)
	}
	return out
}

func TestRecord_BySequenceNumber(t *testing.T) {
	j := open(t, stateDir(t), newWorld().deps())
	if _, err := j.Record(1); !errors.Is(err, ErrNoRecord) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty journal: %v", err)
	}
	for i := range 3 {
		say(t, j, fmt.Sprint("noise ", i))
	}
	r, err := j.Record(2)
	if err != nil || r.Text != "noise 1" {
		t.Errorf("Record(2) = %q, %v", r.Text, err)
	}
	if _, err := j.Record(9); !errors.Is(err, ErrNoRecord) || !strings.Contains(err.Error(), "1 to 3") {
		t.Errorf("Record(9) = %v", err)
	}
	closeJournal(t, j)
	if _, err := j.Record(2); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestPage(t *testing.T) {
	d := newWorld().deps()
	d.MaxBytes = 1024
	j := open(t, stateDir(t), d)
	intend(t, j, "spent") // makes rotation write carries
	for range 12 {
		say(t, j, "noise")
	}
	var all []uint64
	for {
		after := uint64(0)
		if len(all) > 0 {
			after = all[len(all)-1]
		}
		page, err := j.Page(after, 5, 1<<20)
		must(t, err)
		if len(page) == 0 {
			break
		}
		if len(page) > 5 {
			t.Fatalf("page of %d", len(page))
		}
		all = append(all, seqs(page)...)
	}
	if diff := cmp.Diff(seqs(records(t, j, Query{})), all); diff != "" {
		t.Errorf("pages (-records +pages):\n%s", diff)
	}
	page, err := j.Page(0, 100, 1)
	if err != nil || len(page) != 1 {
		t.Errorf("a page holds at least one record, got %d, %v", len(page), err)
	}
}

func TestReadDir_WhatTheJournalHolds(t *testing.T) {
	d, dir := newWorld().deps(), stateDir(t)
	d.MaxBytes = 1024
	j := open(t, dir, d)
	intend(t, j, "spent")
	for range 12 {
		say(t, j, "noise")
	}
	c, err := ReadDir(dir) // while the agent holds the lock
	must(t, err)
	var got []Record
	for _, r := range c.Records {
		if r.Kind != Carry {
			got = append(got, r)
		}
	}
	if diff := cmp.Diff(records(t, j, Query{}), got); diff != "" || len(c.Damaged) != 0 {
		t.Errorf("(-journal +copy):\n%s\ndamaged: %v", diff, c.Damaged)
	}
}

func TestReadDir_Damage(t *testing.T) {
	d, dir := newWorld().deps(), stateDir(t)
	j := open(t, dir, d)
	for i := range 5 {
		say(t, j, fmt.Sprint("noise ", i))
	}
	closeJournal(t, j)
	lines := bytes.SplitAfter(readCurrent(t, dir), []byte("\n"))
	flipped := bytes.Replace(lines[1], []byte("noise"), []byte("noice"), 1)
	newer := []byte(`{"v":9,"seq":6,"kind":"later","sum":"00000000"}` + "\n")
	before := bytes.Join([][]byte{lines[0], flipped, lines[2], lines[4], newer, []byte(`{"v":1,"se`)}, nil)
	writeCurrent(t, dir, before)

	c, err := ReadDir(dir)
	must(t, err)
	if diff := cmp.Diff([]uint64{1, 3, 5, 6}, seqs(c.Records)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	var reasons []string
	for _, one := range c.Damaged {
		if one.File != filepath.Join(dir, currentName) {
			t.Errorf("file %q", one.File)
		}
		reasons = append(reasons, one.Reason)
	}
	want := []string{
		"not a record: checksum differs", "record 3 follows record 1", "record 5 follows record 3",
		"record 6 has version 9, this program knows 1: it is read as far as it is understood", "not a record: it has no end",
	}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("damage (-want +got):\n%s", diff)
	}
	if !bytes.Equal(before, readCurrent(t, dir)) {
		t.Error("reading changed the file")
	}
}

func TestReadDir_Refusals(t *testing.T) {
	if _, err := ReadDir(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := ReadDir(filepath.Join(t.TempDir(), "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, currentName), 0o700))
	if _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a directory in place of the file: %v", err)
	}
}

func TestStamp_NamesTheProgramWhereADecisionIs(t *testing.T) {
	d := newWorld().deps()
	d.Program = "1.2.3"
	j := open(t, stateDir(t), d)
	_, err := j.Append(Record{Kind: Plan, Plan: &node.Plan{}, Question: &node.Question{}})
	must(t, err)
	say(t, j, "noise")
	rs := records(t, j, Query{})
	if rs[0].Program != "1.2.3" || rs[1].Program != "" {
		t.Errorf("programs %q, %q", rs[0].Program, rs[1].Program)
	}
}

// Whatever a copied file holds, reading it ends, and what is returned are records.
func FuzzCopy(f *testing.F) {
	whole, err := encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add([]byte("\n\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Copy
		must(t, scan(bytes.NewReader(b), func(l line) { c.add("f", l) }))
		if lines := bytes.Count(b, []byte("\n")) + 1; len(c.Records) > lines || len(c.Damaged) > 3*lines {
			t.Fatalf("%d records and %d damaged places in %d lines", len(c.Records), len(c.Damaged), lines)
		}
		for _, d := range c.Damaged {
			if d.Reason == "" || d.Offset > int64(len(b)) {
				t.Fatalf("%+v", d)
			}
		}
	})
}
