package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/config"
)

const defaultConfig = "/etc/pgpatrol/pgpatrol.yaml"

const checkHelp = `Checks a configuration file (` + defaultConfig + ` unless one is named) as the agent
would at its start, and prints every problem as FILE:LINE:COLUMN: PATH: MESSAGE to
standard error. It asks no agent and touches nothing that the file describes.

Exit codes:
  0  the agent would use the file
  1  the file has problems or cannot be read
  2  wrong usage`

// checked is the reply of check-config --json.
type checked struct {
	File     string          `json:"file"`
	Valid    bool            `json:"valid"`
	Problems config.Problems `json:"problems"`
}

func checkCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check-config [FILE]", Short: "check a configuration file", Long: checkHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError("unexpected argument %q: one file is checked at a time", args[1])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) == 1 {
				path = args[0]
			}
			_, err := config.Load(path)
			problems, ok := errors.AsType[config.Problems](err)
			if err != nil && !ok {
				return err
			}
			if e.json {
				if problems == nil {
					problems = config.Problems{}
				}
				if err := printJSON(e.out, checked{File: path, Valid: err == nil, Problems: problems}); err != nil {
					return err
				}
			} else if err == nil {
				newPrinter(e.out, e.screen).line("%s: valid", path)
			} else {
				printProblems(e, problems)
			}
			if err != nil {
				return &codeError{code: exitFailed}
			}
			return nil
		},
	}
	jsonFlag(cmd, e)
	return cmd
}

// printProblems prints every problem on a line of its own, and their number.
func printProblems(e *env, problems config.Problems) {
	p := newPrinter(e.err, screen{})
	for _, one := range problems {
		p.line("%s", one)
	}
	noun := "problems"
	if len(problems) == 1 {
		noun = "problem"
	}
	p.line("%s", fmt.Sprintf("%d %s", len(problems), noun))
}
