package journal

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

func sample() Record {
	a := action("act-1")
	w := newWorld()
	return Record{Version: 1, Seq: 7, Wall: w.wall, BootID: "boot-1", At: w.now, Kind: Intent, Action: &a}
}

func TestEncode_Golden(t *testing.T) {
	got, err := encode(Record{Version: 1, Seq: 3, Wall: newWorld().wall, BootID: "b", At: 5, Kind: Result, Result: &Outcome{
		Intent: 2, ActionID: "act-1", Result: node.ResultExecuted, Evidence: map[string]string{"invocation_after": "b2"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"v":1,"seq":3,"wall":"2026-04-08T12:00:00Z","boot_id":"b","at":5,"kind":"result","result":{"intent":2,"action_id":"act-1","result":"executed","evidence":{"invocation_after":"b2"}},"sum":"` + string(got[len(got)-11:len(got)-3]) + "\"}\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The checksum's rule is part of the format: CRC-32C of the object without its last member.
	if got := sum([]byte("123456789")); got != "e3069283" {
		t.Errorf("sum = %s, want the check value of CRC-32C", got)
	}
}

func TestParse_EveryFlippedBitIsNoticed(t *testing.T) {
	whole, err := encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	whole = bytes.TrimSuffix(whole, []byte("\n"))
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		if r, err := parse(b); err == nil && r.Version <= version {
			t.Fatalf("bit %d: accepted %s", i, b)
		}
	}
}

func FuzzParse(f *testing.F) {
	whole, err := encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.TrimSuffix(whole, []byte("\n")))
	f.Add([]byte(`{"v":2,"seq":1,"kind":"other","sum":"00000000"}`))
	f.Add([]byte(`{"v":1,"sum":"00000000"}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil || r.Version > version {
			return
		}
		again, err := encode(r)
		if err != nil {
			t.Fatalf("a parsed record does not encode: %v", err)
		}
		back, err := parse(bytes.TrimSuffix(again, []byte("\n")))
		if err != nil {
			t.Fatalf("an encoded record does not parse: %v", err)
		}
		if diff := cmp.Diff(r, back); diff != "" {
			t.Fatalf("record changed (-before +after):\n%s", diff)
		}
	})
}

// The fuzzer hardly ever hits a right checksum by chance, so this one is given one.
func FuzzParse_Summed(f *testing.F) {
	whole, err := encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(whole[:len(whole)-1-sumLen:len(whole)-1-sumLen], '}'))
	f.Add([]byte(`{"v":1,"seq":1,"kind":"start","wall":"2026-04-08T12:00:00+09:00"}`))
	f.Add([]byte(`{"v":1,"seq":1,"kind":"memory","kept":{"leader":"pg1","leader_created":7,"leaders":[1],"members":{"pg2":{"diverged":true}},"services":{"patroni":{"starts":[1,2]}}}}`))
	f.Add([]byte(`{"v":1,"seq":1,"kind":"carry","orders":[{"v":1,"seq":1,"kind":"memory","kept":{}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) < 2 || body[len(body)-1] != '}' {
			return
		}
		b := append(bytes.Clone(body[:len(body)-1]), sumHead+sum(body)+sumTail...)
		r, err := parse(b)
		if err != nil || r.Version > version {
			return
		}
		var l ledger
		l.add(r)
		l.trim("boot-1", 0, newWorld().wall)
		if _, err := encode(r); err != nil {
			t.Fatalf("a parsed record does not encode: %v", err)
		}
	})
}
