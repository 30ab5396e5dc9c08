package launchd

import (
	"fmt"
	"strconv"
	"strings"
)

// noUser is the user of the domain "system".
const noUser = -1

// maxLabel bounds a label.
const maxLabel = 200

// target is a job in its domain.
type target struct {
	domain, label string
	user          int // of the domain, noUser for the system
}

func (t target) String() string { return t.domain + "/" + t.label }

// target reads a unit: a label, or a domain and a label.
func (m *Manager) target(unit string) (target, error) {
	domain, label := m.config.Domain, unit
	if i := strings.LastIndexByte(unit, '/'); i >= 0 {
		domain, label = unit[:i], unit[i+1:]
	}
	user, err := parseDomain(domain)
	if err != nil {
		return target{}, err
	}
	if err := checkLabel(label); err != nil {
		return target{}, err
	}
	return target{domain: domain, label: label, user: user}, nil
}

// parseDomain accepts system, gui/UID and user/UID, and returns the user.
func parseDomain(domain string) (user int, err error) {
	if domain == "system" {
		return noUser, nil
	}
	kind, id, _ := strings.Cut(domain, "/")
	uid, err := strconv.ParseUint(id, 10, 31)
	if err != nil || kind != "gui" && kind != "user" || id != strconv.FormatUint(uid, 10) {
		return 0, fmt.Errorf("domain %q is none of system, gui/UID and user/UID", domain)
	}
	return int(uid), nil
}

// checkLabel accepts labels in the reverse domain form that everybody uses, in which nothing means anything to launchctl.
func checkLabel(label string) error {
	if label == "" || len(label) > maxLabel {
		return fmt.Errorf("label of %d bytes", len(label))
	}
	for i, b := range []byte(label) {
		alnum := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !alnum && (i == 0 || strings.IndexByte("._-", b) < 0) {
			return fmt.Errorf("label %q contains %q", label, b)
		}
	}
	return nil
}
