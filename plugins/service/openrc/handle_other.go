//go:build !linux

package openrc

import (
	"context"
	"errors"
)

// handle refers to one process. Only Linux has what it takes.
type handle struct{}

func open(string, process) (*handle, error) { return nil, errors.ErrUnsupported }

func (*handle) close() {}

func (*handle) kill() error { return errors.ErrUnsupported }

func (*handle) mayKill() error { return errors.ErrUnsupported }

func (*handle) wait(context.Context) error { return errors.ErrUnsupported }
