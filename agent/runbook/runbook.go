// Package runbook is the operator's manual: one page for every finding, guard, class, mode and verb.
//
// It owns the pages, which are embedded in the binary so that they are at hand at 3 a.m. without an agent, a network or a
// web site, and so that they are always of the same version as the code that they explain. It promises that every name
// has a page and every page has all sections (the tests look). It deliberately knows nothing of the present state: what
// is wrong now, with its numbers, is said by findings and refusals, which name the page by its code.
package runbook

import (
	"embed"
	"fmt"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

//go:embed pages/*.md
var pages embed.FS

// Kind is what a page is about.
type Kind string

// Kinds of pages, in the order in which they are listed.
const (
	Finding Kind = "finding"
	Guard   Kind = "guard"
	Class   Kind = "class"
	Mode    Kind = "mode"
	Verb    Kind = "verb"
)

// Topic is a name that has a page.
type Topic struct {
	Kind Kind   `json:"kind"`
	Code string `json:"code"`
}

// Topics returns everything that has a page, in the order in which it is listed.
func Topics() []Topic {
	var out []Topic
	for _, c := range node.Codes() {
		out = append(out, Topic{Finding, string(c)})
	}
	for _, g := range node.Guards() {
		out = append(out, Topic{Guard, string(g)})
	}
	for _, c := range node.Classes() {
		out = append(out, Topic{Class, string(c)})
	}
	for _, m := range node.Modes() {
		out = append(out, Topic{Mode, string(m)})
	}
	for _, v := range node.Verbs() {
		out = append(out, Topic{Verb, string(v)})
	}
	return out
}

// name is unique among all topics: STORM is a finding and storm a guard, and a file system may not tell them apart.
func (t Topic) name() string {
	if t.Kind == Finding {
		return t.Code
	}
	return string(t.Kind) + "-" + t.Code
}

// Find returns the topics that a word means. The exact spelling wins; otherwise case does not matter, and "_" is "-". A
// kind before the name, as in "guard-storm", restricts it to that kind. There are several if the word does not say which.
func Find(word string) []Topic {
	var out []Topic
	for _, t := range Topics() {
		switch {
		case word == t.Code || word == t.name():
			return []Topic{t}
		case same(word, t.Code), same(word, t.name()), same(word, string(t.Kind)+"-"+t.Code):
			out = append(out, t)
		}
	}
	return out
}

func same(a, b string) bool { return plain(a) == plain(b) }

func plain(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

// Load returns the page of a topic. It fails only for a topic that is not one of [Topics].
func Load(t Topic) (Page, error) {
	b, err := pages.ReadFile("pages/" + t.name() + ".md")
	if err != nil {
		return Page{}, fmt.Errorf("there is no page on %s %s: %w", t.Kind, t.Code, err)
	}
	p, err := parse(string(b))
	if err != nil {
		return Page{}, fmt.Errorf("page on %s %s: %w", t.Kind, t.Code, err)
	}
	p.Topic = t
	return p, nil
}
