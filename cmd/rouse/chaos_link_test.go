package main

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// link is the network between one node and PostgreSQL, a proxy in this process: it lets everything through until it is cut.
type link struct {
	listener net.Listener
	target   string // the server's Unix socket
	owned    sync.WaitGroup

	mu      sync.Mutex
	state   linkState
	changed chan struct{} // closed and replaced when the state changes
	ends    map[net.Conn]struct{}
}

type linkState int

const (
	linkOpen linkState = iota
	// linkRefusing breaks every connection, and each new one at once.
	linkRefusing
	// linkSilent takes connections and bytes and hands nothing on, not even an end, until the link is open again: then all of it.
	linkSilent
	linkClosed
)

// newLink opens a link that ends with the test.
func newLink(t *testing.T, target string) *link {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, target: target, changed: make(chan struct{}), ends: map[net.Conn]struct{}{}}
	l.owned.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.set(linkClosed)
		l.owned.Wait()
	})
	return l
}

// addr is where the node finds its database.
func (l *link) addr() string { return l.listener.Addr().String() }

// set changes the state. Whoever refuses or closes breaks what goes on.
func (l *link) set(s linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	close(l.changed)
	l.changed = make(chan struct{})
	if s == linkOpen || s == linkSilent {
		return
	}
	for end := range l.ends {
		if tcp, ok := end.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an end
		}
		_ = end.Close()
	}
}

// passable returns true once the link is open, false if it will carry nothing any more that came before.
func (l *link) passable() bool {
	for {
		l.mu.Lock()
		state, changed := l.state, l.changed
		l.mu.Unlock()
		if state != linkSilent {
			return state == linkOpen
		}
		<-changed
	}
}

// hold notes an end so that a cut can break it; false if the link refuses. The caller lets go of it.
func (l *link) hold(end net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[end] = struct{}{}
	return l.state == linkOpen || l.state == linkSilent
}

func (l *link) letGo(end net.Conn) {
	_ = end.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ends, end)
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.owned.Go(func() { l.carry(near) })
	}
}

// carry joins one connection of the node to the server.
func (l *link) carry(near net.Conn) {
	defer l.letGo(near)
	if !l.hold(near) {
		_ = near.(*net.TCPConn).SetLinger(0)
		return
	}
	if !l.passable() {
		return
	}
	var d net.Dialer
	far, err := d.DialContext(context.Background(), "unix", l.target)
	if err != nil {
		return // PostgreSQL is not there
	}
	defer l.letGo(far)
	if !l.hold(far) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(far, near) })
	both.Go(func() { l.pump(near, far) })
	both.Wait()
}

// pump hands bytes on, and at last the end.
func (l *link) pump(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !l.passable() {
			break
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = to.Close()
}

// TestALinkIsCut cuts a link in both ways.
func TestALinkIsCut(t *testing.T) {
	t.Parallel()
	socket := t.TempDir() + "/echo"
	var lc net.ListenConfig
	server, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				var b [1]byte
				for {
					if _, err := c.Read(b[:]); err != nil {
						return
					}
					_, _ = c.Write(b[:])
				}
			}()
		}
	}()
	l := newLink(t, socket)
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", l.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	echoes := func(within time.Duration) bool {
		_, werr := c.Write([]byte("x"))
		_ = c.SetReadDeadline(time.Now().Add(within))
		_, rerr := c.Read(make([]byte, 1))
		return werr == nil && rerr == nil
	}
	if !echoes(patient) {
		t.Error("an open link carries nothing")
	}
	l.set(linkSilent)
	if echoes(50 * time.Millisecond) {
		t.Error("a silent link speaks")
	}
	l.set(linkOpen)
	if !echoes(patient) {
		t.Error("what was said to a silent link is lost")
	}
	l.set(linkRefusing)
	if echoes(patient) {
		t.Error("a connection outlived its cut")
	}
}
