package session

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClaim_OnlyOneAtATimeAndNothingLeftBehind(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	release, err := Claim("unit")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim("unit"); err == nil || !strings.Contains(err.Error(), "used by another") {
		t.Errorf("second claim: %v", err)
	}
	other, err := Claim("other")
	if err != nil {
		t.Errorf("claim of another stack: %v", err)
	}
	other()
	release()
	again, err := Claim("unit")
	if err != nil {
		t.Fatalf("claim after release: %v", err)
	}
	again()
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestClaim_FileOfAKilledProcessIsNoClaim(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if err := os.WriteFile(filepath.Join(os.TempDir(), "pgpatrol-lab-unit.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := Claim("unit")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestTemp_RemovesWhatAKilledOneLeft(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	killed, _, err := Temp("unit")
	if err != nil {
		t.Fatal(err)
	}
	other, removeOther, err := Temp("unit-2")
	if err != nil {
		t.Fatal(err)
	}
	dir, remove, err := Temp("unit")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed); err == nil {
		t.Errorf("%s is still there", killed)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("folder of another stack: %v", err)
	}
	remove()
	removeOther()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there after its removal", dir)
	}
}

func TestReady_SaysWhatToDo(t *testing.T) {
	t.Run("no docker", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if err := Ready(context.Background()); err == nil || !strings.Contains(err.Error(), "not installed") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no engine", func(t *testing.T) {
		bin := t.TempDir()
		fake := "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n"
		if err := os.WriteFile(filepath.Join(bin, "docker"), []byte(fake), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":/bin:/usr/bin")
		err := Ready(context.Background())
		if err == nil || !strings.Contains(err.Error(), "does not answer: Cannot connect") || !strings.Contains(err.Error(), "setup.sh docker") {
			t.Errorf("got %v", err)
		}
	})
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	broken := errors.New("broken")
	if Interrupted(ctx, broken) {
		t.Error("interrupted while the context lives")
	}
	cancel()
	if !Interrupted(ctx, broken) || Interrupted(ctx, nil) {
		t.Error("an error after the context has ended is an interruption, success is not")
	}
}
