//go:build race

package main

// crashStride is how far apart the steps are that a test of crashes takes. The race detector makes worlds slow.
const crashStride = 17
