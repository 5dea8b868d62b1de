package bus

import (
	"context"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"
)

// dialer makes connections of which nothing is left after end. pgx lets go of a connection that hangs in a goroutine of
// its own, and gives that 15 s.
type dialer struct {
	config *pgx.ConnConfig
	kill   context.CancelFunc
	ending sync.WaitGroup
}

func newDialer(ctx context.Context, config *pgx.ConnConfig) *dialer {
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	d := &dialer{config: config.Copy(), kill: kill}
	d.config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, life, network, address)
	}
	return d
}

// dial opens a socket that is closed when life ends, if it is not before.
func dial(ctx, life context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	var n net.Dialer
	conn, err := n.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &socket{Conn: conn, forget: context.AfterFunc(life, func() { _ = conn.Close() })}, nil
}

type socket struct {
	net.Conn
	forget func() bool
}

func (s *socket) Close() error {
	s.forget()
	return s.Conn.Close()
}

// with connects, lets use have the connection, and closes it.
func (d *dialer) with(ctx context.Context, use func(*pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, d.config)
	if err != nil {
		return err
	}
	defer func() {
		farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellLimit)
		defer cancel()
		_ = conn.Close(farewell)
		d.ending.Go(func() { <-conn.PgConn().CleanupDone() })
	}()
	return use(conn)
}

// end closes what is still open and waits until all of it is gone.
func (d *dialer) end() {
	d.kill()
	d.ending.Wait()
}
