//go:build unix

package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// claim makes this process the only one that runs on the database, until the returned file is closed or the
// process is gone, however it goes. Two would each push, and neither would hear the other's hints.
func claim(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claim the database: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("another rouse uses %s, a node or a copy: one at a time on SQLite", path), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("claim the database: %w", err), f.Close())
	}
	return f, nil
}
