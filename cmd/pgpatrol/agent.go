package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/plugins/builtin"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const agentHelp = `Runs the agent until SIGTERM or SIGINT. SIGHUP reads the configuration again; a file with
problems leaves the old configuration in force. A second SIGTERM or SIGINT ends the
program at once; what was in progress is then resolved at the next start.

Exit codes:
  0  stopped by a signal
  1  failed: the configuration has problems, or another agent runs here
  2  wrong usage`

func agentCommand(e *env) *cobra.Command {
	var path, level, format string
	cmd := &cobra.Command{
		Use: "agent --config FILE", Short: "run the agent", Long: agentHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usageError("--config is missing")
			}
			log, err := newLogger(e, level, format)
			if err != nil {
				return err
			}
			return runAgent(cmd.Context(), e, path, log)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE`; required")
	cmd.Flags().StringVar(&level, "log-level", "info", "`LEVEL` from which messages are logged: debug, info, warn, error")
	cmd.Flags().StringVar(&format, "log-format", "auto", "`FORMAT` of the log: text, json, or auto, which is text on a terminal and json elsewhere")
	return cmd
}

// runAgent runs until a signal says otherwise. Signals are caught before anything else, so that none that comes early
// ends the program the hard way.
func runAgent(ctx context.Context, e *env, path string, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end; giving the default back lets a second one end the program at once.
	context.AfterFunc(ctx, stop)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	host, err := builtin.NewHost()
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{
		ConfigPath: path, Version: programVersion(), Logger: log, Host: host,
		Plugins: agent.Plugins{
			Manager: func(name string, c agent.ManagerConfig) (service.Manager, error) {
				return builtin.Manager(name, builtin.ManagerConfig(c))
			},
			Patroni: builtin.Patroni, Etcd: builtin.Etcd, Forwarder: builtin.Forwarder, Check: builtin.Check, Proxy: builtin.Proxy, Leader: builtin.Leader, Process: builtin.Process, Machine: builtin.Machine, Detect: builtin.Detect,
		},
	})
	if problems, ok := errors.AsType[config.Problems](err); ok {
		printProblems(e, problems)
		return &codeError{code: exitFailed}
	}
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for {
		select {
		case <-hup:
			a.Reload()
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("run agent: %w", err)
			}
			return nil
		}
	}
}
