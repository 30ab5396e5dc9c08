//go:build !linux

package api

import "net"

// peerOf knows nobody: an order must name its owner here.
func peerOf(net.Conn) Peer { return Peer{} }
