package bus

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rouse/internal/testkit"
)

// wire is a way to a server that can go dead as a cut cable does: nobody is told, nothing arrives.
type wire struct {
	listener net.Listener
	mu       sync.Mutex
	address  string        // of the server, empty if there is none; guarded by mu
	dead     bool          // guarded by mu
	cut      chan struct{} // closed when what is connected goes dead; guarded by mu
	open     sync.WaitGroup
}

func newWire(t *testing.T, listener net.Listener, network, address string) *wire {
	t.Helper()
	w := &wire{listener: listener, address: address, cut: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	w.open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			w.open.Go(func() { w.carry(ctx, client, network) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); cancel(); w.open.Wait() })
	return w
}

// carry joins the two ends until one closes. Dead, it swallows what comes; without a server it closes.
func (w *wire) carry(ctx context.Context, client net.Conn, network string) {
	w.mu.Lock()
	address, cut, dead := w.address, w.cut, w.dead
	w.mu.Unlock()
	if address == "" {
		_ = client.Close()
		return
	}
	var d net.Dialer
	server, err := d.DialContext(ctx, network, address)
	if err != nil {
		_ = client.Close()
		return
	}
	defer context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })()
	if dead {
		_, _ = io.Copy(io.Discard, client)
	}
	var ends sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		ends.Go(func() { forward(way[0], way[1], cut) })
	}
	ends.Wait()
}

func forward(from, to net.Conn, cut <-chan struct{}) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-cut:
		default:
			if err == nil {
				_, err = to.Write(buffer[:n])
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// leads makes connections lead to that server from now on; to none if the address is empty.
func (w *wire) leads(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.address = address
}

// kill makes the connections that are open go dead, and those that will be made too, if new is true.
func (w *wire) kill(forever bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.cut)
	w.cut, w.dead = make(chan struct{}), forever
}

// wired opens a bus of each kind through a wire of its own, and another straight to the server.
var wired = map[string]func(t *testing.T) (through, straight node, w *wire){
	"postgres": func(t *testing.T) (node, node, *wire) {
		c := testkit.NewCluster(t)
		straight := newPostgres(t, c.DSN())
		folder, err := os.MkdirTemp("", "wire")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
		const name = ".s.PGSQL.5432"
		l, err := net.Listen("unix", filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		w := newWire(t, l, "unix", filepath.Join(straight.config.Host, name))
		b := newPostgres(t, c.DSN())
		b.config.Host = folder
		b.beat, b.silence = 50*time.Millisecond, 500*time.Millisecond
		return b, straight, w
	},
	"nats": func(t *testing.T) (node, node, *wire) {
		address := newNATSServer(t).Addr().String()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w := newWire(t, l, "tcp", address)
		b := newNATS(t, "nats://"+l.Addr().String())
		b.beat, b.silence = 50*time.Millisecond, 500*time.Millisecond
		return b, newNATS(t, "nats://"+address), w
	},
}

func TestADeadConnectionIsNoticedAndReplaced(t *testing.T) {
	t.Parallel()
	for kind, open := range wired {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			through, straight, w := open(t)
			a, b := listen(t, through, nil), listen(t, straight, nil)
			before := a.said()
			w.kill(false)
			a.until("told of the gap", func() bool { return a.lost > before })
			b.reaches(a, hint(1))
			a.Hint(hint(2))
			b.hears(hint(2))
		})
	}
}

func TestANodeEndsThoughNothingAnswers(t *testing.T) {
	t.Parallel()
	for kind, open := range wired {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			through, _, w := open(t)
			a := listen(t, through, nil)
			w.kill(true)
			a.Hint(hint(1))
			a.stop(t)
		})
	}
}

// TestWhatNATSDropsIsTold: the subscription holds one message, and a hundred come before anybody asks.
func TestWhatNATSDropsIsTold(t *testing.T) {
	t.Parallel()
	url := "nats://" + newNATSServer(t).Addr().String()
	b, other := newNATS(t, url), newNATS(t, url)
	conn, closed, err := b.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Close(); <-closed }()
	sub, err := conn.SubscribeSync(subject + "*")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(1, publishLimit); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	speaker, gone, err := other.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { speaker.Close(); <-gone }()
	for n := range 100 {
		// All of one number: what tells of the loss is NATS, not the count.
		if err := speaker.Publish(subject+other.node, []byte(payload(other.node, 1, false, hint(n)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := speaker.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	q := newQueue()
	b.near.listeners = map[*queue]struct{}{q: {}}
	ctx, cancel := context.WithCancel(t.Context())
	var hearing sync.WaitGroup
	hearing.Go(func() { _ = b.receive(ctx, sub) })
	lost := false
	for !lost {
		select {
		case <-q.signal:
			_, lost = q.take()
		case <-time.After(patience):
			t.Fatal("99 messages were dropped, and nobody was told")
		}
	}
	cancel()
	hearing.Wait()
}
