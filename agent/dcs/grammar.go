package dcs

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxValue bounds every value that is looked at. Patroni's largest, the history of a cluster with hundreds of
// timelines, stays far below.
const maxValue = 1 << 20

// Words that Patroni writes (FACTS.md §2.5, §1.2; patroni/postgresql/misc.py). Another word is not passed on.
var (
	states = []string{
		"initializing new cluster", "initdb failed", "running custom bootstrap script", "custom bootstrap failed",
		"creating replica", "running", "starting", "starting after custom bootstrap", "start failed", "restarting",
		"restart failed", "stopping", "stopped", "stop failed", "crashed", "unknown",
	}
	roles = []string{
		"primary", "master", "standby_leader", "replica", "demoted", "uninitialized", "promoted",
	}
	replicationStates = []string{"streaming", "in archive recovery"}
)

var (
	nameRE    = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,63}$`)
	versionRE = regexp.MustCompile(`^[A-Za-z0-9.+-]{1,32}$`)
	hostRE    = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$`)
	systemRE  = regexp.MustCompile(`^[0-9]{1,20}$`)
	integerRE = regexp.MustCompile(`^-?[0-9]{1,19}$`)
)

// validName reports whether s is a member or scope name. "." and ".." would be other paths.
func validName(s string) bool { return nameRE.MatchString(s) && s != "." && s != ".." }

// validHost reports whether s is an IP address or a host name.
func validHost(s string) bool {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Zone() == ""
	}
	return hostRE.MatchString(s)
}

// checkText says why a value is not text that may be looked at, or "".
func checkText(b []byte) string {
	if len(b) > maxValue {
		return "value is larger than 1 MiB"
	}
	if !utf8.Valid(b) {
		return "value is not valid UTF-8"
	}
	for _, r := range string(b) {
		if unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' {
			return "value contains control characters"
		}
	}
	return ""
}

// parseObject decodes a JSON object one level deep. Names are matched exactly, as Python does; encoding/json would
// match the fields of a struct in any case.
func parseObject(b []byte) (map[string]json.RawMessage, bool) {
	if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) {
		return nil, false
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil {
		return nil, false
	}
	return m, true
}

// parseList decodes a JSON array one level deep.
func parseList(b []byte) ([]json.RawMessage, bool) {
	if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("[")) {
		return nil, false
	}
	var l []json.RawMessage
	if json.Unmarshal(b, &l) != nil {
		return nil, false
	}
	return l, true
}

// isNull reports whether a field is absent or JSON null, which Patroni treats alike.
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// parseString decodes a JSON string.
func parseString(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// parseInteger decodes a JSON integer, or decimal digits, within bounds.
func parseInteger(raw []byte, low, high int64) (int64, bool) {
	if !integerRE.Match(raw) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < low || n > high {
		return 0, false
	}
	return n, true
}

// parseBool decodes a truth value the way Patroni's parse_bool does: JSON true and 1, but also "on", "Yes" and "1".
func parseBool(raw json.RawMessage) (value, ok bool) {
	word := string(raw)
	if s, isString := parseString(raw); isString {
		word = s
	}
	switch strings.ToLower(word) {
	case "true", "on", "yes", "1":
		return true, true
	case "false", "off", "no", "0":
		return false, true
	}
	return false, false
}

// parseWord decodes a JSON string that must be one of the given words.
func parseWord(raw json.RawMessage, words []string) (string, bool) {
	s, ok := parseString(raw)
	if !ok || len(s) > 64 || !slices.Contains(words, s) {
		return "", false
	}
	return s, true
}

// parseText decodes a JSON string of printable text of at most limit bytes. Printable excludes line breaks, escapes and
// the invisible characters that reorder a line.
func parseText(raw json.RawMessage, limit int) (string, bool) {
	s, ok := parseString(raw)
	if !ok || len(s) > limit || strings.ContainsRune(s, utf8.RuneError) {
		return "", false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return "", false
		}
	}
	return s, true
}

// parseTime decodes a JSON string with an RFC 3339 time and returns it as written.
func parseTime(raw json.RawMessage) (string, bool) {
	s, ok := parseString(raw)
	if !ok || len(s) > 40 {
		return "", false
	}
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		return "", false
	}
	return s, true
}

// splitHostPort returns the host and the explicit port of a URL, both checked.
func splitHostPort(u *url.URL) (host string, port int, ok bool) {
	host = u.Hostname()
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || n == 0 || !validHost(host) {
		return "", 0, false
	}
	return host, int(n), true
}

// parseConnURL returns where a member's PostgreSQL listens, from its conn_url. Whatever else the URL holds is dropped.
func parseConnURL(s string) (host string, port int, ok bool) {
	u, err := url.Parse(s)
	if err != nil || len(s) > 1024 || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return "", 0, false
	}
	return splitHostPort(u)
}

// parseAPIURL returns scheme://host:port of a member's api_url. The agent connects to what comes out of here, so
// credentials, a query, or a path other than Patroni's own are refused.
func parseAPIURL(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || len(s) > 1024 || (u.Scheme != "http" && u.Scheme != "https") {
		return "", false
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", false
	}
	if p := strings.TrimSuffix(u.Path, "/"); p != "" && p != "/patroni" {
		return "", false
	}
	host, port, ok := splitHostPort(u)
	if !ok {
		return "", false
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host + ":" + strconv.Itoa(port), true
}

// printable makes foreign text safe to show: unprintable characters become "?", and it is cut after limit characters.
func printable(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > limit {
			b.WriteString("...")
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}
