package bus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// subject is followed by the name of the node that speaks; all listen to all.
	subject = "rouse.hints."
	// publishLimit is what a message may measure; NATS takes 1 MiB unless it is told otherwise.
	publishLimit = 64 << 10
	// pendingLimit is how many messages a node may be behind before NATS drops some.
	pendingLimit = 1024
)

// NATS is the bus over a NATS server or cluster. Hints go while Run runs.
type NATS struct {
	far
	url     string
	silence time.Duration // silenceLimit, but in tests
}

// NewNATS makes the bus over the server at url (nats://user:password@host:4222, tls://...; several, separated by
// commas, for a cluster). log may be nil.
func NewNATS(url string, log *slog.Logger) (*NATS, error) {
	if url == "" {
		return nil, errors.New("the bus needs the URL of a NATS server")
	}
	return &NATS{far: newFar(log), url: url, silence: silenceLimit}, nil
}

// Run carries hints between this node and the others until ctx is done. Whatever happens to the connection, it connects
// again. It returns nil, when all its goroutines are gone.
func (b *NATS) Run(ctx context.Context) error {
	b.keep(ctx, "nats", func(up func()) error { return b.session(ctx, up) })
	return nil
}

// Connected reports whether hints go to the other nodes and come from them.
func (b *NATS) Connected() bool { return b.connected(1) }

// session is the life of one connection. It is not repaired but replaced: so there is one place where a gap is told.
func (b *NATS) session(ctx context.Context, up func()) error {
	conn, closed, err := b.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { conn.Close(); <-closed }()
	sub, err := conn.SubscribeSync(subject + "*")
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(pendingLimit, pendingLimit*publishLimit); err != nil {
		return err
	}
	begin, cancel := context.WithTimeout(ctx, stallLimit)
	defer cancel()
	if err := conn.FlushWithContext(begin); err != nil {
		return err
	}
	up()
	// After the server has the subscription: whoever looks now sees what was published before it.
	b.listening()
	return b.talk(ctx, conn, sub)
}

// talk hears and tells until ctx is done or either fails; then it ends the other.
func (b *NATS) talk(ctx context.Context, conn *nats.Conn, sub *nats.Subscription) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var hearing sync.WaitGroup
	hearing.Go(func() { cancel(b.receive(ctx, sub)) })
	err := b.tell(ctx, publishLimit, func(ctx context.Context, payloads []string) error {
		for _, p := range payloads {
			if err := conn.Publish(subject+b.node, []byte(p)); err != nil {
				return err
			}
		}
		return conn.FlushWithContext(ctx)
	})
	cancel(err)
	hearing.Wait()
	return context.Cause(ctx)
}

// receive hands on what other nodes publish; the server does not send a node its own.
func (b *NATS) receive(ctx context.Context, sub *nats.Subscription) error {
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			b.near.lose()
			continue
		}
		if err != nil {
			return err
		}
		b.hear(string(m.Data))
	}
}

// connect makes one connection; closed is closed when it has ended.
func (b *NATS) connect(ctx context.Context) (conn *nats.Conn, closed chan struct{}, err error) {
	closed = make(chan struct{})
	conn, err = nats.Connect(b.url, nats.Name("rouse bus"), nats.NoReconnect(), nats.NoEcho(), nats.Timeout(stallLimit),
		nats.PingInterval(b.silence/3), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(stallLimit),
		nats.SetCustomDialer(dialing(func(network, address string) (net.Conn, error) {
			n := net.Dialer{Timeout: stallLimit}
			return n.DialContext(ctx, network, address)
		})), nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { b.log.Warn("NATS complains", "error", err) }))
	return conn, closed, err
}

// dialing is a nats.CustomDialer.
type dialing func(network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (d dialing) Dial(network, address string) (net.Conn, error) { return d(network, address) }
