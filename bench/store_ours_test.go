package bench_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

// house is a store with an app, its devices, and its writer running.
type house struct {
	store   *store.Store
	ring    *tokens.Ring
	app     ident.App
	devices []ident.Device
	close   func() error
}

func newHouse(ctx context.Context, path string, devices int) (*house, error) {
	return newHouseOn(ctx, "sqlite:"+path, devices)
}

// openHouse opens the store and runs its writers.
func openHouse(ctx context.Context, dsn string, ring *tokens.Ring) (*house, error) {
	s, err := store.Open(ctx, store.Options{DSN: dsn, Ring: ring, InboxMessages: 1 << 20, InboxBytes: 1 << 40})
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(running) }()
	return &house{store: s, ring: ring, app: ident.NewApp(), close: func() error {
		stop()
		return errors.Join(<-ended, s.Close())
	}}, nil
}

// neighbour is another node on the same database, with the same devices.
func (h *house) neighbour(ctx context.Context, dsn string) (*house, error) {
	n, err := openHouse(ctx, dsn, h.ring)
	if err == nil {
		n.app, n.devices = h.app, h.devices
	}
	return n, err
}

func newHouseOn(ctx context.Context, dsn string, devices int) (*house, error) {
	ring, err := tokens.ParseRing(tokens.NewRingKey("bench"))
	if err != nil {
		return nil, err
	}
	h, err := openHouse(ctx, dsn, ring)
	if err != nil {
		return nil, err
	}
	s := h.store
	if err := s.CreateApp(ctx, tokens.App{ID: h.app, Name: "bench", CreatedAt: time.Now()}, nil); err != nil {
		return nil, errors.Join(err, h.close())
	}
	h.devices = make([]ident.Device, devices)
	err = share(devices, 64, func(i int) error {
		h.devices[i] = ident.NewDevice()
		_, _, err := s.Register(ctx, tokens.Enrol{Registration: tokens.Registration{App: h.app, Installation: fmt.Sprint(i),
			Platform: tokens.Android, Provider: tokens.FCM, Token: tokens.Token(fmt.Sprintf("bench-token-%08d", i))},
			As: tokens.PublishableKey, ID: h.devices[i], Secret: sha256.Sum256([]byte(fmt.Sprint(i))), Now: time.Now()})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// share has callers goroutines do work for 0..n-1.
func share(n, callers int, work func(i int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, callers)
	for caller := range callers {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || errs[caller] != nil {
					return
				}
				errs[caller] = work(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// dataOf is JSON of about size bytes.
func dataOf(size int) []byte {
	return []byte(`{"data":"` + strings.Repeat("x", max(0, size-len(`{"data":""}`))) + `"}`)
}

func (h *house) send(to ident.Device, data []byte) messages.Send {
	return messages.Send{ID: ident.NewMessage(), App: h.app, To: messages.Target{Device: to}, Data: data,
		TTL: messages.DefaultTTL, Urgency: messages.High, CreatedAt: time.Now()}
}

func newAccept(ctx context.Context, path, name string, callers, devices int) (contender, error) {
	h, err := newHouse(ctx, path, devices)
	if err != nil {
		return contender{}, err
	}
	data := dataOf(dataSize)
	return contender{name: name, close: h.close, round: func(ctx context.Context, n int) (time.Duration, error) {
		started := time.Now()
		err := share(n, callers, func(int) error {
			_, err := h.store.Accept(ctx, h.send(h.devices[rand.IntN(len(h.devices))], data))
			return err
		})
		return time.Since(started), err
	}}, nil
}

// newCycle is the whole life of messages: 64 callers accept them, and the phones they go to are woken, fetch what they have
// and ack it, again and again. A round ends when the last message is acked.
func newCycle(ctx context.Context, path, name string, devices int, push time.Duration) (contender, error) {
	return newCycleOn(ctx, "sqlite:"+path, name, devices, push)
}

func newCycleOn(ctx context.Context, dsn, name string, devices int, push time.Duration) (contender, error) {
	h, err := newHouseOn(ctx, dsn, devices)
	if err != nil {
		return contender{}, err
	}
	data := dataOf(dataSize)
	return contender{name: name, close: h.close, round: func(ctx context.Context, n int) (time.Duration, error) {
		started := time.Now()
		phones := newPhones(h, n, push)
		var all sync.WaitGroup
		for i := range phones.ring {
			all.Go(func() { phones.live(ctx, i) })
		}
		err := share(n, 64, func(int) error {
			i := rand.IntN(len(h.devices))
			_, err := h.store.Accept(ctx, h.send(h.devices[i], data))
			phones.hint(i)
			return err
		})
		if err != nil {
			phones.fail(err)
		}
		all.Wait()
		took := time.Since(started)
		left, err := h.store.Pending(ctx)
		if left != 0 {
			err = errors.Join(err, fmt.Errorf("%d messages were left un-acked", left))
		}
		return took, errors.Join(err, phones.err)
	}}, nil
}

// phones are the devices of a round. A hint says that one may have something new.
type phones struct {
	house *house
	push  time.Duration   // how long a provider takes to carry a push
	ring  []chan struct{} // one a phone, holding a hint
	left  atomic.Int64    // messages not acked yet
	over  chan struct{}   // closed when none is left, or something failed
	once  sync.Once
	err   error // set before over is closed
}

func newPhones(h *house, n int, push time.Duration) *phones {
	p := &phones{house: h, push: push, over: make(chan struct{})}
	p.left.Store(int64(n))
	for range h.devices {
		p.ring = append(p.ring, make(chan struct{}, 1))
	}
	return p
}

func (p *phones) hint(i int) {
	select {
	case p.ring[i] <- struct{}{}:
	default:
	}
}

func (p *phones) fail(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.over)
	})
}

// live is one phone's round.
func (p *phones) live(ctx context.Context, i int) {
	for {
		select {
		case <-p.over:
			return
		case <-p.ring[i]:
		}
		acked, err := p.serve(ctx, p.house, p.house.devices[i])
		if err != nil || p.left.Add(-int64(acked)) == 0 {
			p.fail(err)
		}
	}
}

// serve wakes a phone, which fetches what it has and acks it.
func (p *phones) serve(ctx context.Context, h *house, d ident.Device) (acked int, err error) {
	waiting, _, err := h.store.Waiting(ctx, d, time.Now())
	if err != nil {
		return 0, err
	}
	if waiting.Head.Max() > max(waiting.Seen, waiting.Woken.Max()) {
		<-time.After(p.push)
		h.store.RecordWake(messages.Wake{App: h.app, Device: d, At: time.Now(), Head: waiting.Head, Accepted: true,
			Provider: string(tokens.FCM), Verdict: "accepted", Took: p.push})
	}
	page, err := h.store.Inbox(ctx, messages.Query{Device: d, Limit: 100, Now: time.Now()})
	if err != nil || len(page.Items) == 0 {
		return 0, err
	}
	return h.store.AckUpTo(ctx, d, page.Last, time.Now())
}
