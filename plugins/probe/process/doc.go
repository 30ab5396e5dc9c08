// Package process reads the kernel's table of processes: the main process of a unit, every PostgreSQL server on the
// machine, and the package managers at work on it.
//
// It owns the reading of /proc. [Table] answers questions about one process and about the machine, [Process] and
// [Machine] are the probers built on it. It promises to send no signal, to attach to nothing, and to return no argument
// list: arguments may hold secrets. What the kernel hides from this process (the executable, the working directory and
// the open files of another user's process need root with CAP_SYS_PTRACE, which root in a container often lacks) stays
// empty where the contract allows that, and is an error where an empty value would look like an answer.
//
// Only Linux has such a table: elsewhere everything here returns errors.ErrUnsupported.
package process
