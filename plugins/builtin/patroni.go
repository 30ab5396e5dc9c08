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
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// fromPatroni adds what Patroni itself says: its API, its validator, its log.
func fromPatroni(out *probe.PatroniProbes, t probe.PatroniTarget, files *postgres.Files) error {
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
		patroni.CheckConfig{File: t.ConfigFile, Patroni: t.Executable},
		patroni.CheckDeps{Runner: service.Runner{}, User: func(context.Context) (string, error) { return ownerOf(t.DataDir) }},
	)
	if err != nil {
		return err
	}
	out.Liveness, out.API, out.Config = liveness, whole, check
	place := patroni.MarkConfig{Unit: t.Unit}
	if t.LogFile != "" {
		place = patroni.MarkConfig{File: t.LogFile}
	}
	mark, err := patroni.NewLogMark(place, patroni.MarkDeps{Runner: service.Runner{}, DataDirID: files.DataDirID})
	if err != nil {
		return err
	}
	out.LogMark = mark
	out.ConfigID = func() (string, error) { return patroni.FileID(t.ConfigFile) }
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
