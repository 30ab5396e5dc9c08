package patroni

import "syscall"

// changeTime returns when the file's inode last changed, in nanoseconds.
func changeTime(s *syscall.Stat_t) int64 { return s.Ctim.Nano() }
