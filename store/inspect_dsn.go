package store

import (
	"errors"
	"io/fs"
)

// CheckDSN returns why Open cannot read a DSN, nil if it can. It opens nothing, and its error repeats nothing of the DSN, which may
// hold a password, but the name of a file that is not there.
func CheckDSN(dsn string) error {
	_, err := parseDSN(dsn)
	return err
}

// unreadableDSN is why PostgreSQL's driver cannot read a DSN, without the driver's words, which quote it.
func unreadableDSN(err error) error {
	var file *fs.PathError
	if errors.As(err, &file) {
		return file
	}
	return errors.New("it is not of the form sqlite:PATH or postgres://user:password@host:5432/name?sslmode=verify-full; " +
		"what a URL means by itself, such as @ : / ? # %, is written %40 and so on in user and password")
}
