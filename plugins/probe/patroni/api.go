package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.PatroniAPI] = (*API)(nil)

// maxReply bounds Patroni's reply, which grows with the number of replicas.
const maxReply = 1 << 20

// API asks Patroni what it knows of itself and its server.
type API struct{ endpoint *probe.Endpoint }

// NewAPI returns a prober for what an API says.
func NewAPI(c APIConfig, d APIDeps) (*API, error) {
	endpoint, err := newEndpoint(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure api probe: %w", err)
	}
	return &API{endpoint: endpoint}, nil
}

// Probe implements probe.Prober. A reply that no Patroni would send is an answer too, with a Problem and nothing else.
func (p *API) Probe(ctx context.Context) (probe.PatroniAPI, error) {
	a, err := p.endpoint.Get(ctx, "/patroni", maxReply)
	if err != nil {
		return probe.PatroniAPI{}, err
	}
	if a.Outcome != probe.OutcomeAnswered {
		return probe.PatroniAPI{Outcome: a.Outcome, Detail: a.Detail}, nil
	}
	if a.Status != http.StatusOK {
		return probe.PatroniAPI{Outcome: a.Outcome, Problem: "status " + strconv.Itoa(a.Status) + " instead of 200"}, nil
	}
	seen, err := parseReply(a.Body)
	if err != nil {
		seen = probe.PatroniAPI{Problem: err.Error()}
	}
	seen.Outcome = a.Outcome
	return seen, nil
}

// Grammars of what a reply may hold. Whatever a text may hold can end up in a log, on a page or in a comparison.
const (
	nameGrammar      = `[A-Za-z0-9_.-]{1,63}`
	wordsGrammar     = `[\x20-\x7e]{1,64}`
	versionGrammar   = `[0-9A-Za-z][0-9A-Za-z.+~-]{0,31}`
	systemIDGrammar  = `[0-9]{1,20}`
	patroniStartTime = "2006-01-02 15:04:05.999999Z07:00" // Python's str(datetime)
)

// parseReply parses what GET /patroni says (FACTS.md §2.4). Its errors name the field, never the contents. Fields that
// are not known are passed over: newer versions have more of them.
func parseReply(b []byte) (probe.PatroniAPI, error) {
	if len(b) > maxReply {
		return probe.PatroniAPI{}, errors.New("reply is longer than 1 MiB")
	}
	top, err := parseObject("reply", b)
	if err != nil {
		return probe.PatroniAPI{}, err
	}
	about := top.object("patroni", true)
	wal := top.object("xlog", false)
	seen := probe.PatroniAPI{
		Name:           about.text("name", nameGrammar, true),
		Scope:          about.text("scope", nameGrammar, true),
		Version:        about.text("version", versionGrammar, true),
		State:          top.text("state", wordsGrammar, true),
		Role:           top.text("role", wordsGrammar, true),
		SystemID:       top.text("database_system_identifier", systemIDGrammar, false),
		ServerVersion:  int(top.number("server_version", 31)),
		Timeline:       int64(top.number("timeline", 32)),
		Paused:         top.flag("pause"),
		Unlocked:       top.flag("cluster_unlocked"),
		PendingRestart: top.flag("pending_restart"),
		Location:       max(wal.number("location", 63), wal.number("replayed_location", 63)),
	}
	if s := top.text("postmaster_start_time", wordsGrammar, false); s != "" {
		start, err := time.Parse(patroniStartTime, s)
		if err != nil {
			top.fail("postmaster_start_time", "is not a time")
		}
		seen.PostmasterStart = start.UTC().Format(probe.StartLayout)
	}
	if err := errors.Join(*top.errs, *about.errs, *wal.errs); err != nil {
		return probe.PatroniAPI{}, err
	}
	return seen, nil
}

// object is a JSON object whose fields are checked one by one. The first complaint is kept in errs.
type object struct {
	name   string
	fields map[string]json.RawMessage
	errs   *error
}

// parseObject parses exactly one object. Names of fields are matched as they are written, other than encoding/json
// would match them with a struct.
func parseObject(name string, b []byte) (object, error) {
	o := object{name: name, errs: new(error)}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&o.fields); err != nil || o.fields == nil {
		return o, fmt.Errorf("%s is not a JSON object", name)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, fmt.Errorf("%s has something after its JSON object", name)
	}
	return o, nil
}

func (o object) fail(field, complaint string) {
	if *o.errs == nil {
		*o.errs = fmt.Errorf("field %q of %s %s", field, o.name, complaint)
	}
}

// raw returns a field. One that is missing or null is nil, and a complaint if it is required.
func (o object) raw(field string, required bool) json.RawMessage {
	v := o.fields[field]
	if v == nil || string(v) == "null" {
		if required {
			o.fail(field, "is missing")
		}
		return nil
	}
	return v
}

func (o object) object(field string, required bool) object {
	empty := object{name: field, errs: new(error)}
	v := o.raw(field, required)
	if v == nil {
		return empty
	}
	inner, err := parseObject(field, v)
	if err != nil {
		o.fail(field, "is not an object")
		return empty
	}
	return inner
}

func (o object) text(field, grammar string, required bool) string {
	v := o.raw(field, required)
	if v == nil {
		return ""
	}
	var s string
	if json.Unmarshal(v, &s) != nil || !regexp.MustCompile(`^(?:`+grammar+`)$`).MatchString(s) {
		o.fail(field, "is not a text of the expected form")
		return ""
	}
	return s
}

// number returns a whole number of at most bits bits, 0 if there is none.
func (o object) number(field string, bits int) uint64 {
	v := o.raw(field, false)
	if v == nil {
		return 0
	}
	n, err := strconv.ParseUint(string(v), 10, bits)
	if err != nil {
		o.fail(field, "is not a whole number of the expected size")
	}
	return n
}

func (o object) flag(field string) bool {
	v := o.raw(field, false)
	if v == nil {
		return false
	}
	var b bool
	if json.Unmarshal(v, &b) != nil {
		o.fail(field, "is neither true nor false")
	}
	return b
}
