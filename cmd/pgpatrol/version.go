package main

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

const versionHelp = `Shows the version of this program and, if one answers, of the agent. The two differ
between an upgrade and the agent's restart.

Exit codes:
  0  shown, whether an agent answers or not
  2  wrong usage`

// versions is the reply of version --json.
type versions struct {
	Version    string `json:"version"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	Agent      string `json:"agent,omitempty"`
	AgentError string `json:"agent_error,omitempty"`
}

func versionCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "show the version of this program and of the agent", Long: versionHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Version: programVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
			defer cancel()
			if a, err := api.NewClient(e.socket).Version(ctx); err != nil {
				v.AgentError = err.Error()
			} else {
				v.Agent = a.Version
			}
			if e.json {
				return printJSON(e.out, v)
			}
			p := newPrinter(e.out, e.screen)
			p.line("pgpatrol %s (%s, %s)", v.Version, v.Go, v.Platform)
			p.para("", "  ", "agent: %s", or(v.Agent, v.AgentError))
			return nil
		},
	}
	jsonFlag(cmd, e)
	return cmd
}
