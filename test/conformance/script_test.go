package conformance

import (
	"errors"
	"io/fs"
	"testing"
)

func TestScripts_AreCompleteAndNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Scripts() {
		if s.Name == "" || seen[s.Name] || s.Fault == "" || len(s.Steps) == 0 || s.Timings == "" || s.Agents == "" {
			t.Errorf("script %q is incomplete or listed twice", s.Name)
		}
		seen[s.Name] = true
		for _, st := range s.Steps {
			if st.At+st.For >= s.Look {
				t.Errorf("%s: %s ends at %s, after the look of %s", s.Name, st.Do, st.At+st.For, s.Look)
			}
		}
	}
	if len(seen) < 12 {
		t.Errorf("%d scripts, want 12 and more", len(seen))
	}
	for _, k := range known() {
		if !seen[k.Script] || k.Why == "" || k.Event == "" || k.Only != InLab && k.Only != InModel {
			t.Errorf("known difference %+v is incomplete", k)
		}
	}
}

func TestLoad(t *testing.T) {
	s := Scripts()[0]
	dir := t.TempDir()
	if _, err := Load(dir, s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing recorded: %v", err)
	}
	if err := (Recording{Script: s}).Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, s); err != nil {
		t.Error(err)
	}
	s.Look++
	if _, err := Load(dir, s); !errors.Is(err, ErrChanged) {
		t.Errorf("another script: %v", err)
	}
}
