package runbook

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Page is one page of the manual.
type Page struct {
	Topic
	Summary  string    `json:"summary"` // one sentence
	Sections []Section `json:"sections"`
}

// Section is a part of a page under a title of [Titles].
type Section struct {
	Title  string  `json:"title"`
	Blocks []Block `json:"blocks"`
}

// Block is a paragraph, an item of a list, or a command line.
type Block struct {
	Form Form   `json:"form"`
	Text string `json:"text"`
}

// Form is how a block is shown.
type Form string

// Forms of blocks.
const (
	Paragraph Form = "paragraph" // may be broken between words
	Item      Form = "item"      // the same, as a part of a list
	Command   Form = "command"   // one line, to be copied as it is
)

// Titles returns the titles of the sections that every page has, in this order.
func Titles() []string {
	return []string{"What it means", "What pgpatrol does", "What you should do", "Why"}
}

// parse reads a page. The format is a strict little part of Markdown, so that a page is as readable in the repository:
//
//	One sentence.
//
//	## What it means
//
//	A paragraph, which may
//	go on for several lines.
//	- An item, which goes on
//	  with two spaces.
//	    a command
//
// Anything else is an error.
func parse(text string) (Page, error) {
	if err := wellFormed(text); err != nil {
		return Page{}, err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	p := Page{Summary: lines[0]}
	if !strings.HasSuffix(p.Summary, ".") || strings.Contains(p.Summary, ". ") || strings.HasPrefix(p.Summary, "#") {
		return Page{}, errors.New("line 1: it must be one sentence that ends with a full stop")
	}
	open := false // the last block may go on
	for i, line := range lines[1:] {
		var err error
		if open, err = p.add(line, open); err != nil {
			return Page{}, fmt.Errorf("line %d: %w", i+2, err)
		}
	}
	return p, p.complete()
}

func wellFormed(text string) error {
	switch {
	case !utf8.ValidString(text):
		return errors.New("it is not UTF-8")
	case !strings.HasSuffix(text, "\n") || strings.HasSuffix(text, "\n\n"):
		return errors.New("it must end with one newline")
	case strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }):
		return errors.New("there is a tab or another character that cannot be seen")
	case strings.Contains(text, " \n"), strings.Contains(text, "\n\n\n"):
		return errors.New("there are spaces at the end of a line, or two empty lines")
	}
	return nil
}

// add takes one line and reports whether the next one may continue its block.
func (p *Page) add(line string, open bool) (bool, error) {
	if title, ok := strings.CutPrefix(line, "## "); ok {
		p.Sections = append(p.Sections, Section{Title: title})
		return false, nil
	}
	if line == "" {
		return false, nil
	}
	if len(p.Sections) == 0 {
		return false, errors.New("text before the first section")
	}
	s := &p.Sections[len(p.Sections)-1]
	rest := strings.TrimLeft(line, " ")
	indent := len(line) - len(rest)
	switch {
	case indent == 4:
		s.Blocks = append(s.Blocks, Block{Command, rest})
		return false, nil
	case strings.HasPrefix(rest, "#"):
		return false, fmt.Errorf("%q is neither a title of a section nor a command", line)
	case indent == 0 && strings.HasPrefix(rest, "- "):
		s.Blocks = append(s.Blocks, Block{Item, rest[2:]})
		return true, nil
	case indent == 0 && !open:
		s.Blocks = append(s.Blocks, Block{Paragraph, rest})
		return true, nil
	}
	if open {
		last := &s.Blocks[len(s.Blocks)-1]
		if (last.Form == Item) == (indent == 2) && (indent == 0 || indent == 2) {
			last.Text += " " + rest
			return true, nil
		}
	}
	return false, fmt.Errorf("%q is neither paragraph, item nor command", line)
}

// complete reports what is missing of a page.
func (p *Page) complete() error {
	titles := Titles()
	if len(p.Sections) != len(titles) {
		return fmt.Errorf("there are %d sections, not %d", len(p.Sections), len(titles))
	}
	for i, s := range p.Sections {
		if s.Title != titles[i] {
			return fmt.Errorf("section %d is %q, not %q", i+1, s.Title, titles[i])
		}
		if len(s.Blocks) == 0 {
			return fmt.Errorf("section %q is empty", s.Title)
		}
	}
	return nil
}
