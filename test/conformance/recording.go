package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
)

// Recording is what the lab saw of a script.
type Recording struct {
	Script   Script `json:"script"`   // as it was then
	Recorded string `json:"recorded"` // date
	Versions string `json:"versions"` // of what ran
	Runs     []Run  `json:"runs"`
}

func path(dir, script string) string { return filepath.Join(dir, script+".json") }

// Save writes a recording into a folder, under the name of its script.
func (r Recording) Save(dir string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode recording of %s: %w", r.Script.Name, err)
	}
	if err := os.WriteFile(path(dir, r.Script.Name), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("save recording of %s: %w", r.Script.Name, err)
	}
	return nil
}

// ErrChanged says that a script is not the one any more that was recorded.
var ErrChanged = errors.New("the script has changed since: record it anew")

// Load reads the recording of a script. It returns fs.ErrNotExist where there is none, and ErrChanged.
func Load(dir string, s Script) (Recording, error) {
	text, err := os.ReadFile(path(dir, s.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return Recording{}, fmt.Errorf("load recording of %s: never recorded: %w", s.Name, fs.ErrNotExist)
	}
	var r Recording
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && !reflect.DeepEqual(r.Script, s) {
		err = ErrChanged
	}
	if err != nil {
		return Recording{}, fmt.Errorf("load recording of %s: %w", s.Name, err)
	}
	return r, nil
}
