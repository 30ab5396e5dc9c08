// Package incus runs a machine with a real Incus in a container: what the container needs so that the daemon in it can run
// instances, and where their image comes from.
//
// It owns the options of that container and nothing else; the container's image is package image's, names are the callers'.
package incus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pgpatrol/pgpatrol/test/lab/docker"
)

// capabilities are all that there are but CAP_SYS_RESOURCE, which an engine inside a container itself may not give
// (`--privileged` fails there), and which the daemon and its instances do without.
var capabilities = []string{
	"AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
	"IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
	"SYS_CHROOT", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_TTY_CONFIG", "WAKE_ALARM",
}

// Socket is where the daemon is reached in the container.
const Socket = "/var/lib/incus/unix.socket"

// Ready is a command that succeeds in the container once the daemon has what it needs to run instances.
func Ready() []string { return []string{"test", "-e", "/run/incus-ready"} }

// Options are those of `docker run` for such a container. The daemon's storage is an anonymous volume, because an overlay
// file system cannot be stacked: remove the container with its volumes. apparmor says whether the engine's machine has it.
func Options(apparmor bool) []string {
	var out []string
	for _, c := range capabilities {
		out = append(out, "--cap-add", c)
	}
	out = append(out,
		"--cgroupns", "private", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
		"--device-cgroup-rule", "a *:* rwm", "--tmpfs", "/run", "--tmpfs", "/tmp:exec", "--volume", "/var/lib/incus",
	)
	if apparmor {
		out = append(out, "--security-opt", "apparmor=unconfined")
	}
	return out
}

// importer is what makes an image of the root file system in a folder. Its arguments are the folder and the alias.
const importer = `set -e
cd "$1"
printf 'architecture: %s\ncreation_date: 1\n' "$(uname -m)" > metadata.yaml
tar cf metadata.tar metadata.yaml
incus image import metadata.tar rootfs.tar --alias "$2"
cd / && rm -rf "$1"`

// Import gives the Incus in container host the root file system of a Docker image, under an alias.
func Import(ctx context.Context, d docker.Client, host, tag, alias string) error {
	dir, err := os.MkdirTemp("", "pgpatrol-lab-incus-")
	if err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	stopped := host + "-rootfs"
	if _, err := d.Output(ctx, "create", "--name", stopped, tag); err != nil {
		return err
	}
	defer func() { _, _ = d.Output(context.WithoutCancel(ctx), "rm", "-f", "-v", stopped) }()
	file := filepath.Join(dir, "rootfs.tar")
	if _, err := d.Output(ctx, "export", "-o", file, stopped); err != nil {
		return err
	}
	const at = "/var/lib/incus/import"
	for _, args := range [][]string{
		{"exec", host, "mkdir", "-p", at},
		{"cp", file, host + ":" + at + "/rootfs.tar"},
		{"exec", host, "sh", "-c", importer, "sh", at, alias},
	} {
		if _, err := d.Output(ctx, args...); err != nil {
			return fmt.Errorf("import an image into Incus: %w", err)
		}
	}
	return nil
}
