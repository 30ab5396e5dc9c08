package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes text from elsewhere safe to show: whatever a terminal could take for a command, or a reader could not see,
// is replaced by its number. Names in etcd and replies of peers are written by whoever can reach them.
func clean(s string) string {
	if !strings.ContainsFunc(s, unsafeRune) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf && unsafeRune(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unsafeRune(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

// unsafeRune reports whether a character is anything but visible text or a plain space: control characters of both
// sets, marks that change the direction of writing, characters of no width, and private or unassigned ones.
func unsafeRune(r rune) bool {
	return r != ' ' && (r == utf8.RuneError || !unicode.IsGraphic(r) || r != ' ' && unicode.IsSpace(r))
}

// jsonWriter replaces the unsafe characters of JSON text by its own escapes. In JSON they can only stand in strings,
// and encoding/json leaves those above U+007E as they are. Every Write must hold whole characters.
type jsonWriter struct {
	w io.Writer
}

// Write implements io.Writer.
func (j jsonWriter) Write(b []byte) (int, error) {
	var out strings.Builder
	for _, r := range string(b) {
		switch {
		case r < 0x7f || !unsafeRune(r):
			out.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	if _, err := io.WriteString(j.w, out.String()); err != nil {
		return 0, err
	}
	return len(b), nil
}
