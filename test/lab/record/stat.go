package record

import (
	"bytes"
	"encoding/csv"
	"fmt"
)

// ParseStat reads HAProxy's "show stat" and returns the status of every server (not frontends and backends).
func ParseStat(text []byte) (map[string]string, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("# "))))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("decode show stat: %w", err)
	}
	servers := map[string]string{}
	if len(rows) == 0 {
		return servers, nil
	}
	column := -1
	for i, name := range rows[0] {
		if name == "status" {
			column = i
		}
	}
	for _, row := range rows[1:] {
		if column < 0 || len(row) <= column || row[1] == "FRONTEND" || row[1] == "BACKEND" {
			continue
		}
		servers[row[1]] = row[column]
	}
	return servers, nil
}
