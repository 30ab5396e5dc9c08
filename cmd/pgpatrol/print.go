package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// screen is what is known of where output goes. The zero value is a pipe: no colours, lines of any length.
type screen struct {
	terminal bool
	color    bool
	width    int // columns, 0 if they do not matter
}

// screenOf looks whether a file is a terminal. NO_COLOR and TERM=dumb turn colours off (https://no-color.org).
func screenOf(f *os.File) screen {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return screen{}
	}
	s := screen{terminal: true, width: int(ws.Col)}
	s.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if s.width != 0 && s.width < 40 {
		s.width = 40
	}
	return s
}

// printer writes lines of text. Everything that is put into a format is cleaned, so that no caller can forget it.
type printer struct {
	w io.Writer
	s screen
}

func newPrinter(w io.Writer, s screen) *printer { return &printer{w: w, s: s} }

// painted is text that is shown in a colour where there are colours.
type painted struct {
	code string
	text string
}

func (p *printer) format(format string, args ...any) string {
	safe := make([]any, len(args))
	for i, a := range args {
		safe[i] = p.safe(a)
	}
	return fmt.Sprintf(format, safe...)
}

func (p *printer) safe(a any) any {
	switch v := a.(type) {
	case painted:
		if p.s.color {
			return "\x1b[" + v.code + "m" + clean(v.text) + "\x1b[0m"
		}
		return clean(v.text)
	case error:
		return clean(v.Error())
	case fmt.Stringer:
		return clean(v.String())
	}
	if v := reflect.ValueOf(a); v.Kind() == reflect.String {
		return clean(v.String())
	}
	return a
}

// line prints one line.
func (p *printer) line(format string, args ...any) {
	_, _ = io.WriteString(p.w, p.format(format, args...)+"\n")
}

// short prints one line and cuts it to the width of a terminal.
func (p *printer) short(format string, args ...any) {
	s := p.format(format, args...)
	if p.s.width > 0 && utf8.RuneCountInString(s) > p.s.width {
		s = string([]rune(s)[:p.s.width-1]) + "…"
	}
	_, _ = io.WriteString(p.w, s+"\n")
}

// para prints a paragraph after lead, broken between words to the width of a terminal; its further lines begin with
// indent.
func (p *printer) para(lead, indent, format string, args ...any) {
	var b strings.Builder
	b.WriteString(lead)
	column := utf8.RuneCountInString(lead)
	for i, w := range strings.Fields(p.format(format, args...)) {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case p.s.width > 0 && column+1+n > p.s.width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += n
	}
	_, _ = io.WriteString(p.w, b.String()+"\n")
}

// table prints rows in aligned columns under a head. Where they do not fit, every row becomes a paragraph instead.
func (p *printer) table(indent string, head []string, rows [][]string) {
	widths := make([]int, len(head))
	all := append([][]string{head}, rows...)
	for i := range all {
		for j := range all[i] {
			all[i][j] = clean(all[i][j])
			widths[j] = max(widths[j], utf8.RuneCountInString(all[i][j]))
		}
	}
	total := len(indent)
	for _, w := range widths {
		total += w + 2
	}
	if p.s.width > 0 && total > p.s.width+2 {
		for _, row := range rows {
			var parts []string
			for j, cell := range row[1:] {
				parts = append(parts, strings.ToLower(head[j+1])+" "+cell)
			}
			p.para(indent, indent+"  ", "%s: %s", row[0], strings.Join(parts, ", "))
		}
		return
	}
	for _, row := range all {
		var b strings.Builder
		b.WriteString(indent)
		for j, cell := range row {
			b.WriteString(cell)
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+2))
			}
		}
		_, _ = io.WriteString(p.w, strings.TrimRight(b.String(), " ")+"\n")
	}
}

// printJSON writes a value as indented JSON.
func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	if _, err := (jsonWriter{w}).Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// span words a duration with two units at most.
func span(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	switch s := int64(d / time.Second); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}

// age words how long ago an instant was; a fact without one was never observed.
func age(now, at node.Instant) string {
	if at == 0 {
		return "never"
	}
	return span(now.Sub(at))
}
