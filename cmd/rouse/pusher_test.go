package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rouse/bus"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

// shelf is a store of one credential, and of one device.
type shelf struct {
	mu     sync.Mutex
	have   *tokens.Credential
	read   int
	device tokens.Device
}

func (s *shelf) Device(_ context.Context, app ident.App, id ident.Device) (tokens.Device, error) {
	if s.device.App != app || s.device.ID != id {
		return tokens.Device{}, fault.New(fault.NotFound, "device_not_found", "none")
	}
	return s.device, nil
}

func (s *shelf) put(c *tokens.Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = c
}

func (s *shelf) Credential(context.Context, ident.App, tokens.Provider) (tokens.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read++
	if s.have == nil {
		return tokens.Credential{}, fault.New(fault.NotFound, "no_credential", "none")
	}
	return *s.have, nil
}

// phoneLine is a client that says which credential it was made from, and holds
// a push until it is let go.
type phoneLine struct {
	fingerprint string
	hold        chan struct{}
	mu          sync.Mutex
	inFlight    int
	closed      bool
	misused     bool
	last        providers.Push
}

func (l *phoneLine) Push(ctx context.Context, push providers.Push) providers.Outcome {
	l.mu.Lock()
	l.last = push
	l.misused = l.misused || l.closed
	l.inFlight++
	l.mu.Unlock()
	if l.hold != nil {
		select {
		case <-l.hold:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	l.inFlight--
	l.mu.Unlock()
	return providers.Outcome{Verdict: providers.Accepted, Reason: l.fingerprint}
}

func (l *phoneLine) Verify(context.Context) []providers.Finding {
	return []providers.Finding{{Check: "phone_line", Status: providers.FindingOK, Cause: "It rings."}}
}

func (l *phoneLine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.misused = l.misused || l.closed || l.inFlight > 0
	l.closed = true
	return nil
}

type bench struct {
	shelf  *shelf
	pusher *pusher
	mu     sync.Mutex
	lines  []*phoneLine
}

func newBench(hold chan struct{}) *bench {
	b := &bench{shelf: &shelf{}}
	b.pusher = newPusher(b.shelf, func(c tokens.Credential, _ tokens.Environment) (providers.Provider, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		l := &phoneLine{fingerprint: c.Fingerprint, hold: hold}
		b.lines = append(b.lines, l)
		return l, nil
	}, slog.New(slog.DiscardHandler))
	return b
}

func (b *bench) push() providers.Outcome {
	return b.pusher.Push(context.Background(), outlet, providers.Push{})
}

var outlet = worker.Outlet{App: "app_a", Provider: tokens.FCM}

func TestPusherWithoutACredentialSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(nil)
	if out := b.push(); out.Verdict != providers.CredentialBad || out.Reason != "no_credentials" {
		t.Errorf("got %+v", out)
	}
}

// TestWakeByHand makes one attempt with what the store has, and says so where there is nothing to try with.
func TestWakeByHand(t *testing.T) {
	t.Parallel()
	b := newBench(nil)
	phone := tokens.Device{ID: "dev_a", App: "app_a", Provider: tokens.FCM, Platform: tokens.IOS, TokenState: tokens.TokenDead, Locale: "de"}
	wake := func() (providers.Outcome, bool) {
		t.Helper()
		b.shelf.device = phone
		out, took, sent, err := b.pusher.Wake(t.Context(), tokens.Device{App: "app_a", ID: "dev_a"})
		if err != nil || took < 0 {
			t.Errorf("after %s: %v", took, err)
		}
		return out, sent
	}
	if out, sent := wake(); sent || out.Verdict != "" {
		t.Errorf("without a token: %+v", out)
	}
	phone.Token = "token"
	if out, sent := wake(); sent || out.Verdict != providers.CredentialBad || out.Reason != "no_credentials" {
		t.Errorf("without a credential: %+v", out)
	}
	b.shelf.put(&tokens.Credential{Fingerprint: "one"})
	before := time.Now()
	out, sent := wake()
	if !sent || out.Verdict != providers.Accepted || out.Reason != "one" || len(b.lines) != 1 {
		t.Errorf("sent %v: %+v", sent, out)
	}
	push := b.lines[0].last
	if push.Token != "token" || push.Kind != providers.Alert || push.Device != "dev_a" || push.ID == "" || push.Head != "" || push.Notification != nil ||
		push.Locale != "de" || push.Platform != "ios" || !push.ExpiresAt.After(before) {
		t.Errorf("pushed %+v", push)
	}
	if _, _, sent, err := b.pusher.Wake(t.Context(), tokens.Device{App: "app_b", ID: "dev_a"}); sent || fault.KindOf(err) != fault.NotFound {
		t.Errorf("another app's device: sent %v, %v", sent, err)
	}
	b.pusher.Close()
}

func TestPusherKeepsOneClientAndReadsTheCredentialRarely(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.shelf.put(&tokens.Credential{Fingerprint: "one"})
		for range 10 {
			b.push()
		}
		if len(b.lines) != 1 || b.shelf.read != 1 {
			t.Errorf("%d clients, %d reads; want 1 and 1", len(b.lines), b.shelf.read)
		}
		<-time.After(recheck)
		b.push()
		if len(b.lines) != 1 || b.shelf.read != 2 {
			t.Errorf("after the recheck: %d clients, %d reads; want 1 and 2", len(b.lines), b.shelf.read)
		}
		b.shelf.put(&tokens.Credential{Fingerprint: "one", Public: []byte(`{"topic":"new"}`)})
		<-time.After(recheck)
		b.push()
		if len(b.lines) != 2 {
			t.Errorf("a new topic under the same key made no new client")
		}
		b.pusher.Close()
	})
}

func TestPusherReplacesAClientBeforeTheWorkerHears(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hold := make(chan struct{})
		b := newBench(hold)
		b.shelf.put(&tokens.Credential{Fingerprint: "old"})
		var memory bus.Memory
		heard := make(chan providers.Outcome, 1)
		done := make(chan error, 1)
		go func() {
			done <- b.pusher.before(&memory).Listen(ctx, func(hints []messages.Hint, _ bool) {
				if len(hints) > 0 {
					heard <- b.push()
				}
			})
		}()
		synctest.Wait()
		first := make(chan providers.Outcome, 1)
		go func() { first <- b.push() }()
		synctest.Wait() // the first push is in flight, the listener listens

		b.shelf.put(&tokens.Credential{Fingerprint: "new"})
		memory.Hint(messages.Hint{Kind: messages.HintCredential, App: "app_a", Provider: "fcm"})
		synctest.Wait()
		if b.lines[0].closed {
			t.Error("the old client was closed under a push")
		}
		close(hold)
		if out := <-heard; out.Reason != "new" {
			t.Errorf("the worker's next push went through the %s credential", out.Reason)
		}
		if out := <-first; out.Reason != "old" {
			t.Errorf("the push in flight ended as %+v", out)
		}
		synctest.Wait()
		if !b.lines[0].closed || b.lines[0].misused || b.lines[1].closed {
			t.Errorf("old: closed %v, misused %v; new: closed %v", b.lines[0].closed, b.lines[0].misused, b.lines[1].closed)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the listener ended with %v", err)
		}
		b.pusher.Close()
		if !b.lines[1].closed {
			t.Error("Close left a client open")
		}
	})
}
