package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseLSN parses a position in the write-ahead log as PostgreSQL prints it: "0/3000060".
func ParseLSN(s string) (uint64, error) {
	high, low, found := strings.Cut(s, "/")
	h, errHigh := parseHex(high)
	l, errLow := parseHex(low)
	if !found || errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("parse wal position %.32q: not two hexadecimal numbers of 32 bits", s)
	}
	return h<<32 | l, nil
}

// FormatLSN is the inverse of ParseLSN, in PostgreSQL's own notation.
func FormatLSN(lsn uint64) string { return fmt.Sprintf("%X/%X", lsn>>32, uint32(lsn)) }

// parseHex parses a number of 32 bits without sign or separators.
func parseHex(s string) (uint64, error) {
	if strings.ContainsAny(s, "+-_") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 16, 32)
}
