package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// operation is something that the daemon does in the background.
type operation struct {
	id     string
	job    string            // in the words of jobs, empty if it is none of them
	target []string          // names of instances
	err    string            // why it failed
	failed bool              // it has ended, and not well
	fds    map[string]string // of an exec: secrets of its streams, by file descriptor
	ended  bool
	exit   int // of an exec that has ended: exit code of the command
}

// jobs are the operations that change whether an instance runs, by the daemon's words for them (Incus 6.0 to 6.18,
// internal/server/db/operationtype). Others, such as a command that runs inside or a backup, leave it alone.
var jobs = map[string]string{
	"Starting instance":   "start",
	"Stopping instance":   "stop",
	"Restarting instance": "restart",
	"Freezing instance":   "freeze",
	"Unfreezing instance": "unfreeze",
	"Rebuilding instance": "rebuild",
	"Deleting instance":   "delete",
	"Renaming instance":   "rename",
	"Updating instance":   "update",
	"Restoring snapshot":  "restore",
	"Migrating instance":  "migrate",
	"Migrating container": "migrate",
	"Creating instance":   "create",
}

// parseOperation reads an operation. Its id becomes part of URLs and so has to be a UUID.
func parseOperation(body []byte) (operation, error) {
	var in struct {
		ID          string
		Description string
		StatusCode  int `json:"status_code"`
		Err         string
		Resources   map[string][]string
		Metadata    *struct {
			FDs    map[string]string `json:"fds"`
			Return *int
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return operation{}, fmt.Errorf("%w: the answer is not an operation: %w", service.ErrUnavailable, err)
	}
	if !isUUID(in.ID) || in.StatusCode < 100 {
		return operation{}, fmt.Errorf("%w: the answer is not an operation: no id or no status_code", service.ErrUnavailable)
	}
	const finished, success = 200, 200
	op := operation{
		id: in.ID, job: jobs[in.Description], err: oneLine(in.Err),
		ended: in.StatusCode >= finished, failed: in.StatusCode >= finished && in.StatusCode != success,
	}
	if in.Metadata != nil {
		op.fds = in.Metadata.FDs
		if in.Metadata.Return != nil {
			op.exit = *in.Metadata.Return
		}
	}
	for _, path := range in.Resources["instances"] {
		path, _, _ = strings.Cut(path, "?")
		if name, ok := strings.CutPrefix(path, "/1.0/instances/"); ok {
			op.target = append(op.target, name)
		}
	}
	return op, nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, b := range []byte(s) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		hex := b >= '0' && b <= '9' || b >= 'a' && b <= 'f'
		if hyphen != (b == '-') || !hyphen && !hex {
			return false
		}
	}
	return true
}

// failure returns why an operation ended badly, nil if it did not.
func (o operation) failure() error {
	switch {
	case !o.failed:
		return nil
	case strings.Contains(o.err, "is busy running"):
		return fmt.Errorf("%w: %s", service.ErrBusy, o.err)
	case o.err == "":
		return errors.New("the operation failed, and Incus does not say why")
	}
	return errors.New(o.err)
}

// parseRunning reads the running ones of the answer to GET /1.0/operations?recursion=1.
func parseRunning(body []byte) ([]operation, error) {
	var in map[string][]json.RawMessage // by status, in lower case
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("%w: the answer is not a list of operations: %w", service.ErrUnavailable, err)
	}
	var out []operation
	for status, list := range in {
		switch status {
		case "success", "failure", "cancelled":
			continue
		}
		for _, one := range list {
			op, err := parseOperation(one)
			if err != nil {
				return nil, err
			}
			out = append(out, op)
		}
	}
	return out, nil
}

// running returns the job that somebody has begun with an instance, the zero operation if there is none.
func (m *Manager) running(ctx context.Context, instance string) (operation, error) {
	body, err := m.get(ctx, "/1.0/operations", url.Values{"recursion": {"1"}})
	if err != nil {
		return operation{}, err
	}
	all, err := parseRunning(body)
	if err != nil {
		return operation{}, fmt.Errorf("GET /1.0/operations: %w", err)
	}
	for _, op := range all {
		for _, name := range op.target {
			if name == instance && op.job != "" && !op.ended {
				return op, nil
			}
		}
	}
	return operation{}, nil
}
