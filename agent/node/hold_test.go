package node

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseHold(t *testing.T) {
	since := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	until := since.Add(2 * time.Hour)
	for name, tc := range map[string]struct {
		text string
		want Hold
		err  string
	}{
		"whole":          {`{"owner":"ann","reason":"disk swap","since":"2026-04-08T12:00:00Z","until":"2026-04-08T14:00:00Z"}`, Hold{Owner: "ann", Reason: "disk swap", Since: since, Until: until}, ""},
		"least":          {`{"owner":"ann","reason":"r"}`, Hold{Owner: "ann", Reason: "r"}, ""},
		"other zone":     {`{"owner":"a","reason":"r","until":"2026-04-08T16:00:00+02:00"}`, Hold{Owner: "a", Reason: "r", Until: until}, ""},
		"nothing":        {``, Hold{}, "not a hold in JSON"},
		"text":           {`do not touch`, Hold{}, "not a hold in JSON"},
		"unknown field":  {`{"owner":"a","reason":"r","till":"x"}`, Hold{}, "till"},
		"two":            {`{"owner":"a","reason":"r"}{}`, Hold{}, "something follows"},
		"no owner":       {`{"reason":"r"}`, Hold{}, "owner must be"},
		"long owner":     {`{"owner":"` + strings.Repeat("a", 64) + `","reason":"r"}`, Hold{}, "owner must be"},
		"control":        {`{"owner":"a","reason":"r\u001b[31m"}`, Hold{}, "reason must be"},
		"long reason":    {`{"owner":"a","reason":"` + strings.Repeat("a", 201) + `"}`, Hold{}, "reason must be"},
		"backwards":      {`{"owner":"a","reason":"r","since":"2026-04-08T12:00:00Z","until":"2026-04-08T11:00:00Z"}`, Hold{}, "before since"},
		"another age":    {`{"owner":"a","reason":"r","until":"9998-04-08T11:00:00Z"}`, Hold{}, "this century"},
		"far too long":   {strings.Repeat(" ", maxHoldText+1), Hold{}, "longer than"},
		"not an instant": {`{"owner":"a","reason":"r","until":"tomorrow"}`, Hold{}, "not a hold in JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseHold([]byte(tc.text))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

func FuzzParseHold(f *testing.F) {
	f.Add([]byte(`{"owner":"ann","reason":"disk swap","since":"2026-04-08T12:00:00Z","until":"2026-04-08T14:00:00Z"}`))
	f.Add([]byte(`{"owner":"ann","reason":"\u00e4"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseHold(data)
		if err != nil {
			if diff := cmp.Diff(Hold{}, h); diff != "" {
				t.Fatalf("a refused hold is not empty: %s", diff)
			}
			return
		}
		text, err := HoldText(h)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if again, err := ParseHold(text); err != nil || !cmp.Equal(h, again) {
			t.Fatalf("read back as %+v, %v", again, err)
		}
	})
}
