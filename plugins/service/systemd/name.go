package systemd

import (
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// maxName is systemd's limit for unit names.
const maxName = 255

const suffix = ".service"

// checkName accepts the names of services that systemd itself accepts, without the quotes, commas and spaces that
// would mean something in a match rule. Nothing is escaped or completed: a name that needs it is refused.
func checkName(unit string) error {
	stem, ok := strings.CutSuffix(unit, suffix)
	switch {
	case len(unit) > maxName:
		return fmt.Errorf("unit name of %d bytes is too long", len(unit))
	case !ok:
		return fmt.Errorf("unit name %q does not end in %s", unit, suffix)
	case stem == "" || strings.HasPrefix(stem, ".") || strings.HasPrefix(stem, "-") || strings.HasPrefix(stem, "@"):
		return fmt.Errorf("unit name %q is not the name of a service", unit)
	case strings.HasSuffix(stem, "@"):
		return fmt.Errorf("unit name %q is a template without an instance", unit)
	}
	for _, b := range []byte(stem) {
		if !isAlnum(b) && strings.IndexByte(`:-_.\@`, b) < 0 {
			return fmt.Errorf("unit name %q contains %q", unit, b)
		}
	}
	return nil
}

// unitPath returns the object of a unit: every byte but letters and digits becomes _ and two hex digits, and so does
// a digit in the first place.
func unitPath(unit string) dbus.ObjectPath {
	var b strings.Builder
	b.WriteString(string(managerPath) + "/unit/")
	for i, c := range []byte(unit) {
		if isAlnum(c) && (i > 0 || c < '0' || c > '9') {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return dbus.ObjectPath(b.String())
}

func isAlnum(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
