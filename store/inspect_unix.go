//go:build unix

package store

import (
	"fmt"
	"os"
	"syscall"
)

// Where SQLite locks a database that is open: whoever has one open in WAL mode keeps a read lock there.
const (
	sharedFirst = 0x40000000 + 2
	sharedBytes = 510
)

// User tells whether another process has the database open, and which: 0 if it is one that cannot be seen from here, as in
// another container. It takes no lock and makes no file. This process must not have the database open: it would lose its locks.
func User(dsn string) (pid int, used bool, err error) {
	d, err := parseSQLite(dsn)
	if err != nil {
		return 0, false, err
	}
	if info, err := os.Stat(d.path); err == nil && !info.Mode().IsRegular() {
		return 0, false, fmt.Errorf("ask who has the database open: %s is not a file", d.path)
	}
	f, err := os.Open(d.path)
	if err != nil {
		return 0, false, fmt.Errorf("ask who has the database open: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Start: sharedFirst, Len: sharedBytes}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil {
		return 0, false, fmt.Errorf("ask who has the database open: %w", err)
	}
	if lock.Type == syscall.F_UNLCK {
		return 0, false, nil
	}
	return int(lock.Pid), true, nil
}
