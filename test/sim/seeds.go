package main

import (
	"strings"
	"sync"
	"sync/atomic"
)

// runSeed runs an excerpt of one seed with agents, and once more without them to see whether they did harm.
func runSeed(seed uint64, only excerpt, trace *strings.Builder) tally {
	with, without := newWorld(seed, true, trace), newWorld(seed, false, nil)
	with.only, without.only = only, only
	script := play(with)
	play(without)
	with.harmless(without.clients.outcome(), script)
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
				t := runSeed(first+i, nil, nil)
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
