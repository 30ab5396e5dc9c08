// Package postgres looks at one PostgreSQL server: at its files and processes ([Files]), and through a new SQL session
// ([Session]).
//
// It owns the layout of postmaster.pid, of pg_control (PostgreSQL 12 to 18) and of write-ahead log positions. It
// promises to change nothing: below the data directory it opens files read-only, without following links, and never
// waits for a pipe that somebody put in a file's place; in a session it runs one SELECT. It deliberately does not
// signal, start or stop a server (FAULTS.md S8), does not pool sessions (a pooled one says nothing of new ones, FAULTS.md
// L18), and does not judge what it sees.
package postgres
