package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a hold. What is longer was not written by a person, and would fill every page that shows it.
const (
	MaxHold     = 30 * 24 * time.Hour // a hold that outlives this is a forgotten one
	maxOwner    = 63                  // characters
	maxReason   = 200                 // characters
	maxHoldText = 2 << 10             // bytes
)

// Unknown stands for the owner of a hold and the holder of a lock that cannot be told.
const Unknown = "unknown"

// holdText is a hold as it is written where it is kept; kind and level follow from the place.
type holdText struct {
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
}

// HoldText returns the hold as it is written where it is kept: a JSON object without its kind and level, which follow
// from the place. It fails for a hold that ParseHold would not accept.
func HoldText(h Hold) ([]byte, error) {
	if err := checkHold(h); err != nil {
		return nil, err
	}
	return json.Marshal(holdText{h.Owner, h.Reason, h.Since.UTC(), h.Until.UTC()})
}

// ParseHold reads what HoldText writes, and what a person may write by hand in its place. Its error says why a text is
// not intelligible; whoever reads a kill switch must take that for a set one.
func ParseHold(data []byte) (Hold, error) {
	if len(data) > maxHoldText {
		return Hold{}, fmt.Errorf("longer than %d bytes", maxHoldText)
	}
	var t holdText
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return Hold{}, fmt.Errorf("not a hold in JSON: %.80q", err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Hold{}, errors.New("not a hold in JSON: something follows it")
	}
	h := Hold{Owner: t.Owner, Reason: t.Reason, Since: t.Since.UTC(), Until: t.Until.UTC()}
	if err := checkHold(h); err != nil {
		return Hold{}, err
	}
	return h, nil
}

func checkHold(h Hold) error {
	switch {
	case !worded(h.Owner, maxOwner):
		return fmt.Errorf("owner must be 1 to %d printable characters", maxOwner)
	case !worded(h.Reason, maxReason):
		return fmt.Errorf("reason must be 1 to %d printable characters", maxReason)
	case strange(h.Since) || strange(h.Until):
		return errors.New("since and until must be of this century")
	case !h.Until.IsZero() && h.Until.Before(h.Since):
		return errors.New("until must not be before since")
	}
	return nil
}

// worded reports whether a person may have written that.
func worded(s string, most int) bool {
	return s != "" && strings.TrimSpace(s) == s && utf8.ValidString(s) && utf8.RuneCountInString(s) <= most &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func strange(t time.Time) bool { return !t.IsZero() && (t.Year() < 2000 || t.Year() >= 2100) }
