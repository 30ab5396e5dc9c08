package builtin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/patroni"
	"github.com/pgpatrol/pgpatrol/plugins/probe/postgres"
)

// surroundings are what Patroni lives in: this machine, or an instance of it.
type surroundings struct {
	tree     probe.Tree
	runner   patroni.Runner
	owner    func(context.Context) (string, error) // of the data directory
	configID func() (string, error)
}

// fromPatroni adds what Patroni itself says: its API, its validator, its log.
func fromPatroni(out *probe.PatroniProbes, t probe.PatroniTarget, files *postgres.Files, s surroundings) error {
	api := patroni.APIConfig{URL: t.API}
	liveness, err := patroni.NewLiveness(api, patroni.APIDeps{})
	if err != nil {
		return err
	}
	whole, err := patroni.NewAPI(api, patroni.APIDeps{})
	if err != nil {
		return err
	}
	check, err := patroni.NewConfigCheck(
		patroni.CheckConfig{File: t.ConfigFile, Patroni: t.Executable, Tree: s.tree}, patroni.CheckDeps{Runner: s.runner, User: s.owner},
	)
	if err != nil {
		return err
	}
	out.Liveness, out.API, out.Config = liveness, whole, check
	place := patroni.MarkConfig{Unit: t.Unit}
	if t.LogFile != "" {
		place = patroni.MarkConfig{File: t.LogFile, Tree: s.tree}
	}
	mark, err := patroni.NewLogMark(place, patroni.MarkDeps{Runner: s.runner, DataDirID: files.DataDirID})
	if err != nil {
		return err
	}
	out.LogMark = mark
	out.ConfigID = s.configID
	return nil
}

// ownerOf returns the user who owns the data directory: PostgreSQL, and so Patroni, must run as that user. The validator
// runs as that user too, because it executes PostgreSQL's programs.
func ownerOf(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("find the owner of the data directory: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("find the owner of the data directory %s: %w", dir, errors.ErrUnsupported)
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
	if err != nil {
		return "", fmt.Errorf("find the owner of the data directory %s: %w", dir, err)
	}
	return u.Username, nil
}
