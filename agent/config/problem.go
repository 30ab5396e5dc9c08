package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds a report: past a hundred the file is not a configuration but an accident.
const maxProblems = 100

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // from 1; 0 if the problem is the file itself
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Path    string `json:"path,omitempty"`   // e.g. services[0].manager.systemd; empty for the whole file
	Message string `json:"message"`          // reads as a sentence after the path; never holds a secret
}

// String returns the problem as FILE:LINE:COLUMN: PATH: MESSAGE, without the parts that it lacks.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	for _, part := range []string{p.Path, p.Message} {
		if part == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	return b.String()
}

// Problems is everything that is wrong with a configuration, in the order of the file. As an error it prints one
// problem per line.
type Problems []Problem

// Error implements error.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// err returns the problems sorted and cut to maxProblems, or nil if there is none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	if more := len(ps) - maxProblems; more > 0 {
		ps = append(ps[:maxProblems:maxProblems], Problem{File: ps[0].File, Message: fmt.Sprintf("and %d more problems", more)})
	}
	return ps
}

// nearest returns the word that somebody who wrote got most likely meant, or "" if none is close. Case, hyphens and
// underscores do not count, so that dataDir and data-dir find data_dir.
func nearest(got string, words []string) string {
	plain := strings.NewReplacer("-", "", "_", "").Replace
	const longest = 40 // keeps the quadratic distance small for a key that is a whole paragraph
	if len(got) > longest {
		return ""
	}
	got = plain(strings.ToLower(got))
	best, bestDistance := "", 1+max(1, len(got)/3)
	for _, w := range words {
		if d := distance(got, plain(strings.ToLower(w))); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance counts the single-byte insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
