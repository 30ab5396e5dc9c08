package builtin

import "github.com/pgpatrol/pgpatrol/plugins/service/detect"

// Detect says whether this machine has a service manager of that name, and from what that follows.
func Detect(manager string) (ok bool, evidence string) {
	return detect.Explain(detect.Here(), detect.Manager(manager))
}
