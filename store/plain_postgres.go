package store

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unconnected is why PostgreSQL cannot be reached, in one line. The driver tells of each of its tries, with TLS and without, to every
// address: the one that counts is the last that a server answered, or else the last.
type unconnected struct {
	text  string
	cause error
}

func (u unconnected) Error() string { return u.text }

func (u unconnected) Unwrap() error { return u.cause }

// plainly is err in one line, if it is one of connecting; any other is returned as it is. Neither holds a password.
func plainly(err error) error {
	var connecting *pgconn.ConnectError
	if !errors.As(err, &connecting) {
		return err
	}
	why := strings.Join(strings.Fields(telling(connecting.Unwrap()).Error()), " ")
	if strings.Contains(why, "server refused TLS connection") {
		why += "; the server speaks no TLS, and sslmode asks for it"
	}
	return unconnected{fmt.Sprintf("connect as %s to the database %s: %s", connecting.Config.User, connecting.Config.Database, why), err}
}

// telling is the one of several errors that says most.
func telling(err error) error {
	tries, several := err.(interface{ Unwrap() []error })
	if !several || len(tries.Unwrap()) == 0 {
		return err
	}
	all := tries.Unwrap()
	for i := len(all) - 1; i >= 0; i-- {
		if sqlState(all[i]) != "" {
			return all[i]
		}
	}
	return telling(all[len(all)-1])
}
