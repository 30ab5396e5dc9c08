package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/guard"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const policyHelp = `Shows how far the agent may go: the mode of every class of actions for every service, and
of single findings that have a mode of their own. Modes that are the default are marked
with a star; "pgpatrol explain MODE" and "pgpatrol explain CLASS" say what they mean.

The agent is asked for the policy in force, unless --config names a file.
--no-dcs shows what remains allowed while etcd cannot be read, which no policy widens.

Exit codes:
  0  shown
  1  failed: the file has problems, or the agent is too old to say
  2  wrong usage
  3  no agent answers`

// policies is the reply of policy --json.
type policies struct {
	Node     node.Policy     `json:"node"`
	Services []servicePolicy `json:"services"`
	NoDCS    []noDCS         `json:"no_dcs,omitempty"`
	Default  node.Policy     `json:"default"`
}

// servicePolicy is what holds for one service: the mode of every class, and of every class for findings of their own.
type servicePolicy struct {
	Service  string                    `json:"service"`
	Policy   node.Policy               `json:"policy"`
	Findings map[node.Code]node.Policy `json:"findings,omitempty"` // as they work, restricted where a finding can only restrict
}

// noDCS is what may be done with a kind of service while etcd cannot be read.
type noDCS struct {
	Kind    node.Kind `json:"kind"`
	Verb    node.Verb `json:"verb"`
	Allowed bool      `json:"allowed"`
	Why     string    `json:"why"`
}

func policyCommand(e *env) *cobra.Command {
	var path string
	var without bool
	cmd := &cobra.Command{
		Use: "policy", Short: "show how far the agent may go", Long: policyHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec, err := specOf(cmd.Context(), e, path)
			if err != nil {
				return err
			}
			r := policiesOf(spec, without)
			if e.json {
				return printJSON(e.out, r)
			}
			printPolicies(newPrinter(e.out, e.screen), r)
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "show the policy of this `FILE` instead of asking the agent")
	cmd.Flags().BoolVar(&without, "no-dcs", false, "also show what remains allowed while etcd cannot be read")
	jsonFlag(cmd, e)
	return cmd
}

// specOf reads what the agent was told from a file, or asks the agent.
func specOf(ctx context.Context, e *env, path string) (node.Spec, error) {
	if path == "" {
		s, err := api.NewClient(e.socket).Status(ctx)
		switch {
		case err != nil:
			return node.Spec{}, err
		case s.Spec == nil:
			return node.Spec{}, errors.New("the agent that runs is older than this program and does not tell the policy of its services: restart it, or use --config")
		}
		return *s.Spec, nil
	}
	cfg, err := config.Load(path)
	if problems, ok := errors.AsType[config.Problems](err); ok {
		printProblems(e, problems)
		return node.Spec{}, &codeError{code: exitFailed}
	}
	return cfg.Spec(), err
}

func policiesOf(spec node.Spec, without bool) policies {
	r := policies{Node: spec.Policy, Services: []servicePolicy{}, Default: node.DefaultPolicy()}
	for _, name := range spec.Names() {
		s := servicePolicy{Service: name, Policy: spec.PolicyOf(name)}
		one := s
		for code := range s.Policy.Findings {
			if one.Findings == nil {
				one.Findings = map[node.Code]node.Policy{}
			}
			one.Findings[code] = node.Policy{
				Adjust: s.Policy.For(node.ClassAdjust, code), Revive: s.Policy.For(node.ClassRevive, code),
				Disrupt: s.Policy.For(node.ClassDisrupt, code), Expedite: s.Policy.For(node.ClassExpedite, code),
			}
		}
		r.Services = append(r.Services, one)
	}
	if without {
		for _, k := range node.Kinds() {
			for _, v := range k.Verbs() {
				allowed, why := guard.WithoutDCS(k, v)
				r.NoDCS = append(r.NoDCS, noDCS{k, v, allowed, why})
			}
		}
	}
	return r
}

func printPolicies(p *printer, r policies) {
	head := []string{"SERVICE", "ADJUST", "REVIVE", "DISRUPT", "EXPEDITE"}
	rows := [][]string{append([]string{"(node)"}, modes(r.Node, r.Default)...)}
	for _, s := range r.Services {
		rows = append(rows, append([]string{s.Service}, modes(s.Policy, r.Default)...))
	}
	p.table("", head, rows)
	var findings [][]string
	for _, s := range r.Services {
		for _, code := range slices.Sorted(maps.Keys(s.Findings)) {
			findings = append(findings, append([]string{s.Service, string(code)}, modes(s.Findings[code], s.Policy)...))
		}
	}
	p.line("* the default")
	if len(findings) > 0 {
		p.line("\nFindings with a mode of their own (* that of the service):")
		p.table("  ", []string{"SERVICE", "FINDING", "ADJUST", "REVIVE", "DISRUPT", "EXPEDITE"}, findings)
	}
	if len(r.NoDCS) == 0 {
		return
	}
	p.line("\nWhile etcd cannot be read:")
	for _, n := range r.NoDCS {
		p.para("  ", "       ", "%s %s of %s: %s", tick(n.Allowed), n.Verb, n.Kind, n.Why)
	}
}

// modes words a policy, with a star at what equals another one.
func modes(p, same node.Policy) []string {
	var out []string
	for _, c := range node.Classes() {
		s := or(string(p.Of(c)), string(node.ModeOff))
		if p.Of(c) == same.Of(c) {
			s += "*"
		}
		out = append(out, s)
	}
	return out
}
