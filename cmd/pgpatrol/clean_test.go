package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	cases := map[string]struct{ in, want string }{
		"plain":                 {"postgres-1 is fine", "postgres-1 is fine"},
		"letters of the world":  {"서울 Zürich", "서울 Zürich"},
		"escape sequence":       {"\x1b[31mred\x1b]0;title\a", `\x1b[31mred\x1b]0;title\x07`},
		"carriage return":       {"good\rbad", `good\x0dbad`},
		"line and tab":          {"a\nb\tc", `a\nb\tc`},
		"delete":                {"a\x7fb", `a\x7fb`},
		"C1 control":            {"a\u009b31mb", `a\u009b31mb`},
		"invalid UTF-8":         {"a\x9b\xffb", `a\x9b\xffb`},
		"writing direction":     {"a\u202eb\u2066c", `a\u202eb\u2066c`},
		"no width":              {"a\u200bb\ufeffc", `a\u200bb\ufeffc`},
		"line separator":        {"a\u2028b", `a\u2028b`},
		"space that is not one": {"a\u00a0b", `a\u00a0b`},
		"NUL":                   {"\x00", `\x00`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := clean(tc.in); got != tc.want {
				t.Errorf("clean = %q, want %q", got, tc.want)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31m\u009b\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unsafeRune) {
			t.Fatalf("clean(%q) = %q", s, got)
		}
		if clean(got) != got {
			t.Fatalf("cleaning %q twice changes it", s)
		}
	})
}

func FuzzJSONWriter(f *testing.F) {
	f.Add("a\u009b31m\u202e\U000e0001 \x1b\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		if err := printJSON(&out, []string{s}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(strings.ReplaceAll(out.String(), "\n", ""), unsafeRune) {
			t.Fatalf("unsafe output %q", out.String())
		}
		var back []string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back[0] != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("%q became %q, %v", s, back, err)
		}
	})
}

type stranger struct{ Name string }

func TestLogger_NoRawControlCharacters(t *testing.T) {
	evil := []string{"\x1b]0;owned\a x", `literal \x1b]0;owned x`, "\u009b31m x", "a\nb", "a\rb"}
	for _, format := range []string{"text", "json"} {
		for _, color := range []bool{false, true} {
			var out bytes.Buffer
			e := &env{err: &out, log: screen{terminal: true, color: color}}
			log, err := newLogger(e, "info", format)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range evil {
				out.Reset()
				log.With("with", v).Error("constant", "text", v, "err", errors.New(v), "any", stranger{v}, slog.Group("g", "in", v), "code", stringer(v))
				got := strings.TrimSuffix(out.String(), "\n")
				for _, own := range []string{"\x1b[0m", "\x1b[2m", "\x1b[22m", "\x1b[91m", "\x1b[2;91m", "\x1b[91;2m", "\x1b[22;91m"} {
					got = strings.ReplaceAll(got, own, "")
				}
				if strings.ContainsFunc(got, unsafeRune) {
					t.Errorf("%s, color %v: %q", format, color, got)
				}
			}
		}
	}
}

type stringer string

func (s stringer) String() string { return string(s) }

func TestLogger_Options(t *testing.T) {
	e := &env{err: &bytes.Buffer{}}
	for _, tc := range [][2]string{{"loud", "auto"}, {"info", "xml"}, {"", "auto"}, {"info", ""}} {
		ce, ok := errors.AsType[*codeError](second(newLogger(e, tc[0], tc[1])))
		if !ok || ce.code != exitUsage {
			t.Errorf("%q: %v", tc, ce)
		}
	}
	for terminal, want := range map[bool]string{false: `{"time":`, true: "INF"} {
		var out bytes.Buffer
		e := &env{err: &out, log: screen{terminal: terminal}}
		log, err := newLogger(e, "info", "auto")
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("quiet")
		log.Info("said")
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "quiet") {
			t.Errorf("terminal %v: %q", terminal, out.String())
		}
	}
}

func second[A any](_ A, err error) error { return err }
