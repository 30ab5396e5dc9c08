//go:build !unix

package service

import (
	"errors"
	"os"
	"os/exec"
)

// isolate cannot switch users or kill groups here; such commands are refused rather than run with too many rights.
func isolate(_ *exec.Cmd, name string) (string, error) {
	if name != "" {
		return "", errors.ErrUnsupported
	}
	return ownHome(), nil
}

func exitCode(p *os.ProcessState) int { return p.ExitCode() }
