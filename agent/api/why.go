package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Witness is a [Source] that can also say what its decisions rested on. A server whose source is none refuses the paths
// that need one.
type Witness interface {
	// Record returns one record of the journal with all inputs of its decision. It returns an error that wraps
	// ErrNoRecord if there is none of that number.
	Record(ctx context.Context, seq uint64) (Record, error)
	// Records returns records with their inputs, oldest first.
	Records(ctx context.Context, q RecordsQuery) (History, error)
	// Question returns all inputs of the latest decision. It returns an error that wraps ErrNotReady before the first.
	Question(ctx context.Context) (node.Question, error)
}

// ErrNoRecord says that the journal does not hold the record that was asked for.
var ErrNoRecord = errors.New("no such record in the journal")

// RecordsQuery selects a page of records. A page ends early where its records are large; an empty one is the end.
type RecordsQuery struct {
	After uint64 // only records with a higher sequence number
	Limit int    // at most this many, 1 to MaxHistory
}

// witness adds the paths that only a Witness answers.
func (s *Server) witness(mux *http.ServeMux) {
	w, ok := s.source.(Witness)
	if !ok {
		return
	}
	mux.HandleFunc("/v1/record", get(s, parseSeq, w.Record))
	mux.HandleFunc("/v1/records", get(s, parseRecords, w.Records))
	mux.HandleFunc("/v1/question", get(s, noParameters, func(ctx context.Context, _ struct{}) (node.Question, error) { return w.Question(ctx) }))
}

// parseSeq reads the query of /v1/record.
func parseSeq(raw string) (uint64, error) {
	values, err := parseQuery(raw, "seq")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(values["seq"], 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("seq %q is not the number of a record: 1, 2, 3, ... as history prints it", values["seq"])
	}
	return n, nil
}

// parseRecords reads the query of /v1/records.
func parseRecords(raw string) (RecordsQuery, error) {
	q := RecordsQuery{Limit: MaxHistory}
	values, err := parseQuery(raw, "after", "limit")
	if err != nil {
		return RecordsQuery{}, err
	}
	if s, ok := values["after"]; ok {
		if q.After, err = strconv.ParseUint(s, 10, 64); err != nil {
			return RecordsQuery{}, fmt.Errorf("after %q is not the number of a record", s)
		}
	}
	if s, ok := values["limit"]; ok {
		if q.Limit, err = parseLimit(s); err != nil {
			return RecordsQuery{}, err
		}
	}
	return q, nil
}

// encode is the opposite of parseRecords.
func (q RecordsQuery) encode() string {
	v := url.Values{"after": {strconv.FormatUint(q.After, 10)}}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v.Encode()
}

// Record asks for one record with all inputs of its decision.
func (c *Client) Record(ctx context.Context, seq uint64) (Record, error) {
	return ask[Record](ctx, c, "/v1/record?seq="+strconv.FormatUint(seq, 10))
}

// Records asks for a page of records with all inputs of their decisions.
func (c *Client) Records(ctx context.Context, q RecordsQuery) (History, error) {
	return ask[History](ctx, c, "/v1/records?"+q.encode())
}

// Question asks for all inputs of the latest decision.
func (c *Client) Question(ctx context.Context) (node.Question, error) {
	return ask[node.Question](ctx, c, "/v1/question")
}
