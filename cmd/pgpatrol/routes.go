package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/route"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

const routesHelp = `Shows where each proxy of this machine leads clients, who leads the cluster, and since when
the two agree.

Exit codes:
  0  every proxy leads to the leader and nowhere else, or there is no proxy here
  1  failed, or the agent has not looked yet
  2  wrong usage
  3  no agent answers
  4  a proxy does not lead to the leader, or it is not known`

func routesCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "routes", Short: "show where the proxies lead, and where they should", Long: routesHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := api.NewClient(e.socket).Status(cmd.Context())
			if err != nil {
				return err
			}
			routes := s.Routes
			if routes == nil {
				routes = []route.Report{}
			}
			if e.json {
				if err := printJSON(e.out, map[string]any{"now": s.Now, "routes": routes}); err != nil {
					return err
				}
			} else {
				printRoutes(newPrinter(e.out, e.screen), s)
			}
			return routesCode(routes)
		},
	}
	jsonFlag(cmd, e)
	return cmd
}

// routesCode is nil where every proxy is as it should be.
func routesCode(routes []route.Report) error {
	for _, r := range routes {
		if r.Answer.State != route.Agreed {
			return &codeError{code: exitWarn}
		}
	}
	return nil
}

func printRoutes(p *printer, s api.Status) {
	if len(s.Routes) == 0 {
		p.line("No proxy is configured on this machine.")
	}
	for _, r := range s.Routes {
		if r.At == 0 {
			field(p, "Proxy", "%s, backend %s: not looked at yet", r.Service, r.Backend)
			continue
		}
		field(p, "Proxy", "%s, backend %s: %s for %s", r.Service, r.Backend, r.Answer.State, span(s.Now.Sub(r.Since)))
		field(p, "", "%s", r.Answer.Text)
		switch {
		case r.Answer.Refuse != "":
			field(p, "", "Nothing is told, %s refuses: %s", r.Answer.Guard, r.Answer.Refuse)
		case r.Answer.Guard != "":
			field(p, "", "Nothing is told: guard %s", r.Answer.Guard)
		}
		printServers(p, s.Now, r)
	}
}

func printServers(p *printer, now node.Instant, r route.Report) {
	if !r.Table.Known {
		field(p, "", "Its servers are unknown: %s", r.Table.Why)
		return
	}
	for _, s := range r.Table.Value.Of(r.Backend) {
		field(p, "", "%s", serverWords(s))
	}
	field(p, "", "seen %s ago through %s", age(now, r.Table.At), r.Table.Source)
}

func serverWords(s proxy.Server) string {
	words := []string{"down"}
	if s.Up {
		words[0] = "up"
	}
	if a := s.Admin.Words(); a != "" {
		words = append(words, a+" by a person")
	}
	if s.Sessions > 0 {
		words = append(words, fmt.Sprintf("%d sessions", s.Sessions))
	}
	where := ""
	if s.Address != "" {
		where = fmt.Sprintf(" (%s:%d)", s.Address, s.Port)
	}
	return fmt.Sprintf("%s%s: %s, for %s", s.Server, where, strings.Join(words, ", "), span(s.Since))
}
