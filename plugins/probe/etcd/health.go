package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// maxBody bounds the body of an answer over HTTP, in bytes.
const maxBody = 4 << 10

// askHealth asks for /health: it reads through the leader, and fails under an alarm.
func askHealth(ctx context.Context, e *probe.Endpoint) (probe.EtcdMember, error) {
	r, err := e.Get(ctx, "/health", maxBody)
	if err != nil {
		return probe.EtcdMember{}, err
	}
	seen := probe.EtcdMember{Health: r.Outcome, Detail: r.Detail}
	if r.Outcome != probe.OutcomeAnswered {
		return seen, nil
	}
	if seen.Healthy, seen.Reason, err = parseHealth(r.Status, r.Body); err != nil {
		return probe.EtcdMember{Health: probe.OutcomeBroken, Detail: "the answer to /health is not etcd's: " + err.Error()}, nil
	}
	return seen, nil
}

// parseHealth parses the answer to /health: {"health":"true"} with 200, or {"health":"false"} with 503 and, since 3.4,
// a reason. Its errors never repeat the contents.
func parseHealth(status int, body []byte) (healthy bool, reason string, err error) {
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return false, "", errors.New("status " + strconv.Itoa(status))
	}
	fields, err := parseTexts(body)
	if err != nil {
		return false, "", err
	}
	switch fields["health"] {
	case "true":
		healthy = status == http.StatusOK
	case "false":
	default:
		return false, "", errors.New("health is neither true nor false")
	}
	if !healthy {
		reason = clean(fields["reason"])
	}
	return healthy, reason, nil
}

// parseTexts parses exactly one JSON object and returns its fields that are texts.
func parseTexts(b []byte) (map[string]string, error) {
	if len(b) > maxBody {
		return nil, errors.New("it is too long")
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&fields); err != nil || fields == nil {
		return nil, errors.New("it is no JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something comes after its JSON object")
	}
	texts := make(map[string]string)
	for name, v := range fields {
		if s, ok := v.(string); ok {
			texts[name] = s
		}
	}
	return texts, nil
}
