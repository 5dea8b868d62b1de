// Command serve puts messages through a whole server, in a process of its own: senders post them one by one,
// phones on long polls fetch and ack them. It says how fast that went, what it cost the server, and how much
// memory the server ever held, and fails if any message that got its 202 did not arrive.
//
//	go run ./bench/serve -n 100000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"rouse/client"
)

func main() { os.Exit(measure()) }

// measure reads the flags, runs, and returns the exit code.
func measure() int {
	var c config
	flag.IntVar(&c.messages, "n", 100_000, "messages")
	flag.IntVar(&c.phones, "phones", 200, "phones on long polls")
	flag.IntVar(&c.senders, "senders", 32, "callers at a time")
	flag.IntVar(&c.size, "size", 256, "bytes of data in a message")
	flag.DurationVar(&c.limit, "limit", 5*time.Minute, "bound on the whole run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type config struct {
	messages, phones, senders, size int
	limit                           time.Duration
}

func run(ctx context.Context, c config) (err error) {
	dir, err := os.MkdirTemp("", "rouse-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "rouse")
	build := exec.CommandContext(ctx, "go", "build", "-tags", "disable_grpc_modules", "-o", binary, "./cmd/rouse")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the server: %w", err)
	}
	s, err := startServer(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	l, err := newLoad(ctx, s, c)
	if err != nil {
		return err
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	took, err := l.run(ctx)
	if err != nil {
		return err
	}
	after, err := s.usage()
	if err != nil {
		return err
	}
	l.report(took, before, after)
	return nil
}

// load is the senders, the phones and what they saw.
type load struct {
	c       config
	api     *client.ClientWithResponses
	phones  []*client.Receiver
	devices []string

	mu       sync.Mutex
	accepted map[string]time.Time // when the send of a message began; guarded by mu
	arrived  map[string]bool      // guarded by mu
	delays   []time.Duration      // from the beginning of the send to the phone's hands; guarded by mu
	left     atomic.Int64
}

func newLoad(ctx context.Context, s *server, c config) (*load, error) {
	admin, err := s.client(s.admin)
	if err != nil {
		return nil, err
	}
	made, err := admin.CreateAppWithResponse(ctx, client.AppCreate{Name: "bench"})
	if err != nil || made.JSON201 == nil {
		return nil, fmt.Errorf("create an app: %w", errors.Join(err, client.Check(made.HTTPResponse, made.Body)))
	}
	l := &load{c: c, accepted: map[string]time.Time{}, arrived: map[string]bool{}}
	l.left.Store(int64(c.messages))
	if l.api, err = s.client(made.JSON201.SecretKey); err != nil {
		return nil, err
	}
	for n := range c.phones {
		got, err := l.api.RegisterDeviceWithResponse(ctx, client.DeviceRegistration{
			InstallationId: fmt.Sprintf("phone-%d", n), Platform: "other", Provider: "none",
		})
		if err != nil || got.JSON201 == nil || got.JSON201.Secret == nil {
			return nil, fmt.Errorf("register a phone: %w", errors.Join(err, client.Check(got.HTTPResponse, got.Body)))
		}
		phone, err := s.client(*got.JSON201.Secret)
		if err != nil {
			return nil, err
		}
		l.devices = append(l.devices, got.JSON201.Id)
		l.phones = append(l.phones, &client.Receiver{Client: phone, Wait: 20 * time.Second})
	}
	return l, nil
}

// run sends everything and returns how long it took until the last message was in a phone's hands.
func (l *load) run(ctx context.Context) (time.Duration, error) {
	listening, hangUp := context.WithCancel(ctx)
	defer hangUp()
	done := make(chan struct{})
	var phones errgroup.Group
	for _, p := range l.phones {
		phones.Go(func() error {
			err := p.Run(listening, func(_ context.Context, page client.InboxPage) error {
				l.received(page, done)
				return nil
			})
			if listening.Err() == nil {
				return err
			}
			return nil // it was told to hang up
		})
	}
	began := time.Now()
	if err := l.send(ctx); err != nil {
		return 0, err
	}
	select {
	case <-done:
	case <-ctx.Done():
		return 0, fmt.Errorf("%d messages that got their 202 have not arrived: %w", l.left.Load(), ctx.Err())
	}
	took := time.Since(began)
	hangUp()
	return took, phones.Wait()
}

func (l *load) send(ctx context.Context) error {
	senders, inner := errgroup.WithContext(ctx)
	var next atomic.Int64
	data := fmt.Appendf(nil, "%q", slices.Repeat([]byte{'x'}, l.c.size-2))
	for range l.c.senders {
		senders.Go(func() error {
			for n := next.Add(1) - 1; n < int64(l.c.messages); n = next.Add(1) - 1 {
				to := l.devices[int(n)%len(l.devices)]
				began := time.Now()
				got, err := l.api.SendMessageWithResponse(inner, nil, client.MessageSend{To: client.Recipient{DeviceId: &to}, Data: data})
				if err != nil {
					return err
				}
				if got.JSON202 == nil {
					return client.Check(got.HTTPResponse, got.Body)
				}
				l.mu.Lock()
				l.accepted[got.JSON202.Id] = began
				l.mu.Unlock()
			}
			return nil
		})
	}
	return senders.Wait()
}

func (l *load) received(page client.InboxPage, done chan<- struct{}) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range page.Messages {
		if l.arrived[m.Id] {
			continue
		}
		l.arrived[m.Id] = true
		l.delays = append(l.delays, now.Sub(m.CreatedAt))
		if l.left.Add(-1) == 0 {
			close(done)
		}
	}
}

func (l *load) report(took time.Duration, before, after usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := 0
	for id := range l.accepted {
		if !l.arrived[id] {
			missing++
		}
	}
	slices.Sort(l.delays)
	at := func(share float64) time.Duration {
		return l.delays[min(len(l.delays)-1, int(share*float64(len(l.delays))))].Round(100 * time.Microsecond)
	}
	n := float64(l.c.messages)
	fmt.Printf("messages accepted, fetched and acked   %d in %s, %.0f/s; %d accepted and not arrived\n", l.c.messages, took.Round(time.Millisecond), n/took.Seconds(), missing)
	fmt.Printf("accepted to in the phone's hands       p50 %s, p99 %s, under full load\n", at(0.5), at(0.99))
	fmt.Printf("server CPU                             %.0f us a message\n", (after.cpu-before.cpu).Seconds()*1e6/n)
	fmt.Printf("server memory, peak                    %.1f MiB (%.1f MiB before the first message)\n", mib(after.peak), mib(before.peak))
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
