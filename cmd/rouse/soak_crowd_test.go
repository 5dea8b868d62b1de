package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"rouse/client"
)

// crowd is many phones of one app and the backend that sends to them, all in this process. They follow the server when it
// comes back at another address, and try again what the network or a 503 kept from them, as real ones do.
type crowd struct {
	rig    *rig
	http   *http.Client
	host   atomic.Pointer[string]
	phones []*crowdPhone
	ledger *ledger
	seed   uint64
	// deaf is while a few pushes get lost on their last mile: the ladder makes up for them.
	deaf atomic.Bool

	stop  context.CancelFunc // ends the phones
	going sync.WaitGroup     // owns the phones' goroutines
}

// ways is how the phones of a crowd are reached, one after the other.
var ways = []client.DeviceRegistration{
	{Provider: "fcm", Platform: client.Android},
	{Provider: "apns", Platform: client.Ios},
	{Provider: "fcm", Platform: client.Android},
	{Provider: "apns", Platform: client.Ios},
	{Provider: "none", Platform: client.Other},
	{Provider: "fcm", Platform: client.Ios},
	{Provider: "apns", Platform: client.Ios, Environment: ptr(client.DeviceRegistrationEnvironment("sandbox"))},
	{Provider: "apns", Platform: client.Ios},
}

func ptr[T any](v T) *T { return &v }

// newCrowd registers n phones; they sleep until wakeUp.
func newCrowd(r *rig, n int, seed uint64) *crowd {
	r.t.Helper()
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: 30 * time.Second}
	c := &crowd{rig: r, http: &http.Client{Transport: transport, Timeout: callLimit}, ledger: newLedger(), seed: seed, stop: func() {}}
	r.t.Cleanup(func() {
		c.hangUp()
		transport.CloseIdleConnections()
	})
	c.follow()
	pk := c.client(r.app.PublishableKey)
	for i := range n {
		p := &crowdPhone{crowd: c, way: ways[i%len(ways)], number: i, dice: rand.New(rand.NewPCG(seed, uint64(i)))}
		if err := p.register(r.t.Context(), pk); err != nil {
			r.t.Fatal(err)
		}
		c.phones = append(c.phones, p)
	}
	return c
}

// follow notes where the server is now.
func (c *crowd) follow() {
	at, err := url.Parse(c.rig.child.at.api)
	if err != nil {
		c.rig.t.Fatal(err)
	}
	c.host.Store(&at.Host)
}

// somewhere is a base URL whose host options replace.
const somewhere = "http://rouse.invalid"

// options make a client with the key that calls the server wherever it is.
func (c *crowd) options(key string) []client.ClientOption {
	return []client.ClientOption{client.WithHTTPClient(c.http), client.WithKey(key),
		client.WithRequestEditorFn(func(_ context.Context, req *http.Request) error {
			req.URL.Host = *c.host.Load()
			return nil
		})}
}

func (c *crowd) client(key string) *client.Client {
	api, err := client.NewClient(somewhere, c.options(key)...)
	if err != nil {
		c.rig.t.Fatal(err)
	}
	return api
}

// wakeUp sets the phones going: those with a provider sleep until they are pushed, the others wait on their polls.
func (c *crowd) wakeUp() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	for _, p := range c.phones {
		if p.way.Provider == "none" {
			c.going.Go(func() { p.poll(ctx) })
		} else {
			c.going.Go(func() { p.sleep(ctx) })
		}
	}
}

// hangUp ends the phones and waits for them.
func (c *crowd) hangUp() {
	c.stop()
	c.going.Wait()
}

// secretive is how many phones' keys and tokens are looked for in the server's log: it is long, and one is like another.
const secretive = 2 * 8

// crowdPhone is one phone of a crowd.
type crowdPhone struct {
	crowd  *crowd
	way    client.DeviceRegistration
	number int
	dice   *rand.Rand // touched by the phone's own goroutine alone
	device string
	secret string
	api    *client.Client

	mu      sync.Mutex
	token   string
	renewed chan struct{} // closed and replaced with each new token
	dead    bool          // its token is dead and there is no new one yet
}

// register makes the phone known with a fresh token.
func (p *crowdPhone) register(ctx context.Context, pk *client.Client) error {
	body := p.way
	body.InstallationId = fmt.Sprintf("phone-%d", p.number)
	p.renewed = make(chan struct{})
	if p.token = p.newToken(); p.token != "" {
		body.Token = &p.token
	}
	d, err := answer[client.RegisteredDevice](pk.RegisterDevice(ctx, body))
	if err != nil {
		return fmt.Errorf("registering phone %d: %w", p.number, err)
	}
	p.device, p.secret = d.Id, *d.Secret
	if p.number < secretive {
		p.crowd.rig.secret(p.secret)
		if p.token != "" {
			p.crowd.rig.secret(p.token)
		}
	}
	p.api = p.crowd.client(p.secret)
	return nil
}

// newToken is a token the phone's provider knows; empty for a phone that polls.
func (p *crowdPhone) newToken() string {
	switch p.way.Provider {
	case "apns":
		return p.crowd.rig.sim.NewAPNsToken(demoTopic, p.way.Environment != nil)
	case "fcm":
		return p.crowd.rig.sim.NewFCMToken(demoProject)
	}
	return ""
}

// die makes the provider forget the phone's token; false if it has, or if there is none.
func (p *crowdPhone) die() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead || p.token == "" {
		return false
	}
	p.dead = true
	p.crowd.rig.sim.KillToken(p.token, time.Time{})
	return true
}

// renew gives a phone whose token is dead a new one, and tells the server.
func (p *crowdPhone) renew(ctx context.Context) error {
	token := p.newToken()
	update := client.DeviceUpdate{Token: &token}
	if p.way.Environment != nil {
		update.Environment = ptr(client.DeviceUpdateEnvironment(*p.way.Environment))
	}
	p.mu.Lock()
	p.token, p.dead = token, false
	close(p.renewed)
	p.renewed = make(chan struct{})
	p.mu.Unlock()
	return insist(ctx, func() error {
		_, err := answer[client.Device](p.api.UpdateOwnDevice(ctx, update))
		return err
	})
}

// hears is the token the phone listens to now, and what closes when it gets another.
func (p *crowdPhone) hears() (token string, renewed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.token, p.renewed
}

// sleep waits for pushes and fetches what each calls for, until ctx ends.
func (p *crowdPhone) sleep(ctx context.Context) {
	for ctx.Err() == nil {
		token, renewed := p.hears()
		p.listen(ctx, token, renewed)
	}
}

// listen is sleep for as long as the phone has the token.
func (p *crowdPhone) listen(ctx context.Context, token string, renewed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	p.crowd.going.Go(func() {
		select {
		case <-renewed:
			cancel()
		case <-stopped:
		}
	})
	deaf := false // never twice in a row: the ladder's later steps are long
	for heard := 0; ; {
		push, err := p.crowd.rig.sim.NextPush(ctx, token, heard)
		if err != nil {
			return
		}
		heard = push.N
		if deaf = !deaf && p.crowd.deaf.Load() && p.dice.Float64() < deafness; deaf {
			continue
		}
		// A new token does not end what the app is doing.
		p.fetch(context.WithoutCancel(ctx))
	}
}

// fetch empties the inbox, however often it takes.
func (p *crowdPhone) fetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	known := &phone{api: p.api, device: p.device}
	_ = insist(ctx, func() error {
		_, err := known.empty(ctx, p.got)
		return err
	})
}

func (p *crowdPhone) got(m fetched) { p.crowd.ledger.fetched(p, m) }

// poll waits on the long poll, until ctx ends.
func (p *crowdPhone) poll(ctx context.Context) {
	api, err := client.NewClientWithResponses(somewhere, p.crowd.options(p.secret)...)
	if err != nil {
		p.crowd.rig.t.Error(err)
		return
	}
	r := &client.Receiver{Client: api, Limit: maxPage}
	_ = r.Run(ctx, func(_ context.Context, page client.InboxPage) error {
		at := time.Now()
		for _, m := range page.Messages {
			p.got(fetched{m, at})
		}
		return nil
	})
}

// tokenState is what the server thinks of the phone's token.
func (p *crowdPhone) tokenState(ctx context.Context) (state string, err error) {
	d, err := answer[client.Device](p.api.GetOwnDevice(ctx))
	return d.TokenState, err
}
