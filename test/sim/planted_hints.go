//go:build planted

package main

// hints are the kinds of faults that bring a bug out: one of each line.
var hints = map[string][][]string{}

// byHarm are the bugs whose harm only shows beside a world without agents.
var byHarm = map[string]bool{}

// byCrash are the bugs that the crash points show, where no seed does.
var byCrash = map[string]bool{
	"coordinator/lock-for-an-hour": true, "coordinator/two-slots": true, "executor/forget-result": true,
	"executor/intent-means-execute": true, "executor/nothing-is-claimed": true, "executor/resolve-nothing": true,
}
