package sim

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
)

// PushLimit is how many pushes a phone keeps; the oldest go first.
const PushLimit = 4096

// Delivered is one push as the phone got it.
type Delivered struct {
	// N counts the pushes of this token from 1.
	N int `json:"n"`
	// Provider is APNs or FCM.
	Provider string `json:"provider"`
	Token    string `json:"token"`
	// Kind is the APNs push type (alert, background, ...), or high or normal at FCM.
	Kind string `json:"kind"`
	// Body is the exact request body; one that is not JSON comes as a JSON string.
	Body json.RawMessage `json:"body"`
	// Headers are those of the request without authorization, names in lower case. Read only.
	Headers map[string]string `json:"headers"`
	At      time.Time         `json:"at"`
	// Demoted says that it was sent with high priority and treated as normal.
	Demoted bool `json:"demoted,omitempty"`
}

// NewAPNsToken registers a live token of an app in one environment: 64 hex digits.
func (s *Sim) NewAPNsToken(topic string, sandbox bool) string {
	token := hex.EncodeToString(randomBytes(32))
	s.phones.add(&phone{provider: APNs, token: token, owner: topic, sandbox: sandbox})
	return token
}

// NewFCMToken registers a live token of a project.
func (s *Sim) NewFCMToken(project string) string {
	token := base64.RawURLEncoding.EncodeToString(randomBytes(16)) + ":APA91b" + base64.RawURLEncoding.EncodeToString(randomBytes(100))
	s.phones.add(&phone{provider: FCM, token: token, owner: project})
	return token
}

// KillToken makes a registered token dead from now on: APNs answers 410
// Unregistered with the timestamp at (now if zero), FCM 404 UNREGISTERED. It does
// nothing to an unknown token.
func (s *Sim) KillToken(token string, at time.Time) { s.phones.kill(token, at) }

// Pushes returns what the phone got, oldest first, at most PushLimit.
func (s *Sim) Pushes(token string) []Delivered {
	got, _ := s.phones.after(token, 0)
	return got
}

// NextPush returns the oldest push with a number over after, waiting for it if
// need be. It fails when ctx ends, the Sim stops or the token was never registered.
func (s *Sim) NextPush(ctx context.Context, token string, after int) (Delivered, error) {
	for {
		got, changed := s.phones.after(token, after)
		switch {
		case changed == nil:
			return Delivered{}, fmt.Errorf("no such device token: %s", shorten(token))
		case len(got) > 0:
			return got[0], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Delivered{}, ctx.Err()
		case <-s.done:
			return Delivered{}, ErrClosed
		}
	}
}

// phone is one registered device token and what reached it.
type phone struct {
	provider, token string
	owner           string // APNs topic or FCM project
	sandbox         bool
	dead            bool
	diedAt          time.Time
	n               int
	pushes          []Delivered
	changed         chan struct{} // closed and replaced with each push
	condition       condition     // of the delivery model
	shelf           shelf         // what waits for the phone; nil until something does
}

// phoneBook holds the phones by token.
type phoneBook struct {
	mu     sync.Mutex
	phones map[string]*phone

	// The delivery model.
	real    bool
	ahead   time.Duration // its clock is ahead of ours by so much
	waiting map[*phone]struct{}
	timer   *time.Timer // for the first of those waiting; nil if none runs
	rings   time.Time   // when it goes off, by the model's clock
	closed  bool
}

func newPhoneBook() *phoneBook {
	return &phoneBook{phones: map[string]*phone{}, waiting: map[*phone]struct{}{}}
}

func (b *phoneBook) add(p *phone) {
	p.changed = make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.phones[tokenKey(p.token)] = p
}

// state is what a provider knows of a token.
type tokenState struct {
	known, dead, sandbox bool
	owner                string
	diedAt               time.Time
}

func (b *phoneBook) look(provider, token string) tokenState {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.phones[tokenKey(token)]
	if !ok || p.provider != provider {
		return tokenState{}
	}
	return tokenState{known: true, dead: p.dead, sandbox: p.sandbox, owner: p.owner, diedAt: p.diedAt}
}

func (b *phoneBook) kill(token string, at time.Time) bool {
	if at.IsZero() {
		at = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.phones[tokenKey(token)]
	if ok {
		p.dead, p.diedAt, p.shelf = true, at, nil
		delete(b.waiting, p)
	}
	return ok
}

// deliver hands a push to the phone, or to what lies between.
func (b *phoneBook) deliver(p parcel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	to, ok := b.phones[tokenKey(p.Token)]
	switch {
	case !ok || to.dead:
	case !b.real:
		to.take(p.Delivered)
	default:
		if to.shelf == nil {
			to.shelf = newShelf(to.provider)
		}
		for _, d := range to.shelf.offer(b.now(), to.condition, p) {
			to.take(d)
		}
		b.watch(to)
	}
}

// take puts a push on the phone and wakes who waits for it.
func (p *phone) take(d Delivered) {
	p.n++
	d.N, d.Token, d.At = p.n, p.token, time.Now()
	if len(p.pushes) == PushLimit {
		p.pushes = p.pushes[1:]
	}
	p.pushes = append(p.pushes, d)
	close(p.changed)
	p.changed = make(chan struct{})
}

// after returns the pushes over a number and a channel that closes with the next
// one; a nil channel means an unknown token.
func (b *phoneBook) after(token string, n int) ([]Delivered, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.phones[tokenKey(token)]
	if !ok {
		return nil, nil
	}
	from := 0
	for from < len(p.pushes) && p.pushes[from].N <= n {
		from++
	}
	return append([]Delivered{}, p.pushes[from:]...), p.changed
}

// forget drops the pushes, those held too, and keeps the phones, online and awake, and their count.
func (b *phoneBook) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead = 0
	b.silence()
	clear(b.waiting)
	for _, p := range b.phones {
		p.pushes, p.shelf, p.condition = nil, nil, condition{}
	}
}

// tokenKey makes hex tokens equal in either case; others stand as they are.
func tokenKey(token string) string {
	if isHex(token) {
		return strings.ToLower(token)
	}
	return token
}

// isHex reports whether s is hex digits, an even number of them and at least two.
func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && s != ""
}

// shorten keeps the beginning of a device token, for errors and logs.
func shorten(token string) string {
	if len(token) <= 8 {
		return token
	}
	return token[:8] + "..."
}

// asJSON returns body as it stands, or as a JSON string if it is not JSON.
func asJSON(body []byte) json.RawMessage {
	if json.Valid(body) {
		return append(json.RawMessage(nil), body...)
	}
	quoted, _ := json.Marshal(string(body))
	return quoted
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its contract
	return b
}
