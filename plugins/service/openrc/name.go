package openrc

import (
	"fmt"
	"strings"
)

// maxName is the longest name of a file.
const maxName = 255

// checkName accepts names of init scripts: letters, digits and what OpenRC's own scripts use besides. Nothing is escaped:
// a name becomes part of paths and an argument of rc-service as it is.
func checkName(unit string) error {
	switch {
	case unit == "" || len(unit) > maxName:
		return fmt.Errorf("service name of %d bytes", len(unit))
	case !isAlnum(unit[0]) && unit[0] != '_':
		return fmt.Errorf("service name %q begins with %q", unit, unit[0])
	case strings.HasSuffix(unit, ".sh"):
		return fmt.Errorf("service name %q: OpenRC takes no .sh for a service", unit)
	}
	for _, b := range []byte(unit) {
		if !isAlnum(b) && strings.IndexByte("_.+-", b) < 0 {
			return fmt.Errorf("service name %q contains %q", unit, b)
		}
	}
	return nil
}

func isAlnum(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
