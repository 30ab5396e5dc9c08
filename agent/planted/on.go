//go:build planted

package planted

// Current is the name of the bug that is planted, "" for none. It is set before anything runs, and not while it does.
var Current string

// On reports whether the bug of that name is planted.
func On(bug string) bool { return Current == bug }

// OnGuard reports whether the bug is planted that switches the guard of that name off.
func OnGuard(guard string) bool { return Current == "guard/"+guard }
