package park_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"rouse/api/park"
	"rouse/ident"
	"rouse/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inbox is a hand-written inbox of one device: what Look finds, and what was said.
type inbox struct {
	mu      sync.Mutex
	waiting []string
	said    []string
	looks   int
	// onLook runs in every look, before it reads.
	onLook func()
}

func (b *inbox) put(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, s)
}

func (b *inbox) say(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, s)
}

func (b *inbox) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

func (b *inbox) poll(device ident.Device, wait time.Duration) park.Poll {
	return park.Poll{
		Device: device,
		Wait:   wait,
		Look: func(_ context.Context, parked bool) (park.Reply, bool) {
			b.mu.Lock()
			b.looks++
			found := len(b.waiting) > 0
			var reply park.Reply
			if found {
				reply = park.Reply{Status: 200, Header: http.Header{"X-Parked": {fmt.Sprint(parked)}}, Body: []byte(b.waiting[0])}
				b.waiting = b.waiting[1:]
			}
			hook := b.onLook
			b.mu.Unlock()
			if hook != nil {
				hook()
			}
			return reply, found
		},
		Parked: func(int64, time.Time) { b.say("parked") },
		Idle:   func(int64) { b.say("idle") },
		Empty: func(end park.End) park.Reply {
			b.say(fmt.Sprintf("empty %d", end))
			return park.Reply{Status: 200, Body: []byte("[]")}
		},
	}
}

// start parks in a goroutine; the answer arrives on the channel once Park has returned.
func start(ctx context.Context, p park.Parker, poll park.Poll) <-chan *httptest.ResponseRecorder {
	done := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		w := httptest.NewRecorder()
		p.Park(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/inbox", nil), poll)
		done <- w
	}()
	return done
}

const phone = ident.Device("dev_1")

func TestPollFindsWhatIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, b := park.NewBlocking(park.Options{}), &inbox{}
		b.put("hello")
		w := <-start(t.Context(), p, b.poll(phone, time.Minute))
		if w.Body.String() != "hello" || w.Header().Get("X-Parked") != "false" {
			t.Errorf("got %q, parked %s", w.Body, w.Header().Get("X-Parked"))
		}
		if said := b.heard(); len(said) != 0 {
			t.Errorf("a poll that never waited said %v", said)
		}
		if p.Waiting() != 0 || p.Present(phone) {
			t.Error("it is still there")
		}
	})
}

func TestPollIsWoken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, b := park.NewBlocking(park.Options{}), &inbox{}
		began := time.Now()
		done := start(t.Context(), p, b.poll(phone, time.Minute))
		synctest.Wait()
		if !p.Present(phone) || p.Waiting() != 1 || p.Present("dev_2") {
			t.Fatal("the poll is not registered")
		}
		p.Wake(phone, "dev_2") // a hint whose message somebody else took: go on waiting
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("answered without a message")
		}
		b.put("hello")
		p.Wake(phone)
		w := <-done
		if w.Body.String() != "hello" || w.Header().Get("X-Parked") != "true" {
			t.Errorf("got %q", w.Body)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %s: a timer, not the hint, did it", took)
		}
		if said := b.heard(); !slices.Equal(said, []string{"parked"}) {
			t.Errorf("said %v", said)
		}
	})
}

// TestMessageBetweenReadAndWait puts a message and its hint at the worst moment: after the read, before
// the wait. A parker that registered after reading would sleep through it.
func TestMessageBetweenReadAndWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, b := park.NewBlocking(park.Options{}), &inbox{}
		var once sync.Once
		b.onLook = func() {
			once.Do(func() {
				b.put("hello")
				p.Wake(phone)
			})
		}
		began := time.Now()
		w := <-start(t.Context(), p, b.poll(phone, time.Minute))
		if w.Body.String() != "hello" || time.Since(began) != 0 {
			t.Errorf("got %q after %s", w.Body, time.Since(began))
		}
	})
}

func TestEachPollIsAskedAbout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := park.NewBlocking(park.Options{})
		want := []messages.Poll{{Device: "dev_0"}, {Device: "dev_1", After: 1, Proof: [32]byte{1}}, {Device: "dev_2", After: 2, Proof: [32]byte{2}}}
		boxes, done := []*inbox{{}, {}, {}}, []<-chan *httptest.ResponseRecorder{}
		for i, b := range boxes {
			poll := b.poll(want[i].Device, time.Minute)
			poll.After, poll.Proof = want[i].After, want[i].Proof
			done = append(done, start(t.Context(), p, poll))
		}
		synctest.Wait()
		got := p.Polls()
		slices.SortFunc(got, func(a, b messages.Poll) int { return strings.Compare(string(a.Device), string(b.Device)) })
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		for _, d := range done {
			<-d
		}
		if left := p.Polls(); len(left) != 0 {
			t.Errorf("%v are over", left)
		}
	})
}

// TestLaterPollElsewhereDisplaces: only a later one, and without a word of idleness: the device is waiting, elsewhere.
func TestLaterPollElsewhereDisplaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		displaced, number := 0, int64(99)
		p := park.NewBlocking(park.Options{Displaced: func() { displaced++ }, Number: func() int64 { number++; return number }})
		b := &inbox{}
		done := start(t.Context(), p, b.poll(phone, time.Minute))
		synctest.Wait()
		for n, own := range map[int64]bool{0: false, 99: false, 100: true} {
			if p.Displace(phone, n) != own {
				t.Errorf("own is not %t of %d", own, n)
			}
		}
		if p.Displace("dev_2", 100) || !p.Present(phone) {
			t.Error("no later poll came, and it is gone")
		}
		if p.Displace(phone, 101) || p.Present(phone) || p.Displace(phone, 102) {
			t.Error("a later poll came, and it is still there")
		}
		if w := <-done; w.Body.String() != "[]" || displaced != 1 {
			t.Errorf("got %q, displaced %d", w.Body, displaced)
		}
		if said := b.heard(); !slices.Equal(said, []string{"parked", "empty 2"}) {
			t.Errorf("said %v", said)
		}
	})
}

// TestAnnounce tells of those who wait, with their own number and end, and of nobody else.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, b := park.NewBlocking(park.Options{}), &inbox{}
		poll := b.poll(phone, time.Minute)
		end := time.Now().Add(time.Minute)
		poll.Parked = func(number int64, until time.Time) { b.say(fmt.Sprint(number, until.Equal(end))) }
		looking := make(chan struct{})
		b.onLook = func() { <-looking }
		done := start(t.Context(), p, poll)
		synctest.Wait()
		p.Announce(phone) // it has not begun to wait
		close(looking)
		synctest.Wait()
		p.Announce(phone, "dev_2")
		<-done
		p.Announce(phone)
		if said := b.heard(); !slices.Equal(said, []string{"1 true", "1 true", "idle", "empty 1"}) {
			t.Errorf("said %v", said)
		}
	})
}

// TestUnservedEndIsIdle: a poll that ends with an error was not served.
func TestUnservedEndIsIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, b := park.NewBlocking(park.Options{}), &inbox{}
		poll := b.poll(phone, time.Minute)
		poll.Look = func(_ context.Context, parked bool) (park.Reply, bool) {
			return park.Reply{Status: 401, Idle: true}, parked
		}
		done := start(t.Context(), p, poll)
		synctest.Wait()
		p.Wake(phone)
		if w := <-done; w.Code != 401 || !slices.Equal(b.heard(), []string{"parked", "idle"}) {
			t.Errorf("got %d, said %v", w.Code, b.heard())
		}
	})
}

func TestEnds(t *testing.T) {
	t.Parallel()
	const wait = 30 * time.Second
	for _, c := range []struct {
		name string
		act  func(p park.Parker, b *inbox, leave func(), drain func())
		said []string
		took time.Duration
		body string
	}{
		{"time is up", func(park.Parker, *inbox, func(), func()) {}, []string{"parked", "idle", "empty 1"}, wait, "[]"},
		{"client leaves", func(_ park.Parker, _ *inbox, leave, _ func()) { leave() }, []string{"parked", "idle"}, 0, ""},
		{"server stops", func(_ park.Parker, _ *inbox, _, drain func()) { drain() }, []string{"parked", "idle", "empty 3"}, 0, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				draining := make(chan struct{})
				p, b := park.NewBlocking(park.Options{Draining: draining}), &inbox{}
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				began := time.Now()
				done := start(ctx, p, b.poll(phone, wait))
				synctest.Wait()
				c.act(p, b, leave, func() { close(draining) })
				w := <-done
				if took := time.Since(began); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				if said := b.heard(); !slices.Equal(said, c.said) {
					t.Errorf("said %v, want %v", said, c.said)
				}
				if w.Body.String() != c.body || p.Waiting() != 0 {
					t.Errorf("body %q, %d still waiting", w.Body, p.Waiting())
				}
			})
		})
	}
}

// TestNewerDisplacesOlder also pins the order of what is said: idle of the older poll must not come after
// parked of the newer one, or the device would count as gone while it waits.
func TestNewerDisplacesOlder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		displaced := 0
		p, b := park.NewBlocking(park.Options{Displaced: func() { displaced++ }}), &inbox{}
		older := start(t.Context(), p, b.poll(phone, time.Minute))
		synctest.Wait()
		newer := start(t.Context(), p, b.poll(phone, time.Minute))
		if w := <-older; w.Body.String() != "[]" {
			t.Errorf("the older got %q", w.Body)
		}
		synctest.Wait()
		said := slices.DeleteFunc(b.heard(), func(s string) bool { return s == "empty 2" })
		if !slices.Equal(said, []string{"parked", "idle", "parked"}) || displaced != 1 {
			t.Errorf("said %v, displaced %d", said, displaced)
		}
		if !p.Present(phone) || p.Waiting() != 1 {
			t.Error("the older took the newer's place with it")
		}
		b.put("hello")
		p.Wake(phone)
		if w := <-newer; w.Body.String() != "hello" {
			t.Errorf("the newer got %q", w.Body)
		}
	})
}

// TestManyPollsOfOneDevice lets polls displace, leave and be served in any order, with -race.
func TestManyPollsOfOneDevice(t *testing.T) {
	t.Parallel()
	p := park.NewBlocking(park.Options{})
	b := &inbox{}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
			defer cancel()
			b.put("x")
			p.Wake(phone)
			<-start(ctx, p, b.poll(phone, time.Duration(i%5)*time.Millisecond))
		})
	}
	wg.Wait()
	if p.Waiting() != 0 || p.Present(phone) {
		t.Error("somebody is still there")
	}
	parked, idle := 0, 0
	for _, s := range b.heard() {
		switch s {
		case "parked":
			parked++
		case "idle":
			idle++
		}
	}
	if idle > parked {
		t.Errorf("idle %d times, parked only %d", idle, parked)
	}
}
