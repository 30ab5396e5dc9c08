//go:build !planted

package main

import (
	"fmt"
	"os"
	"os/exec"
)

// buildPlanted runs the hunt in a build that has the seams.
func buildPlanted(seeds uint64) int {
	c := exec.Command("go", "run", "-tags", "planted", "./test/sim", "-planted-child", "-seeds", fmt.Sprint(seeds))
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "hunt planted bugs:", err)
		return 1
	}
	return 0
}

func huntPlanted(uint64, int) int {
	fmt.Fprintln(os.Stderr, "hunt planted bugs: this build has none; run -planted")
	return 2
}
