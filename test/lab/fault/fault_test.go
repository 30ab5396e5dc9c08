package fault

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

func TestAll_EveryFaultIsCompleteAndNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range All() {
		if seen[f.Name] {
			t.Errorf("%s is listed twice", f.Name)
		}
		seen[f.Name] = true
		if f.Do == nil || f.Summary == "" || !strings.HasPrefix(f.ID, "F") || f.Kind == 0 {
			t.Errorf("%s is incomplete: %+v", f.Name, f)
		}
	}
}

func TestInject_RefusesTheWrongKindOfNode(t *testing.T) {
	f, err := Find("patroni-stop")
	if err != nil {
		t.Fatal(err)
	}
	s := stack.New("unit", slog.New(slog.DiscardHandler))
	if err := f.Inject(context.Background(), s, s.Proxy()); err == nil || !strings.Contains(err.Error(), "postgres nodes") {
		t.Errorf("inject on HAProxy: %v", err)
	}
}
