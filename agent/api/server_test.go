package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func handler(src Source) http.Handler {
	return NewServer(src, Config{Version: "1.2.3"}, slog.New(slog.DiscardHandler)).Handler()
}

func request(src Source, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler(src).ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

func TestHandler_Golden(t *testing.T) {
	for _, name := range []string{"status", "plan", "history", "version"} {
		t.Run(name, func(t *testing.T) {
			w := request(filled(), http.MethodGet, "/v1/"+name, "")
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("status %d, headers %v", w.Code, w.Header())
			}
			var got bytes.Buffer
			if err := json.Indent(&got, w.Body.Bytes(), "", "  "); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHandler_Refusals(t *testing.T) {
	cases := map[string]struct {
		method, target string
		err            error
		status         int
		text           string
	}{
		"unknown path":            {"GET", "/v1/pause", nil, 404, "no such path"},
		"root":                    {"GET", "/", nil, 404, "no such path"},
		"unversioned path":        {"GET", "/status", nil, 404, "no such path"},
		"writing":                 {"POST", "/v1/plan", nil, 405, `\"POST\" is not allowed`},
		"deleting":                {"DELETE", "/v1/history", nil, 405, "only reads"},
		"parameter where none is": {"GET", "/v1/status?x=1", nil, 400, `unknown parameter \"x\": none`},
		"unknown parameter":       {"GET", "/v1/history?limt=1", nil, 400, `unknown parameter \"limt\": allowed are limit, kind`},
		"limit zero":              {"GET", "/v1/history?limit=0", nil, 400, "from 1 to 1000"},
		"limit too large":         {"GET", "/v1/history?limit=1001", nil, 400, "from 1 to 1000"},
		"limit not a number":      {"GET", "/v1/history?limit=ten", nil, 400, `limit \"ten\"`},
		"limit with a sign":       {"GET", "/v1/history?limit=%2B5", nil, 400, "from 1 to 1000"},
		"limit empty":             {"GET", "/v1/history?limit=", nil, 400, "from 1 to 1000"},
		"limit twice":             {"GET", "/v1/history?limit=1&limit=2", nil, 400, "given 2 times"},
		"unknown kind":            {"GET", "/v1/history?kind=intent,reslt", nil, 400, `unknown kind \"reslt\"`},
		"control character":       {"GET", "/v1/history?kind=%1b[31m", nil, 400, `\\x1b[31m`},
		"bad escape":              {"GET", "/v1/history?limit=%zz", nil, 400, "not well-formed"},
		"semicolon":               {"GET", "/v1/history?limit=1;kind=plan", nil, 400, "not well-formed"},
		"not ready":               {"GET", "/v1/plan", ErrNotReady, 503, "not decided anything yet"},
		"source fails":            {"GET", "/v1/history", errors.New("journal gone"), 500, "journal gone"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := request(&fakeSource{err: tc.err}, tc.method, tc.target, "")
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.text) {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, tc.status, tc.text)
			}
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Error == "" {
				t.Errorf("the body is not a Problem: %v", err)
			}
		})
	}
}

func TestHandler_HistoryQuery(t *testing.T) {
	cases := map[string]HistoryQuery{
		"":                                   {Limit: DefaultHistory},
		"?limit=1000":                        {Limit: 1000},
		"?kind=intent":                       {Limit: DefaultHistory, Kinds: []string{"intent"}},
		"?kind=result,intent,result&limit=3": {Limit: 3, Kinds: []string{"result", "intent"}},
	}
	for query, want := range cases {
		src := filled()
		if w := request(src, http.MethodGet, "/v1/history"+query, ""); w.Code != http.StatusOK {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
		if diff := cmp.Diff(want, src.asked); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add("limit=5&kind=plan,intent")
	f.Add("limit=%31&kind=")
	f.Add("kind=plan&kind=plan")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseHistory(raw)
		if err != nil {
			return
		}
		if q.Limit < 1 || q.Limit > MaxHistory {
			t.Fatalf("limit %d", q.Limit)
		}
		back, err := parseHistory(q.encode())
		if err != nil || !cmp.Equal(q, back) {
			t.Fatalf("%+v became %+v, %v", q, back, err)
		}
	})
}
