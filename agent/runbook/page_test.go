package runbook

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `It is a sample.

## What it means

One paragraph
of two lines.
    a command   with  spaces
Another one:
- an item
- a long
  item

## What pgpatrol does

Nothing.

## What you should do

    # look
    look

## Why

Because.
`

func TestParse(t *testing.T) {
	got, err := parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	want := Page{Summary: "It is a sample.", Sections: []Section{
		{"What it means", []Block{
			{Paragraph, "One paragraph of two lines."},
			{Command, "a command   with  spaces"},
			{Paragraph, "Another one:"},
			{Item, "an item"},
			{Item, "a long item"},
		}},
		{"What pgpatrol does", []Block{{Paragraph, "Nothing."}}},
		{"What you should do", []Block{{Command, "# look"}, {Command, "look"}}},
		{"Why", []Block{{Paragraph, "Because."}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParse_Refuses(t *testing.T) {
	with := func(old, replacement string) string { return strings.Replace(sample, old, replacement, 1) }
	cases := map[string]struct{ text, want string }{
		"empty":                {"", "newline"},
		"one line":             {"It is.\n", "there are 0 sections"},
		"no summary":           {"\n" + sample, "one sentence"},
		"two sentences":        {with("sample.", "sample. Yes."), "one sentence"},
		"summary is a title":   {"# " + sample, "one sentence"},
		"text before":          {with("\n\n", "\n\nmore\n\n"), "before the first section"},
		"section missing":      {with("## Why\n\nBecause.\n", "x\n"), "there are 3 sections"},
		"section empty":        {with("Because.\n", ""), "newline"},
		"section without text": {with("Nothing.\n\n", ""), `"What pgpatrol does" is empty`},
		"wrong order":          {with("## What it means", "## Why"), `section 1 is "Why"`},
		"deeper title":         {with("Nothing.", "### Nothing."), "neither a title"},
		"title goes on":        {with("of two lines.", "#of two lines."), "neither a title"},
		"wrong indent":         {with("  item", "   item"), "neither paragraph"},
		"item without indent":  {with("  item", "item"), "neither paragraph"},
		"indent without item":  {with("of two", "  of two"), "neither paragraph"},
		"tab":                  {with("Nothing.", "\tNothing."), "a tab"},
		"escape":               {with("Nothing.", "\x1b[31mNothing."), "cannot be seen"},
		"not UTF-8":            {with("Nothing.", "\xff"), "UTF-8"},
		"space at the end":     {with("Nothing.", "Nothing. "), "spaces at the end"},
		"two empty lines":      {with("\n\n## Why", "\n\n\n## Why"), "two empty lines"},
		"no newline":           {strings.TrimSuffix(sample, "\n"), "newline"},
	}
	for name, tc := range cases {
		_, err := parse(tc.text)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
}

// FuzzParse: whatever is accepted is complete, and says nothing that a terminal would obey.
func FuzzParse(f *testing.F) {
	f.Add(sample)
	entries, err := fs.ReadDir(pages, "pages")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		b, err := pages.ReadFile("pages/" + e.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parse(s)
		if err != nil {
			return
		}
		if p.Summary == "" || len(p.Sections) != len(Titles()) {
			t.Fatalf("accepted an incomplete page: %+v", p)
		}
		for _, sec := range p.Sections {
			if len(sec.Blocks) == 0 {
				t.Fatalf("accepted the empty section %q", sec.Title)
			}
			for _, b := range sec.Blocks {
				if b.Text == "" && b.Form == Command || strings.ContainsAny(b.Text, "\x1b\x00\n") {
					t.Fatalf("accepted the block %+v", b)
				}
			}
		}
	})
}
