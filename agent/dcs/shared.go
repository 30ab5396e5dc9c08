package dcs

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

const (
	// maxOwn bounds how many keys are read of what agents share; pgpatrol itself writes a dozen.
	maxOwn = 64
	// maxOwnValue bounds each of their values; a byte more is kept, so that what is too long stays so.
	maxOwnValue = 4 << 10
)

// ParseShared reads what agents share through etcd. It accepts everything: what should be a hold and is not intelligible
// counts as a kill switch, and what should name a node and does not names node.Unknown (FAULTS.md S23).
func ParseShared(scope string, kvs []KV) node.Coordination {
	var c node.Coordination
	kvs = slices.Clone(kvs)
	slices.SortFunc(kvs, func(a, b KV) int { return cmp.Compare(a.Key, b.Key) })
	var disrupted []node.Spent
	read := map[string]int{}
	for _, kv := range kvs {
		section, _, _ := strings.Cut(strings.TrimPrefix(kv.Key, node.KeyRoot), "/")
		read[section]++
		if kind, ok := strings.CutPrefix(kv.Key, node.ScopeKeys(node.AllScopes)+"hold/"); ok {
			c.Holds = append(c.Holds, parseHold(kind, node.LevelAll, kv))
			continue
		}
		rel, ok := strings.CutPrefix(kv.Key, node.ScopeKeys(scope))
		if !ok {
			continue
		}
		switch section, name, _ := strings.Cut(rel, "/"); {
		case section == "hold":
			c.Holds = append(c.Holds, parseHold(name, node.LevelScope, kv))
		case section == "lock" && name == node.LockCluster:
			c.Lock = holderName(kv.Value)
		case section == "spent" && slot(name, node.ClusterActions):
			c.Spent = append(c.Spent, parseSpent(kv.Value))
		case section == "spent-disrupt" && slot(name, node.ClusterDisruptions):
			disrupted = append(disrupted, parseSpent(kv.Value))
		}
	}
	// A disrupting action takes a slot of both kinds and counts once.
	for _, s := range disrupted {
		s.Class = node.ClassDisrupt
		if !slices.Contains(c.Spent, s) {
			c.Spent = append(c.Spent, s)
		}
	}
	for _, s := range []string{scope, node.AllScopes} {
		if read[s] >= maxOwn { // there may be more, which were not read
			c.Holds = append(c.Holds, unknownHold(node.LevelScope, fmt.Sprintf("%d keys or more are below %s: too many to read", maxOwn, node.ScopeKeys(s))))
		}
	}
	return c
}

// parseHold reads one hold. Every kind that is not known is a kill switch: a newer version may have set it.
func parseHold(kind string, l node.Level, kv KV) node.Hold {
	h, err := node.ParseHold(kv.Value)
	if k := node.HoldKind(kind); err == nil && (k == node.HoldPause || k == node.HoldKill) {
		h.Kind, h.Level = k, l
		return h
	}
	return unknownHold(l, "the key "+printable(kv.Key, 150)+" is not intelligible")
}

func unknownHold(l node.Level, reason string) node.Hold {
	return node.Hold{Kind: node.HoldKill, Level: l, Owner: node.Unknown, Reason: reason}
}

func slot(name string, most int) bool {
	n, err := strconv.ParseUint(name, 10, 8)
	return err == nil && n >= 1 && n <= uint64(most) && strconv.FormatUint(n, 10) == name
}

// parseSpent reads who spent a slot, and for what. What is not intelligible counts as the most that it can be.
func parseSpent(b []byte) node.Spent {
	s := node.Spent{Node: node.Unknown, Class: node.ClassDisrupt}
	var t node.Spent
	d := json.NewDecoder(bytes.NewReader(b))
	if len(b) > maxOwnValue || d.Decode(&t) != nil {
		return s
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return s
	}
	if validName(t.Node) {
		s.Node = t.Node
	}
	if slices.Contains(node.Classes(), t.Class) {
		s.Class = t.Class
	}
	return s
}

// holderName returns the name in the value of a lock.
func holderName(b []byte) string {
	if s := string(b); validName(s) {
		return s
	}
	return node.Unknown
}
