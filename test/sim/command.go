package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const usage = `Usage: go run ./test/sim [flags]

Runs agents with the real decision core, executor and coordination against models of Patroni, PostgreSQL, systemd and
etcd in simulated time, and checks what must hold. A seed is a cluster with its timings, policies and a script of faults;
it gives the same trace every time. test/sim/README.md says what is modelled and checked.

  go run ./test/sim -seeds 1000           run seeds 1 to 1000 and report
  go run ./test/sim -seed 42              run one seed; print its script of faults and its trace
  go run ./test/sim -seed 42 -only 2,4    the same seed with faults 2 and 4 of its script and no others
  go run ./test/sim -planted              plant every bug of agent/planted in turn, and look whether it is found
  go run ./test/sim -crashpoints          for every kind of action kill the agent at every step of it, and look what
                                          becomes of the action
  go run ./test/sim -conformance test/conformance/testdata
                                          run the scripts of test/conformance, and compare with what the lab recorded

Flags:
`

const exits = `
Exit status: 0 if everything held, 1 if something was violated, an action was lost or done twice, a planted bug
was not found or a script does not agree, 2 for a wrong command line.
`

// enoughPlanted is how many seeds a planted bug gets by default. A seed that does not bring it out costs milliseconds.
const enoughPlanted = 20000

// options are the command line.
type options struct {
	seeds, first, seed uint64
	only               excerpt
	workers            int
	planted, child     bool
	crashpoints        bool
	crash              string
	recordings         string
}

// mode is what is to be done, and allowed the flags that have a meaning in it.
type mode struct {
	name    string
	chosen  bool
	allowed []string
}

func (o *options) modes() []mode {
	return []mode{
		{"seed", o.seed != 0, []string{"only"}},
		{"planted", o.planted, []string{"seeds"}},
		{"planted-child", o.child, []string{"seeds", "workers"}},
		{"crashpoints", o.crashpoints, []string{"workers", "case"}},
		{"conformance", o.recordings != "", nil},
		{"", true, []string{"seeds", "first", "workers"}},
	}
}

// parse reads the command line. flag.ErrHelp says that help was asked for; other errors say what is wrong with it.
func parse(args []string, out io.Writer) (o options, err error) {
	f := flag.NewFlagSet("sim", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Uint64Var(&o.seeds, "seeds", 200, "run `n` seeds; with -planted, at most so many for each bug, 20000 if not given")
	f.Uint64Var(&o.first, "first", 1, "begin with seed `n`")
	f.Uint64Var(&o.seed, "seed", 0, "run seed `n` alone and print its trace")
	f.Func("only", "with -seed: let only these `faults` of its script happen, by number, each as long as it was drawn or as said\nhere: 2,4:5s; or none", func(s string) (err error) { o.only, err = parseExcerpt(s); return err })
	f.IntVar(&o.workers, "workers", 2, "run `n` seeds beside each other")
	f.BoolVar(&o.planted, "planted", false, "plant bugs and find them")
	f.BoolVar(&o.child, "planted-child", false, "what -planted itself runs, in a build with the tag planted")
	f.BoolVar(&o.crashpoints, "crashpoints", false, "kill the agent at every step of every kind of action")
	f.StringVar(&o.crash, "case", "", "with -crashpoints: replay one `crash` and print its trace, as deed/step/comeback or, with a second crash\nin the recovery, deed/step/comeback/step: hung-revive/17/30s/2")
	f.StringVar(&o.recordings, "conformance", "", "compare the model with the recordings of the lab in `folder`")
	f.Usage = func() {}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(out)
		fmt.Fprint(out, usage)
		f.PrintDefaults()
		fmt.Fprint(out, exits)
		return o, err
	case err != nil:
		return o, err
	}
	return o, o.check(f)
}

// check finds what does not go together.
func (o *options) check(f *flag.FlagSet) error {
	var set []string
	f.Visit(func(g *flag.Flag) { set = append(set, g.Name) })
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unknown argument %q: there are flags only", f.Arg(0))
	case slices.Contains(set, "seed") && o.seed == 0:
		return errors.New("-seed 0: seeds count from 1")
	case o.first == 0:
		return errors.New("-first 0: seeds count from 1")
	case o.seeds == 0:
		return errors.New("-seeds 0: nothing to run")
	case o.workers < 1:
		return fmt.Errorf("-workers %d: at least 1 is needed", o.workers)
	}
	modes := o.modes()
	m := modes[slices.IndexFunc(modes, func(m mode) bool { return m.chosen })]
	if o.planted && !slices.Contains(set, "seeds") {
		o.seeds = enoughPlanted
	}
	for _, name := range set {
		if name == m.name || slices.Contains(m.allowed, name) {
			continue
		}
		if m.name != "" {
			return fmt.Errorf("-%s has no meaning with -%s", name, m.name)
		}
		i := slices.IndexFunc(modes, func(m mode) bool { return slices.Contains(m.allowed, name) })
		return fmt.Errorf("-%s goes with -%s", name, modes[i].name)
	}
	return nil
}

// run does what the command line says and returns the exit status.
func run(args []string, out, problems io.Writer) int {
	o, err := parse(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(problems, "sim: %v\nRun with -help to see what there is.\n", err)
		return 2
	case o.planted:
		return buildPlanted(o.seeds)
	case o.crash != "":
		return crashpoint(o.crash, out, problems)
	case o.crashpoints:
		return crashpoints(o.workers, out)
	case o.child:
		return huntPlanted(o.seeds, o.workers)
	case o.recordings != "":
		return conform(o.recordings, out)
	case o.seed != 0:
		return replay(o.seed, o.only, out, problems)
	}
	began := time.Now()
	total := runSeeds(o.first, o.seeds, o.workers, false)
	total.write(out)
	explain(out, total.Violations)
	fmt.Fprintf(out, "took %s\n", time.Since(began).Round(time.Millisecond))
	return status(total)
}

// replay prints one seed: what happens to it, and what came of that.
func replay(seed uint64, only excerpt, out, problems io.Writer) int {
	script := scriptOf(seed)
	if n := only.beyond(script); n > 0 {
		fmt.Fprintf(problems, "sim: -only %s: there is no fault %d, the script of seed %d has %d\n", only, n, seed, len(script))
		return 2
	}
	var trace strings.Builder
	t := runSeed(seed, only, &trace)
	fmt.Fprintf(out, "seed %d\n", seed)
	list(out, "  ", only.of(script))
	fmt.Fprintf(out, "\n%s\nviolations: %d\n", trace.String(), len(t.Violations))
	for _, v := range t.Violations {
		fmt.Fprintf(out, "  %s  %s\n", v.Invariant, v.Text)
	}
	return status(t)
}

func status(t tally) int {
	if len(t.Violations) > 0 {
		return 1
	}
	return 0
}
