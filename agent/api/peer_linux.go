package api

import (
	"fmt"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who opened a connection. What anybody may claim in a request counts less.
func peerOf(c net.Conn) Peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Peer{}
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cred == nil {
		return Peer{}
	}
	if known, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil && known.Username != "" {
		return Peer{Name: known.Username}
	}
	return Peer{Name: fmt.Sprintf("uid %d", cred.Uid)}
}
