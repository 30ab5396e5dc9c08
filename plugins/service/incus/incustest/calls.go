// Package incustest says which calls the Incus plugin makes, for filtering proxies in tests.
package incustest

import (
	"net/http"
	"regexp"
)

// calls are the calls of the package comment of incus, with the only parameters that they may have besides the project.
var calls = []struct {
	method string
	path   *regexp.Regexp
	query  []string
}{
	{http.MethodGet, regexp.MustCompile(`^/1\.0/instances/[A-Za-z0-9-]+(/state)?$`), nil},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/operations$`), []string{"recursion"}},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/operations/[0-9a-f-]{36}/wait$`), nil},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/operations/[0-9a-f-]{36}/websocket$`), []string{"secret"}},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/events$`), []string{"type"}},
	{http.MethodPut, regexp.MustCompile(`^/1\.0/instances/[A-Za-z0-9-]+/state$`), nil},
	{http.MethodPost, regexp.MustCompile(`^/1\.0/instances/[A-Za-z0-9-]+/exec$`), nil},
}

// Documented reports whether a request to the daemon is one of those that the package comment of incus names.
func Documented(r *http.Request) bool {
	for _, c := range calls {
		if r.Method != c.method || !c.path.MatchString(r.URL.Path) {
			continue
		}
		query := r.URL.Query()
		for _, name := range append(c.query, "project") {
			query.Del(name)
		}
		return len(query) == 0
	}
	return false
}
