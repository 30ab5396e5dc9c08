package node

import "strconv"

// Keys of pgpatrol's own in etcd. Everything is below KeyRoot, and nothing of Patroni's is.
const (
	KeyRoot   = "/pgpatrol/"
	AllScopes = "everything" // where a scope's name would be: what is for every agent; no scope may be called so
	// LockCluster is the lock of a cluster for actions that stop something that runs.
	LockCluster = "cluster"
)

// The budget of a whole cluster: so many actions within an hour, and so many of them disrupting (FAULTS.md S26).
const (
	ClusterActions     = 4
	ClusterDisruptions = 1
)

// ScopeKeys returns the prefix of the keys of one scope, or of AllScopes.
func ScopeKeys(scope string) string { return KeyRoot + scope + "/" }

// HoldKey returns the key of a hold, "" for a level that is not kept in etcd.
func HoldKey(l Level, scope string, k HoldKind) string {
	switch l {
	case LevelScope:
		return ScopeKeys(scope) + "hold/" + string(k)
	case LevelAll:
		return ScopeKeys(AllScopes) + "hold/" + string(k)
	case LevelNode:
	}
	return ""
}

// LockKey returns the key of a lock.
func LockKey(scope, name string) string { return ScopeKeys(scope) + "lock/" + name }

// SpentKey returns the key of one slot of the cluster's budget, n from 1 to ClusterActions.
func SpentKey(scope string, n int) string { return ScopeKeys(scope) + "spent/" + strconv.Itoa(n) }

// SpentDisruptKey returns the key of one slot of the budget for disrupting actions, n from 1 to ClusterDisruptions.
func SpentDisruptKey(scope string, n int) string {
	return ScopeKeys(scope) + "spent-disrupt/" + strconv.Itoa(n)
}
