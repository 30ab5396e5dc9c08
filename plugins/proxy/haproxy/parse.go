package haproxy

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

// States of a server that lead clients to it (FACTS.md §6.1): one that is starting slowly does too.
const (
	opStarting = 1
	opRunning  = 2
)

// stateFields are the columns of `show servers state` that are read, found by their names in its header.
var stateFields = []string{"be_name", "srv_name", "srv_addr", "srv_op_state", "srv_admin_state", "srv_time_since_last_change", "srv_port"}

// parseState reads `show servers state`, format version 1. What is not that is an error that says what, without the text.
func parseState(text string) ([]proxy.Server, error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if lines[0] != "1" {
		return nil, errors.New(complaint(lines[0], "it is not format version 1"))
	}
	if len(lines) < 2 || !strings.HasPrefix(lines[1], "# ") {
		return nil, errors.New("it has no header")
	}
	at, err := columns(strings.Fields(lines[1][2:]), stateFields)
	if err != nil {
		return nil, err
	}
	var out []proxy.Server
	for _, line := range lines[2:] {
		if strings.TrimSpace(line) == "" {
			continue
		}
		s, err := parseServer(strings.Fields(line), at)
		if err != nil {
			return nil, fmt.Errorf("server %d: %w", len(out)+1, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// columns finds where the wanted fields stand.
func columns(header, wanted []string) (map[string]int, error) {
	at := map[string]int{}
	for _, name := range wanted {
		i := slices.Index(header, name)
		if i < 0 {
			return nil, fmt.Errorf("it has no column %s", name)
		}
		at[name] = i
	}
	return at, nil
}

func parseServer(fields []string, at map[string]int) (proxy.Server, error) {
	for _, i := range at {
		if i >= len(fields) {
			return proxy.Server{}, fmt.Errorf("it has %d fields only", len(fields))
		}
	}
	s := proxy.Server{ID: proxy.ID{Backend: fields[at["be_name"]], Server: fields[at["srv_name"]]}, Address: fields[at["srv_addr"]]}
	if err := s.Check(); err != nil {
		return proxy.Server{}, err
	}
	if s.Address == "-" || !plain(s.Address) {
		s.Address = ""
	}
	numbers := map[string]int{}
	for _, name := range []string{"srv_op_state", "srv_admin_state", "srv_time_since_last_change", "srv_port"} {
		n, err := strconv.ParseUint(fields[at[name]], 10, 31)
		if err != nil {
			return proxy.Server{}, fmt.Errorf("%s is no number", name)
		}
		numbers[name] = int(n)
	}
	op := numbers["srv_op_state"]
	s.Up = op == opStarting || op == opRunning
	s.Admin = proxy.Admin(numbers["srv_admin_state"])
	s.Since = time.Duration(numbers["srv_time_since_last_change"]) * time.Second
	s.Port = numbers["srv_port"]
	return s, nil
}

// plain reports whether a word can be an address or a name of a host.
func plain(s string) bool {
	return len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".:-_%[]", r)
	})
}

// parseSessions reads how many sessions each server has from `show stat`.
func parseSessions(text string) (map[proxy.ID]int, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "# ") {
		return nil, errors.New(complaint(text, "it has no header"))
	}
	r := csv.NewReader(strings.NewReader(text[2:]))
	r.FieldsPerRecord = -1
	r.LazyQuotes = true
	records, err := r.ReadAll()
	if err != nil || len(records) == 0 {
		return nil, errors.New("it is no CSV")
	}
	at, err := columns(records[0], []string{"pxname", "svname", "scur"})
	if err != nil {
		return nil, err
	}
	out := map[proxy.ID]int{}
	for _, f := range records[1:] {
		if len(f) <= max(at["pxname"], at["svname"], at["scur"]) {
			continue
		}
		n, err := strconv.ParseUint(f[at["scur"]], 10, 31)
		if err != nil {
			continue // a frontend or a backend without the number
		}
		out[proxy.ID{Backend: f[at["pxname"]], Server: f[at["svname"]]}] = int(n)
	}
	return out, nil
}

// complaint is what HAProxy said instead of an answer, where that is short and printable.
func complaint(said, otherwise string) string {
	if said = strings.TrimSpace(said); said == "" || len(said) > 200 {
		return otherwise
	}
	return "HAProxy answers " + strconv.Quote(printable(said))
}

// printable returns the beginning of a text with everything replaced that could disturb a terminal or a log.
func printable(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}
