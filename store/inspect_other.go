//go:build !unix

package store

import "errors"

// User is only possible where the system tells of locks.
func User(string) (pid int, used bool, err error) {
	return 0, false, errors.New("this system does not tell who has a file open")
}
