package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const said = `{"Action":"start"}
{"Action":"run","Test":"TestE2E"}
{"Action":"run","Test":"TestE2E/start_is_idempotent"}
{"Action":"output","Test":"TestE2E/start_is_idempotent","Output":"=== RUN   TestE2E/start_is_idempotent\n"}
{"Action":"pass","Test":"TestE2E/start_is_idempotent","Elapsed":0.1}
{"Action":"output","Test":"TestE2E/masked","Output":"    conformance.go:87: there is no mask\n"}
{"Action":"output","Test":"TestE2E/masked","Output":"--- SKIP: TestE2E/masked (0.00s)\n"}
{"Action":"skip","Test":"TestE2E/masked","Elapsed":0}
{"Action":"output","Test":"TestE2E/watch_wakes_in_time","Output":"    cases_watch.go:130: crash: woken within 27ms\n"}
{"Action":"output","Test":"TestE2E/watch_wakes_in_time","Output":"    cases_watch.go:120: it looks every 2s\n"}
{"Action":"output","Test":"TestE2E/watch_wakes_in_time","Output":"    cases_watch.go:130: stop: woken within 0s\n"}
{"Action":"pass","Test":"TestE2E/watch_wakes_in_time","Elapsed":1}
{"Action":"output","Test":"TestE2E/crashed","Output":"=== RUN   TestE2E/crashed\n"}
{"Action":"output","Test":"TestE2E/crashed","Output":"    cases.go:1: got x\n"}
{"Action":"output","Test":"TestE2E/crashed","Output":"        and y\n"}
{"Action":"output","Test":"TestE2E/crashed/deep","Output":"    cases.go:3: deep down\n"}
{"Action":"fail","Test":"TestE2E/crashed/deep","Elapsed":1}
{"Action":"output","Test":"TestE2E/crashed","Output":"    cases.go:2: got z\n"}
{"Action":"fail","Test":"TestE2E/crashed","Elapsed":1}
{"Action":"pass","Test":"TestE2E/another","Elapsed":1}
{"Action":"pass","Test":"TestOther/running","Elapsed":1}
{"Action":"fail","Test":"TestE2E","Elapsed":1}
`

func TestRead(t *testing.T) {
	got, err := read("TestE2E", []byte(said))
	if err != nil {
		t.Fatal(err)
	}
	want := results{waked: 27 * time.Millisecond, every: 2 * time.Second, cases: map[string]result{
		"start is idempotent": {outcome: "pass"},
		"masked":              {outcome: "skip", why: "there is no mask"},
		"watch wakes in time": {outcome: "pass"},
		"crashed":             {outcome: "fail", why: "    cases.go:1: got x\n        and y\n    cases.go:3: deep down\n    cases.go:2: got z"},
		"another":             {outcome: "pass"},
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(results{}, result{})); diff != "" {
		t.Error(diff)
	}
	if _, err := read("TestE2E", []byte("panic: x")); err == nil {
		t.Error("no error of what is no event")
	}
}

func TestTable(t *testing.T) {
	passes, lacks := result{outcome: "pass"}, result{outcome: "skip", why: "none"}
	good := column{manager{name: "good", how: "real"}, "", results{cases: map[string]result{"a": passes, "b": passes, "c": passes}, waked: time.Second}}
	poor := column{manager{name: "poor", how: "in a box"}, "", results{cases: map[string]result{"a": passes, "b": lacks, "c": lacks}, every: 2 * time.Second, waked: time.Second}}
	gone := column{manager: manager{name: "gone"}, absent: "no such thing"}
	want := `
case  good  poor     gone
a     pass  pass     .
b     pass  lacks 1  .
c     pass  lacks 1  .

lacks 1  poor: none

good: real; events within 1s
poor: in a box; it looks every 2s, and woke within 1s
gone: not here: no such thing
4 passed, 0 failed, 2 lacking with a reason
`
	got, ok := table([]string{"a", "b", "c"}, []column{good, poor, gone})
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Error(ok, diff)
	}
	for name, r := range map[string]map[string]result{
		"FAIL":    {"a": passes, "b": {outcome: "fail"}, "c": passes},
		"NOT RUN": {"a": passes, "c": passes},
		"FAIL  bad: b\n    a.go:1: x\n        y\n": {"a": passes, "b": {outcome: "fail", why: "    a.go:1: x\n        y"}, "c": passes},
	} {
		bad := column{manager{name: "bad"}, "", results{cases: r}}
		if got, ok := table([]string{"a", "b", "c"}, []column{good, bad}); ok || !strings.Contains(got, name) {
			t.Errorf("%s: %t %s", name, ok, got)
		}
	}
}
