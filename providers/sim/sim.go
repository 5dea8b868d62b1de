// Package sim is a fake Apple and a fake Google that speak the wire: HTTP/2 over
// TLS, JWTs and OAuth assertions checked, requests validated strictly, every
// refusal in the provider's own words. It can be told to fail, it remembers what
// it was asked, and it plays the phones that get the pushes. It keeps everything
// in memory and reaches nothing outside its own listeners.
package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is what waiting calls return once the Sim has stopped.
var ErrClosed = errors.New("the simulator has stopped")

// Options say where to listen. The zero value is good for tests: free loopback
// ports and no control listener.
type Options struct {
	// APNsListen, APNsSandboxListen, FCMListen and FCMPlainListen are host:port,
	// "127.0.0.1:0" if empty. FCMPlainListen speaks HTTP/1.1 without TLS.
	APNsListen, APNsSandboxListen, FCMListen, FCMPlainListen string
	// ControlListen is the host:port of the control API; empty for none. It has no
	// authentication: keep it on loopback.
	ControlListen string
	// Hosts are further names and addresses that clients use for the listeners; the
	// certificates cover them beside localhost, 127.0.0.1 and ::1.
	Hosts []string
	// Log gets a line for each start, refusal and fault; nil for none. No token is written in full.
	Log *slog.Logger
	// Seed shuffles what is left to chance: which requests a rule's Probability
	// picks, and how long a Latency takes. The same seed makes the same choices; 0 is 1.
	Seed uint64
	// Rules are there from the start, as by AddRule.
	Rules []Rule
	// APNsLatency, FCMLatency and TokenLatency pass before each request is processed,
	// unless a rule with times of its own acts.
	APNsLatency, FCMLatency, TokenLatency Latency
	// Throttle4xx has an APNs connection fall back to one stream after a refusal other
	// than 410 until the next 200, and end by GOAWAY after ThrottleErrors refusals (100
	// if 0; BadDeviceToken counts double).
	Throttle4xx    bool
	ThrottleErrors int
	// Delivery is DeliveryInstant, the default, or DeliveryReal: phones that can be
	// offline, storage, expiry, collapsing and the budgets of both providers.
	Delivery string
	// Strict ends an APNs connection with GOAWAY when its client goes over a stream
	// limit that it had acknowledged. Without it the stream is refused and counted.
	Strict bool
	// AccessTokenLife is how long FCM access tokens work; 3599 s if 0.
	AccessTokenLife time.Duration
}

// Sim is a running simulator. All methods are safe for concurrent use.
type Sim struct {
	log      *slog.Logger
	settings atomic.Pointer[Settings]
	names    []string

	authority *authority
	rules     *ruleBook
	journal   *journal
	keys      *keyBook
	accounts  *accountBook
	phones    *phoneBook

	apns, sandbox, fcm, fcmPlain, control net.Listener
	servers                               []*http.Server

	done    chan struct{} // closed when stopping begins
	mu      sync.Mutex    // guards stopped and wires
	stopped bool
	wires   map[*wire]struct{}
	wg      sync.WaitGroup // every goroutine that the Sim started, and net/http's for its connections
	release func() bool    // detaches from the context given to Start
}

// Start listens and serves until ctx ends or Close is called. It fails if a
// listen address cannot be had, or rules or settings make no sense.
func Start(ctx context.Context, o Options) (*Sim, error) {
	settings := o.settings()
	if err := errors.Join(settings.check(), checkAll(o.Rules)); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	s := &Sim{
		log: o.Log, rules: newRuleBook(o.Seed), journal: newJournal(), keys: newKeyBook(), accounts: newAccountBook(), phones: newPhoneBook(),
		done: make(chan struct{}), wires: map[*wire]struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.settings.Store(&settings)
	s.phones.model(settings.Delivery == DeliveryReal)
	for _, r := range o.Rules {
		s.rules.add(r)
	}
	if err := s.listen(o); err != nil {
		_ = s.Close()
		return nil, err
	}
	s.serve()
	s.release = context.AfterFunc(ctx, s.stop)
	s.log.Info("simulator listens", "apns", s.APNsURL(), "apns_sandbox", s.APNsSandboxURL(), "fcm", s.FCMURL(), "control", s.ControlURL())
	return s, nil
}

// listen opens every listener and makes the certificates for them.
func (s *Sim) listen(o Options) error {
	for _, door := range []struct {
		address, provider, environment string
		to                             *net.Listener
	}{
		{o.APNsListen, APNs, Production, &s.apns},
		{o.APNsSandboxListen, APNs, Sandbox, &s.sandbox},
		{o.FCMListen, FCM, "", &s.fcm},
		{o.FCMPlainListen, FCM, "", &s.fcmPlain},
		{o.ControlListen, "", "", &s.control},
	} {
		if door.address == "" && door.to == &s.control {
			continue
		}
		if door.address == "" {
			door.address = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", door.address)
		if err != nil {
			return fmt.Errorf("simulator: listen on %s: %w", door.address, err)
		}
		*door.to = &listener{Listener: l, sim: s, provider: door.provider, environment: door.environment}
		if host, _, err := net.SplitHostPort(door.address); err == nil && host != "" {
			s.names = append(s.names, host)
		}
	}
	s.names = append(s.names, o.Hosts...)
	var err error
	s.authority, err = newAuthority(s.names)
	return err
}

// serve starts the servers; each ends when its listener closes.
func (s *Sim) serve() {
	s.wg.Go(func() { (&apnsServer{sim: s}).serve(s.apns) })
	s.wg.Go(func() { (&apnsServer{sim: s, sandbox: true}).serve(s.sandbox) })
	secure, plain := s.httpServer(s.fcmHandler()), s.httpServer(s.fcmHandler())
	secure.TLSConfig = s.authority.config("h2", "http/1.1")
	secure.TLSConfig.GetConfigForClient = s.greet
	secure.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: fcmStreams}
	s.servers = []*http.Server{secure, plain}
	s.wg.Go(func() { _ = secure.ServeTLS(s.fcm, "", "") })
	s.wg.Go(func() { _ = plain.Serve(s.fcmPlain) })
	if s.control != nil {
		control := s.httpServer(s.controlHandler())
		s.servers = append(s.servers, control)
		s.wg.Go(func() { _ = control.Serve(s.control) })
	}
}

// Close stops everything. When it returns, all connections are closed and all
// goroutines are gone. It may be called again.
func (s *Sim) Close() error {
	if s.release != nil {
		s.release()
	}
	s.stop()
	s.wg.Wait()
	return nil
}

// stop begins the end and does not wait for it.
func (s *Sim) stop() {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.stopped = true
	close(s.done)
	wires := make([]*wire, 0, len(s.wires))
	for w := range s.wires {
		wires = append(wires, w)
	}
	s.mu.Unlock()
	s.phones.close()
	for _, l := range []net.Listener{s.apns, s.sandbox, s.fcm, s.fcmPlain, s.control} {
		if l != nil {
			_ = l.Close()
		}
	}
	for _, server := range s.servers {
		_ = server.Close()
	}
	for _, w := range wires {
		_ = w.Close()
	}
}

// enter counts the caller's goroutine among those that Close waits for; false
// means that the Sim is stopping and the caller must leave. Pair it with s.wg.Done.
func (s *Sim) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.wg.Add(1)
	return true
}

// APNsURL is the production environment, without a trailing slash.
func (s *Sim) APNsURL() string { return "https://" + reach(s.apns) }

// APNsSandboxURL is the sandbox environment, without a trailing slash.
func (s *Sim) APNsSandboxURL() string { return "https://" + reach(s.sandbox) }

// FCMURL is the FCM endpoint including /v1.
func (s *Sim) FCMURL() string { return "https://" + reach(s.fcm) + "/v1" }

// FCMTokenURL is the OAuth token endpoint, and the audience of its assertions.
func (s *Sim) FCMTokenURL() string { return "https://" + reach(s.fcm) + "/token" }

// FCMPlainURL is the FCM endpoint over HTTP/1.1 without TLS, including /v1; its
// token endpoint is /token beside it.
func (s *Sim) FCMPlainURL() string { return "http://" + reach(s.fcmPlain) + "/v1" }

// ControlURL is the control API, empty if there is none.
func (s *Sim) ControlURL() string {
	if s.control == nil {
		return ""
	}
	return "http://" + reach(s.control)
}

// CAPEM is the certificate of the authority that signed the certificates of the
// fakes. It is made anew by each Start.
func (s *Sim) CAPEM() []byte { return append([]byte(nil), s.authority.pem...) }

// Reset forgets rules, log, counters and delivered pushes. Keys, service
// accounts, access tokens and device tokens stay, dead ones dead, and a phone
// goes on counting its pushes, so that whoever waits for the next one still gets it.
// The delivery model begins anew: nothing held, phones online and awake, no time advanced.
func (s *Sim) Reset() {
	s.rules.clear()
	s.journal.reset()
	s.phones.forget()
}

// reach turns a listener's address into one that can be dialled from here.
func reach(l net.Listener) string {
	if l == nil {
		return ""
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok || !address.IP.IsUnspecified() {
		return l.Addr().String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(address.Port))
}
