// Command sim runs the real decision core, executor and coordination of three agents against models of Patroni,
// PostgreSQL, systemd and etcd, in simulated time and under random faults, and checks after every act what must hold
// (FAULTS.md §2). A seed gives one trace.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	seeds := flag.Uint64("seeds", 200, "how many seeds to run")
	first := flag.Uint64("first", 1, "the first of them")
	one := flag.Uint64("seed", 0, "run this seed only and print its trace")
	workers := flag.Int("workers", 2, "seeds at a time")
	plant := flag.Bool("planted", false, "plant every bug of agent/planted and look whether it is found")
	child := flag.Bool("planted-child", false, "what -planted runs in a build with the tag planted")
	flag.Parse()
	switch {
	case *plant:
		os.Exit(buildPlanted(*seeds))
	case *child:
		os.Exit(huntPlanted(*seeds, *workers))
	case *one != 0:
		var trace strings.Builder
		t := runSeed(*one, &trace)
		fmt.Print(trace.String())
		fmt.Printf("violations: %d\n", len(t.Violations))
		return
	}
	began := time.Now()
	total := runSeeds(*first, *seeds, *workers, false)
	total.write(os.Stdout)
	fmt.Printf("took %s\n", time.Since(began).Round(time.Millisecond))
	if len(total.Violations) > 0 {
		os.Exit(1)
	}
}

// runSeed runs one seed with agents, and once more without them to see whether they did harm.
func runSeed(seed uint64, trace *strings.Builder) tally {
	with, without := newWorld(seed, true, trace), newWorld(seed, false, nil)
	script := play(with)
	play(without)
	with.harmless(outcome{without.clients.down, without.clients.lost}, script)
	with.facts.Seeds = 1
	return with.facts
}

// runSeeds runs many seeds beside each other. With stop it ends after the first violation.
func runSeeds(first, n uint64, workers int, stop bool) tally {
	var mu sync.Mutex
	total := newTally()
	var next atomic.Uint64
	var done atomic.Bool
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= n || done.Load() {
					return
				}
				t := runSeed(first+i, nil)
				mu.Lock()
				total.add(t)
				mu.Unlock()
				if stop && len(t.Violations) > 0 {
					done.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return total
}
