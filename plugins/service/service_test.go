package service

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIntent(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   Status
		want Intent
	}{
		{"nothing known", Status{}, IntentUnknown},
		{"running", Status{State: StateRunning, Enablement: "enabled"}, IntentRun},
		{"running though disabled", Status{State: StateRunning, Enablement: "disabled"}, IntentRun},
		{"stopped", Status{State: StateStopped, Enablement: "enabled"}, IntentStopped},
		{"crashed", Status{State: StateFailed, Enablement: "enabled", Result: "signal"}, IntentRun},
		{"stopped but exited with an error", Status{State: StateFailed, Result: "exit-code", Halted: true}, IntentStopped},
		{"crashed or stopped", Status{State: StateFailed, Result: "signal", Unexplained: true}, IntentUnknown},
		{"ended well or stopped", Status{State: StateStopped, Unexplained: true}, IntentUnknown},
		{"masked, crashed or stopped", Status{State: StateFailed, Masked: true, Unexplained: true}, IntentMasked},
		{"waiting for its restart", Status{State: StateRestarting}, IntentRun},
		{"stopping", Status{State: StateStopping}, IntentBusy},
		{"job pending", Status{State: StateRunning, Job: "reload"}, IntentBusy},
		{"disabled and failed", Status{State: StateFailed, Enablement: "disabled"}, IntentDisabled},
		{"masked while running", Status{State: StateRunning, Masked: true}, IntentMasked},
		{"masked until reboot", Status{State: StateStopped, Enablement: "masked-runtime"}, IntentMasked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.in.Intent(); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// The table of systemd.service(5), "Exit causes and the effect of the Restart= settings".
func TestSame(t *testing.T) {
	want := Status{MainPID: 7, InvocationID: "a", Restarts: 1}
	if err := Same(want, Status{MainPID: 7, InvocationID: "a", Restarts: 2, State: StateRunning}); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct{ want, now Status }{
		{want, Status{MainPID: 8, InvocationID: "a"}},
		{want, Status{MainPID: 7, InvocationID: "b"}},
		{want, Status{}},
		{Status{}, Status{}},
		{Status{MainPID: 7}, Status{MainPID: 7}},
		{Status{InvocationID: "a"}, Status{InvocationID: "a"}},
	} {
		if err := Same(tc.want, tc.now); !errors.Is(err, ErrChanged) {
			t.Errorf("want %+v, now %+v: got %v", tc.want, tc.now, err)
		}
	}
}

func TestRestartsAfter(t *testing.T) {
	results := []string{"success", "exit-code", "signal", "core-dump", "timeout", "watchdog", "oom-kill", "start-limit-hit"}
	want := map[string]string{
		"":            "",
		"no":          "",
		"always":      "success exit-code signal core-dump timeout watchdog oom-kill",
		"on-success":  "success",
		"on-failure":  "exit-code signal core-dump timeout watchdog oom-kill",
		"on-abnormal": "signal core-dump timeout watchdog oom-kill",
		"on-abort":    "signal core-dump",
		"on-watchdog": "watchdog",
	}
	got := map[string]string{}
	for policy := range want {
		var covered string
		for _, r := range results {
			if (Status{Restart: policy}).RestartsAfter(r) {
				covered += " " + r
			}
		}
		if covered != "" {
			covered = covered[1:]
		}
		got[policy] = covered
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRestartsOnKill(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   Status
		want bool
	}{
		{"on-failure", Status{Restart: "on-failure"}, true},
		{"no", Status{Restart: "no"}, false},
		{"on-success", Status{Restart: "on-success"}, false},
		{"masked while it ran", Status{Restart: "always", Masked: true}, false},
		{"a kill is a stop", Status{Restart: "always", KillIsStop: true}, false},
		{"definition broke while it ran", Status{Restart: "always", LoadError: "bad-setting"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.in.RestartsOnKill(); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestState_Text(t *testing.T) {
	for s := StateUnknown; s <= StateFailed; s++ {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := json.Unmarshal(b, &got); err != nil || got != s {
			t.Errorf("%s: got %v, %v", b, got, err)
		}
	}
	got := StateRunning
	if err := got.UnmarshalText([]byte("dancing")); err != nil || got != StateUnknown {
		t.Errorf("an unknown word gave %v, %v", got, err)
	}
}
