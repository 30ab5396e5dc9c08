package config

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Limits of a file. A configuration of a hundred services has some 20 KiB; its lines fit a screen. The parser bounds its
// own depth, but looks back over all of a line for keys, so that a line of 1 MiB would take it ten seconds.
const (
	maxFile = 1 << 20
	maxLine = 1024
)

// Load reads a configuration file and the secrets that it names. What is wrong with the content, the file's mode or the
// secrets is returned as [Problems]; a file that cannot be read is another error. A Config with an error is empty.
func Load(path string) (Config, error) {
	data, mode, err := readRegular(path, maxFile)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	c, d := parse(path, data)
	if mode.Perm()&0o002 != 0 {
		d.add(position{}, "", "everybody may write this file (mode %04o); chmod o-w it", mode.Perm())
	}
	c.readFiles(d.report)
	if err := d.problems.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Parse decodes and validates a configuration without opening any other file, so that passwords stay empty. name is
// what the [Problems] call the file.
func Parse(name string, data []byte) (Config, error) {
	c, d := parse(name, data)
	if err := d.problems.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func parse(name string, data []byte) (Config, *document) {
	d := &document{file: name, at: map[string]position{}, spoiled: map[string]bool{}}
	c := Default()
	body := d.tree(data)
	if body == nil {
		d.spoiled[""] = true // the one problem says it all
		return c, d
	}
	d.decode(body, reflect.ValueOf(&c).Elem(), "")
	c.validate(d.report)
	return c, d
}

// readFiles reads the passwords and tries the certificates.
func (c *Config) readFiles(report func(path, message string)) {
	read := func(path, file string, to *Secret) {
		if file == "" || !isPath(file) {
			return
		}
		var err error
		if *to, err = ReadSecret(file); err != nil {
			report(path, "cannot be used: "+err.Error())
		}
	}
	read("etcd.password_file", c.Etcd.PasswordFile, &c.Etcd.Password)
	for i := range c.Services {
		s := &c.Services[i]
		read(fmt.Sprintf("services[%d].password_file", i), s.PasswordFile, &s.Password)
	}
	c.Etcd.TLS.load(&tls.Config{MinVersion: tls.VersionTLS12}, func(key string, err error) {
		report("etcd.tls."+key, "cannot be used: "+err.Error())
	})
}

// tree returns the root of the file's only document, or nil after recording why there is none.
//
// The parser is the YAML organisation's own: goccy/go-yaml reads [http://192.0.2.1:2379] inside braces as a mapping, and
// takes minutes for some files of 1 MiB (version 1.19.2).
func (d *document) tree(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.add(position{}, "", "is larger than %d KiB", maxFile>>10)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !d.isText(data) {
		return nil
	}
	d.lines = 1 + bytes.Count(bytes.TrimRight(data, "\r\n"), []byte("\n"))
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.syntax(err)
		return nil
	}
	var documents [2]yaml.Node
	for i := range documents {
		if err := loader.Load(&documents[i]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			d.syntax(err)
			return nil
		}
	}
	first, second := documents[0].Content, documents[1].Content
	if len(second) > 0 {
		d.add(start(second[0]), "", "a second document begins here; only one is supported")
	}
	if len(first) == 0 || first[0].ShortTag() == "!!null" {
		d.add(position{}, "", "is empty; node, scope and etcd.endpoints are the least that it needs")
		return nil
	}
	return first[0]
}

// isText refuses what no editor saved: invalid UTF-8, control characters, endless lines.
func (d *document) isText(data []byte) bool {
	at := position{1, 1}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			d.add(at, "", "is not UTF-8 text: byte 0x%02x", data[i])
			return false
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			d.add(at, "", "is not a text file: control character %U", r)
			return false
		case at.column > maxLine:
			d.add(at, "", "has a line of more than %d characters", maxLine)
			return false
		case r == '\n':
			at = position{at.line + 1, 0}
		}
		at.column++
		i += size
	}
	return true
}

// syntax records an error of the parser, in its words but never in those of the file, which may hold a secret. What was
// still open at the end of the file is reported where it was opened.
func (d *document) syntax(err error) {
	le, ok := errors.AsType[*yaml.LoadError](err)
	if !ok || strings.HasPrefix(le.Message, "unknown anchor") {
		d.add(position{}, "", "YAML: the parser gave up; anchors and aliases are not supported")
		return
	}
	at, message := le.Mark, le.Message
	if le.ContextMsg != "" {
		message = le.ContextMsg + ": " + message
	}
	if at.Line > d.lines && le.ContextMark.Line > 0 {
		at = le.ContextMark
	}
	d.add(position{max(1, at.Line), max(1, at.Column)}, "", "YAML: %s", message)
}
