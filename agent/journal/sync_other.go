//go:build !linux

package journal

import "os"

// datasync makes the file durable. macOS has no fdatasync that reaches the medium; File.Sync does (F_FULLFSYNC).
func datasync(f *os.File) error { return f.Sync() }
