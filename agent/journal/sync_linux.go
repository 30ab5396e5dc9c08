package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes the file's content and length durable, and nothing that reading it back does not need.
func datasync(f *os.File) error {
	_, err := retry(func() (int, error) { return 0, unix.Fdatasync(int(f.Fd())) })
	if err != nil {
		return os.NewSyscallError("fdatasync", err)
	}
	return nil
}
