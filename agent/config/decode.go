package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// position is a place in the file, both parts from 1.
type position struct{ line, column int }

// document is one file on its way into a Config: where every path was seen and what was wrong on the way.
//
// The tree is walked by hand because the library's own strict decoding knows no paths and suggests nothing.
type document struct {
	file     string
	lines    int                 // how many the file has; what follows the last one is reported there
	at       map[string]position // where the value of a path begins; "" is the top
	spoiled  map[string]bool     // paths whose value was refused, so that nothing more is said of them
	problems Problems
}

// add records a problem at a place in the file.
func (d *document) add(at position, path, format string, args ...any) {
	if d.lines > 0 {
		at.line = min(at.line, d.lines)
	}
	d.problems = append(d.problems, Problem{
		File: d.file, Line: at.line, Column: at.column, Path: path, Message: fmt.Sprintf(format, args...),
	})
}

// refuse records a problem of a value and mutes everything that Validate would say of it.
func (d *document) refuse(n *yaml.Node, path, format string, args ...any) {
	d.spoiled[path] = true
	d.add(start(n), path, format, args...)
}

// report records a problem by path alone, at the nearest enclosing value that the file has. It says nothing of a path
// that was refused before.
func (d *document) report(path, message string) {
	at, found := position{}, false
	for p := path; ; p = parentPath(p) {
		if d.spoiled[p] {
			return
		}
		if !found {
			at, found = d.at[p]
		}
		if p == "" {
			break
		}
	}
	d.add(at, path, "%s", message)
}

// parentPath cuts the last key or index off a path.
func parentPath(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// decode stores the value of n in v, which is a struct, a slice, modes by finding or a string, and records what does not
// fit.
func (d *document) decode(n *yaml.Node, v reflect.Value, path string) {
	d.at[path] = start(n)
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.refuse(n, path, "anchors and aliases are not supported; write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.refuse(n, path, "tags are not supported; remove %s", strconv.Quote(clip(n.ShortTag())))
		return
	case n.ShortTag() == "!!null":
		d.refuse(n, path, "has no value; give it one or remove the key")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(n, v, path)
	case reflect.Slice:
		d.decodeSlice(n, v, path)
	case reflect.Map:
		d.decodeMap(n, v, path)
	case reflect.String:
		switch {
		case n.Kind != yaml.ScalarNode:
			d.refuse(n, path, "must be text, not %s", describe(n))
		case n.ShortTag() != "!!str":
			d.refuse(n, path, "must be text, not %s; put it in quotes if it is meant so", describe(n))
		default:
			v.SetString(n.Value)
		}
	default:
		// Only a programmer can get here, by adding a field of another type; the reference file's test would fail.
		d.refuse(n, path, "cannot be decoded into %s", v.Type())
	}
}

func (d *document) decodeSlice(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.refuse(n, path, "must be a list, not %s", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *document) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	fields, names := fieldsOf(v.Type())
	d.decodePairs(n, path, names, func(key string, value *yaml.Node) {
		d.decode(value, v.Field(fields[key]), join(path, key))
	})
}

// decodeMap decodes something by finding, or by a name that people chose, which validation looks at.
func (d *document) decodeMap(n *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	var names []string // nil: any
	if v.Type().Key() == reflect.TypeFor[node.Code]() {
		names = findingNames()
	}
	d.decodePairs(n, path, names, func(key string, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, join(path, key))
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	})
}

// decodePairs calls f for every key that is known, any where names is nil, and its value, and records the others.
func (d *document) decodePairs(n *yaml.Node, path string, names []string, f func(key string, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.refuse(n, path, "must hold keys and values, not %s", describe(n))
		return
	}
	first := make(map[string]position, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 || key.ShortTag() == "!!merge" {
			d.add(start(key), path, "merge keys, anchors, aliases, tags and compound keys are not supported")
			continue
		}
		if names != nil && !slices.Contains(names, key.Value) {
			d.unknown(start(key), path, key.Value, names)
			continue
		}
		if before, twice := first[key.Value]; twice {
			d.add(start(key), join(path, key.Value), "is given twice, first on line %d", before.line)
			continue
		}
		first[key.Value] = start(key)
		f(key.Value, value)
	}
}

// unknown records an unknown key, and mutes the complaint that the key which was probably meant is missing.
func (d *document) unknown(at position, path, key string, names []string) {
	if meant := nearest(key, names); meant != "" {
		d.spoiled[join(path, meant)] = true
		d.add(at, join(path, key), "unknown key; did you mean %s?", meant)
		return
	}
	d.spoiled[path] = d.spoiled[path] || len(names) == 1 // the one thing that belongs here was replaced
	d.add(at, join(path, key), "unknown key; supported here: %s", strings.Join(names, ", "))
}

// fieldsOf returns the keys of a struct, with the index of each one's field and in the order of the fields.
func fieldsOf(t reflect.Type) (index map[string]int, names []string) {
	index = make(map[string]int, t.NumField())
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "-" {
			index[name] = i
			names = append(names, name)
		}
	}
	return index, names
}

func start(n *yaml.Node) position { return position{max(1, n.Line), max(1, n.Column)} }

// describe names the type of a node as its author sees it.
func describe(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!map":
		return "keys and values"
	case "!!seq":
		return "a list"
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "this"
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// join appends a key to a path. A key that is no plain word is quoted and cut short.
func join(path, key string) string {
	if !plainKey.MatchString(key) {
		key = strconv.Quote(clip(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// clip cuts a text to what fits into a message.
func clip(s string) string {
	const most = 64
	if r := []rune(s); len(r) > most {
		return string(slices.Concat(r[:most], []rune("...")))
	}
	return s
}
