package store

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// sent is a statement as a server got it.
type sent struct {
	doing   string // what the store was asked for meanwhile
	query   string
	args    [][]byte
	formats []int16
}

// recorder stands between a store and its server and writes down what is sent: whatever way a statement takes through this
// package and its driver, it comes by here.
type recorder struct {
	dsn    string // of the server, by way of the recorder
	server *pgconn.Config
	listen net.Listener
	conns  sync.WaitGroup

	mu    sync.Mutex
	open  []net.Conn // guarded by mu, as all below
	doing string
	list  []sent
}

// record returns a recorder in front of a database. It ends with the test.
func record(t testing.TB, dsn string) *recorder {
	t.Helper()
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "rouse-rec-") // the test's own has too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{server: config}
	if r.listen, err = new(net.ListenConfig).Listen(context.Background(), "unix", filepath.Join(folder, ".s.PGSQL.5432")); err != nil {
		t.Fatal(err)
	}
	r.dsn = (&url.URL{Scheme: "postgres", User: url.UserPassword(config.User, config.Password), Path: "/" + config.Database,
		RawQuery: url.Values{"host": {folder}, "sslmode": {"disable"}}.Encode()}).String()
	r.conns.Go(r.accept)
	t.Cleanup(func() {
		r.end()
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *recorder) end() {
	_ = r.listen.Close()
	r.mu.Lock()
	for _, c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.conns.Wait()
}

func (r *recorder) accept() {
	for {
		client, err := r.listen.Accept()
		if err != nil {
			return
		}
		network, address := pgconn.NetworkAddress(r.server.Host, r.server.Port)
		server, err := new(net.Dialer).DialContext(context.Background(), network, address)
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		r.open = append(r.open, client, server)
		r.mu.Unlock()
		r.conns.Go(func() { _, _ = io.Copy(client, server); _ = client.Close() })
		r.conns.Go(func() {
			heard := &passing{from: client, to: server}
			r.hear(heard)
			_, err := io.Copy(io.Discard, heard)
			_ = errors.Join(err, server.Close())
		})
	}
}

// passing hands on what is read from it, each time before it reads more: what was heard is noted before anybody answers it.
type passing struct {
	from io.Reader
	to   io.Writer
	held []byte
}

func (p *passing) Read(b []byte) (int, error) {
	if _, err := p.to.Write(p.held); err != nil {
		return 0, err
	}
	n, err := p.from.Read(b)
	p.held = append(p.held[:0], b[:n]...)
	return n, err
}

// hear reads what a client says until it says no more.
func (r *recorder) hear(client io.Reader) {
	b := pgproto3.NewBackend(client, io.Discard)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	parsed := map[string]string{} // by the statement's name
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pgproto3.Query:
			r.note(sent{query: m.String})
		case *pgproto3.Parse:
			parsed[m.Name] = m.Query
		case *pgproto3.Bind:
			s := sent{query: parsed[m.PreparedStatement], formats: slices.Clone(m.ParameterFormatCodes)}
			for _, p := range m.Parameters {
				s.args = append(s.args, slices.Clone(p))
			}
			r.note(s)
		}
	}
}

func (r *recorder) note(s sent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.doing = r.doing
	r.list = append(r.list, s)
}

// during has do, and notes with what it sends what it is for.
func (r *recorder) during(doing string, do func()) {
	r.set(doing)
	do()
	r.set("")
}

func (r *recorder) set(doing string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doing = doing
}

// all returns what was sent with a purpose. What the store sends by itself meanwhile - probes, the lane - may be among it.
func (r *recorder) all() []sent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.list), func(s sent) bool { return s.doing == "" })
}

// forget drops what was heard.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = nil
}
