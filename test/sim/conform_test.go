package main

import (
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/test/conformance"
)

const recordings = "../conformance/testdata"

// TestModel_AgreesWithTheLab compares the model with what the lab recorded: the order of events that can be seen from outside.
func TestModel_AgreesWithTheLab(t *testing.T) {
	var report strings.Builder
	if conform(recordings, &report) != 0 {
		t.Errorf("\n%s", report.String())
	}
}

// TestModel_DisagreesWhereItIsWrong proves that the comparison would notice a model that does another script.
func TestModel_DisagreesWhereItIsWrong(t *testing.T) {
	for _, tt := range []struct{ name, wrong string }{
		{"hang-leader", "hang-leader-alone"},   // nobody heals it
		{"hang-leader-alone", "hang-leader"},   // somebody does
		{"nospace-stop", "stop-leader"},        // somebody leads under NOSPACE
		{"pause-stop", "stop-leader"},          // a pause does not keep anybody from leading
		{"loop-stuck", "loop-stuck-alone"},     //
		{"hang-leader", "hang-leader-group"},   // the kill takes PostgreSQL along
		{"isolate-leader", "cut-from-etcd"},    // PostgreSQL stops in time
		{"start-limit-leader", "kill-leader"},  // systemd never gives up
		{"rest-refused", "rest-refused-alone"}, //
	} {
		t.Run(tt.name+" as "+tt.wrong, func(t *testing.T) {
			right, err := conformance.Find(tt.name)
			if err != nil {
				t.Fatal(err)
			}
			wrong, err := conformance.Find(tt.wrong)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := conformance.Load(recordings, right)
			if err != nil {
				t.Fatal(err)
			}
			if conformance.Compare(right, rec.Runs, modelRuns(wrong)).Agrees() {
				t.Error("nobody notices")
			}
		})
	}
}
