package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/providers/sim"
)

// stressTime is how long the troubles last, stressSeed what they are drawn from.
const (
	stressTime = 4 * time.Second
	stressSeed = 7
)

// TestStress mixes all troubles there are and holds the pool to its word: every Send is back in time, every slot comes back, every
// connection is closed, and what comes after the troubles gets through.
func TestStress(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		provider string
		change   func(*Options)
	}{
		"one connection":   {sim.APNs, func(o *Options) { o.Slots, o.PerConn, o.MaxConns = 100, 100, 1 }},
		"five connections": {sim.FCM, func(o *Options) { o.Slots, o.PerConn, o.MaxConns = 100, 20, 5 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newStress(t, tt.provider, tt.change).run()
		})
	}
}

// stress is a pool that reaches a simulator through a door that does not always open.
type stress struct {
	t        *testing.T
	provider string
	sim      *sim.Sim
	door     *door
	pool     *Pool
	bearer   string
	token    string
	answered atomic.Int64

	mu   sync.Mutex
	told map[string]int // events and failures by reason
}

func (x *stress) count(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.told[what]++
}

func newStress(t *testing.T, provider string, change func(*Options)) *stress {
	t.Helper()
	// Not of the test's context, which ends before the clean-up.
	s, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	endpoint := s.FCMURL()
	if provider == sim.APNs {
		endpoint = s.APNsURL()
	}
	u, err := ParseEndpoint(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	x := &stress{t: t, provider: provider, sim: s, door: newDoor(t, u.Host), told: map[string]int{}}
	x.bearer, x.token = appleBearer(t, s), s.NewAPNsToken("com.example.app", false)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	o := Options{URL: &url.URL{Scheme: "https", Host: x.door.Addr().String()}, RootCAs: roots, HTTP1: provider == sim.FCM, Dial: time.Second, Idle: time.Minute}
	o.Observe = func(e Event) { x.count(string(e.Kind) + " " + e.Reason) }
	change(&o)
	x.pool = New(o)
	t.Cleanup(x.pool.Close)
	return x
}

// appleBearer signs what makes the fake Apple raise its limit.
func appleBearer(t *testing.T, s *sim.Sim) string {
	t.Helper()
	block, _ := pem.Decode([]byte(s.NewAPNsKey("TEAM000001", "KEY0000001")))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": "TEAM000001", "iat": time.Now().Unix()})
	claims.Header["kid"] = "KEY0000001"
	signed, err := claims.SignedString(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// request is one push, as far as this room knows pushes.
func (x *stress) request(ctx context.Context) *http.Request {
	path := "/v1/projects/p/messages:send" // without an access token: a 401 is an answer too
	if x.provider == sim.APNs {
		path = "/3/device/" + x.token
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.pool.o.URL.String()+path, strings.NewReader(`{"aps":{"content-available":1}}`))
	if err != nil {
		x.t.Error(err)
	}
	req.Header.Set("Authorization", "bearer "+x.bearer)
	req.Header.Set("Apns-Topic", "com.example.app")
	req.Header.Set("Apns-Push-Type", "background")
	req.Header.Set("Apns-Priority", "5")
	return req
}

func (x *stress) run() {
	x.trouble()
	var all sync.WaitGroup
	end := time.Now().Add(stressTime)
	for caller := range 150 {
		dice := rand.New(rand.NewPCG(stressSeed, uint64(caller)))
		all.Go(func() {
			for time.Now().Before(end) {
				x.attempt(dice)
			}
		})
	}
	all.Go(func() { x.renewals(end) })
	all.Wait()
	x.calm()
	x.close()
}

// trouble is every fault the simulator knows, each on a share of the requests.
func (x *stress) trouble() {
	rules := []sim.Rule{
		{Probability: 0.002, Action: sim.Action{Fault: sim.FaultReset}},
		{Probability: 0.002, Action: sim.Action{Fault: sim.FaultGoaway}},
		{Probability: 0.001, Action: sim.Action{Fault: sim.FaultBlackhole}},
		{Probability: 0.002, Action: sim.Action{Fault: sim.FaultCloseAfter}},
		{Probability: 0.01, Action: sim.Action{Fault: sim.FaultRSTInternal}},
		{Probability: 0.01, Action: sim.Action{Fault: sim.FaultHang}},
		{Probability: 0.01, Action: sim.Action{Status: 503, Body: "<html>busy</html>", Fault: sim.FaultSlowBody, Delay: 5 * time.Millisecond}},
		{Probability: 0.02, Action: sim.Action{Status: 500}},
		{Probability: 0.02, Action: sim.Action{Delay: 400 * time.Millisecond}},
	}
	if x.provider == sim.APNs {
		rules = append(rules,
			sim.Rule{Probability: 0.002, Action: sim.Action{Fault: sim.FaultGoawayLower, Reason: "Shutdown"}},
			sim.Rule{Probability: 0.002, Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: "BadCertificate"}},
			sim.Rule{Probability: 0.01, Action: sim.Action{Fault: sim.FaultRSTRefused}},
			sim.Rule{Probability: 0.002, Action: sim.Action{Fault: sim.FaultRSTProtocol}},
			sim.Rule{Probability: 0.01, Action: sim.Action{Fault: sim.FaultRSTCancel}},
			sim.Rule{Probability: 0.01, Action: sim.Action{Fault: sim.FaultRSTCalm}},
			sim.Rule{Probability: 0.01, Action: sim.Action{Streams: 1}},
			sim.Rule{Probability: 0.02, Action: sim.Action{Streams: 1000}},
			sim.Rule{Connection: 5, Action: sim.Action{Fault: sim.FaultTinyWindow}},
			sim.Rule{Connection: 6, Action: sim.Action{Fault: sim.FaultLateSettings, Delay: 100 * time.Millisecond}},
			sim.Rule{Connection: 8, Action: sim.Action{Fault: sim.FaultWrongCertificate}},
			sim.Rule{Connection: 9, Action: sim.Action{Fault: sim.FaultHTTP1Only}},
			sim.Rule{Probability: 0.01, Action: sim.Action{Reason: "BadDeviceToken"}},
		)
	}
	rules = append(rules, sim.Rule{Action: sim.Action{Delay: 10 * time.Millisecond}})
	for _, r := range rules {
		r.Provider = x.provider
		x.sim.AddRule(r)
	}
	x.door.stuck.Store(true)
}

// attempt sends once, now and then giving up early, and looks at the clock.
func (x *stress) attempt(dice *rand.Rand) {
	patience := 200*time.Millisecond + rand.N(1300*time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if dice.IntN(50) == 0 {
		defer time.AfterFunc(rand.N(patience), cancel).Stop()
	}
	// When its time is up says a goroutine of its own: a machine that stands still makes nobody late.
	up := make(chan time.Time, 1)
	defer context.AfterFunc(ctx, func() { up <- time.Now() })()
	reply, err := x.pool.Send(x.request(ctx), 4096)
	if ctx.Err() != nil {
		if late := time.Since(<-up); late > time.Second {
			x.t.Errorf("back %v after its time was up: %v", late, err)
		}
	}
	var e *Error
	if err != nil && !errors.As(err, &e) {
		x.t.Errorf("not an *Error: %v", err)
	}
	if reply.Status != 0 {
		x.answered.Add(1)
	} else {
		x.count("failure " + reasonOf(err))
	}
}

// renewals changes the credential under way, and gives up who waits.
func (x *stress) renewals(end time.Time) {
	for time.Now().Before(end) {
		<-time.After(stressTime / 10)
		x.pool.mu.Lock()
		epoch := x.pool.epoch
		x.pool.mu.Unlock()
		x.pool.Renew(epoch)
		x.pool.Dismiss()
	}
}

// calm ends the troubles; now everything must get through, on what connections there are or on new ones.
func (x *stress) calm() {
	x.door.stuck.Store(false)
	x.sim.ClearRules()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			// On a connection that fell silent in the last moment, nobody knows before a ping was not answered.
			ctx, cancel := context.WithTimeout(context.Background(), pingAfter+pingWait+patience)
			defer cancel()
			for {
				_, err := x.pool.Send(x.request(ctx), 4096)
				var e *Error
				switch {
				case err == nil:
					return
				case errors.As(err, &e) && (e.Lost || e.Reason == ConnectTimeout || e.Reason == ConnectFailed):
					// A connection from before; the next attempt makes do.
				default:
					x.t.Errorf("after the troubles: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	if x.pool.inFlight != 0 || x.pool.waiters.Len() != 0 {
		x.t.Errorf("%d slots are taken and %d wait, with nobody there", x.pool.inFlight, x.pool.waiters.Len())
	}
	for _, c := range x.pool.conns {
		if c.inFlight != 0 {
			x.t.Errorf("%d places of a connection are taken", c.inFlight)
		}
	}
}

func (x *stress) close() {
	x.pool.Close()
	waitFor(x.t, "every connection is closed", func() bool { return x.door.open.Load() == 0 })
	x.t.Logf("%d answers over %d connections; %v", x.answered.Load(), x.door.opened.Load(), x.told)
}

// door stands before a server: while it is stuck it turns some connections away and leaves some to wait.
type door struct {
	net.Listener
	to           string
	stuck        atomic.Bool
	opened, open atomic.Int64
	all          sync.WaitGroup
	done         chan struct{}
}

func newDoor(t *testing.T, to string) *door {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l, to: to, done: make(chan struct{})}
	d.all.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.opened.Add(1)
			d.open.Add(1)
			d.all.Go(func() { d.pass(c, n) })
		}
	})
	t.Cleanup(func() { close(d.done); _ = l.Close(); d.all.Wait() })
	return d
}

// pass carries bytes both ways, unless it is this connection's turn to be treated badly.
func (d *door) pass(c net.Conn, n int) {
	defer d.open.Add(-1)
	defer c.Close()
	if d.stuck.Load() && n%10 == 3 {
		return // turned away
	}
	if d.stuck.Load() && n%10 == 7 {
		_, _ = io.Copy(io.Discard, c) // it may knock, nobody answers
		return
	}
	to, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer to.Close()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(c, to); abort(c) })
	both.Go(func() { _, _ = io.Copy(to, c); abort(to) })
	ended := make(chan struct{})
	go func() { both.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-d.done:
		_, _ = c.Close(), to.Close()
		<-ended
	}
}

// abort resets a connection whose other half has ended.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
