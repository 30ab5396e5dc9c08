package api

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// parseHistory reads the query of /v1/history. It accepts nothing that it does not understand: a misspelt parameter that
// is ignored gives a wrong answer that looks right.
func parseHistory(raw string) (HistoryQuery, error) {
	q := HistoryQuery{Limit: DefaultHistory}
	values, err := parseQuery(raw, "limit", "kind")
	if err != nil {
		return HistoryQuery{}, err
	}
	if s, ok := values["limit"]; ok {
		if q.Limit, err = parseLimit(s); err != nil {
			return HistoryQuery{}, err
		}
	}
	if s, ok := values["kind"]; ok {
		if q.Kinds, err = ParseKinds(s); err != nil {
			return HistoryQuery{}, err
		}
	}
	return q, nil
}

// parseQuery splits a query into its parameters, of which only the named ones may appear, each once.
func parseQuery(raw string, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("query is not well-formed: %w", err)
	}
	out := map[string]string{}
	for name, vs := range values {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, fmt.Errorf("unknown parameter %q: none is allowed here", name)
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("unknown parameter %q: allowed are %s", name, strings.Join(known, ", "))
		case len(vs) != 1:
			return nil, fmt.Errorf("parameter %q is given %d times", name, len(vs))
		}
		out[name] = vs[0]
	}
	return out, nil
}

func parseLimit(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16) // takes digits only: no sign, no space
	if err != nil || n < 1 || n > MaxHistory {
		return 0, fmt.Errorf("limit %q is not a number from 1 to %d", s, MaxHistory)
	}
	return int(n), nil
}

// ParseKinds reads a list of kinds separated by commas.
func ParseKinds(s string) ([]string, error) {
	var out []string
	for _, k := range strings.Split(s, ",") {
		if !slices.Contains(Kinds(), k) {
			return nil, fmt.Errorf("unknown kind %q: allowed are %s", k, strings.Join(Kinds(), ", "))
		}
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out, nil
}

// encode is the opposite of parseHistory.
func (q HistoryQuery) encode() string {
	v := url.Values{}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if len(q.Kinds) > 0 {
		v.Set("kind", strings.Join(q.Kinds, ","))
	}
	return v.Encode()
}
