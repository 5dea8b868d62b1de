package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/client"
	"rouse/providers/sim"
)

// chaos makes trouble at both providers, one after the other and several at a time, until it is ended: every kind once before any
// comes again. It lets tokens die, gives their phones new ones a while later, and puts the credentials again as an operator would.
type chaos struct {
	crowd  *crowd
	keys   keys
	dice   *rand.Rand
	deck   []trouble // what has not come yet in this round
	now    []present
	graves map[*crowdPhone]time.Time // phones without a token, and when they get one

	started, deaths, puts int
	seen                  int            // number of the last request counted
	answers               map[string]int // what the requests came to
	stop                  context.CancelFunc
	done                  sync.WaitGroup
}

// present is a trouble that is going on.
type present struct {
	trouble
	until  time.Time
	remove func()
}

const (
	// chaosStep is how often something new may happen.
	chaosStep = 100 * time.Millisecond
	// usualTrouble is about how long a trouble lasts that says nothing else.
	usualTrouble = 700 * time.Millisecond
	// manyTroubles is how many go on at a time.
	manyTroubles = 5
	// deathEvery is about how many steps lie between two deaths.
	deathEvery = 5
)

// startChaos begins to make trouble.
func (c *crowd) startChaos(k keys) *chaos {
	ctx, stop := context.WithCancel(context.Background())
	x := &chaos{crowd: c, keys: k, dice: rand.New(rand.NewPCG(c.seed, 42)), graves: map[*crowdPhone]time.Time{}, answers: map[string]int{}, stop: stop}
	x.done.Go(func() {
		tick := time.NewTicker(chaosStep)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				x.step(ctx, now)
			case <-ctx.Done():
				return
			}
		}
	})
	return x
}

// step ends what has lasted long enough and begins something new.
func (x *chaos) step(ctx context.Context, now time.Time) {
	x.now = slices.DeleteFunc(x.now, func(p present) bool {
		if now.Before(p.until) {
			return false
		}
		p.remove()
		if p.spoils {
			x.mend(ctx, p.provider)
		}
		return true
	})
	if len(x.now) < manyTroubles && x.dice.IntN(3) > 0 {
		x.begin(now)
	}
	if x.dice.IntN(deathEvery) == 0 {
		x.kill(now)
	}
	for p, at := range x.graves {
		if !now.Before(at) {
			x.revive(ctx, p)
		}
	}
	x.count()
}

// begin deals the next trouble.
func (x *chaos) begin(now time.Time) {
	if len(x.deck) == 0 {
		x.deck = append(appleTroubles(), googleTroubles()...)
		x.dice.Shuffle(len(x.deck), func(i, j int) { x.deck[i], x.deck[j] = x.deck[j], x.deck[i] })
	}
	next := x.deck[0]
	x.deck = x.deck[1:]
	if next.lasts == 0 {
		next.lasts = usualTrouble
	}
	if next.revokes {
		x.crowd.rig.sim.RevokeAccessTokens()
	}
	x.started++
	x.now = append(x.now, present{
		trouble: next, until: now.Add(next.lasts/2 + time.Duration(x.dice.Int64N(int64(next.lasts)))),
		remove: x.crowd.rig.sim.AddRule(sim.Rule{Provider: next.provider, Probability: next.share, Count: next.count, Action: next.does}),
	})
}

// kill lets one phone's token die.
func (x *chaos) kill(now time.Time) {
	p := x.crowd.phones[x.dice.IntN(len(x.crowd.phones))]
	if p.die() {
		x.deaths++
		x.graves[p] = now.Add(time.Second + time.Duration(x.dice.Int64N(int64(2*time.Second))))
	}
}

func (x *chaos) revive(ctx context.Context, p *crowdPhone) {
	delete(x.graves, p)
	if err := p.renew(context.WithoutCancel(ctx)); err != nil {
		x.crowd.rig.t.Errorf("%s cannot tell its new token: %v", p.name(), err)
	}
}

// mend puts a credential again, unchanged.
func (x *chaos) mend(ctx context.Context, provider string) {
	x.puts++
	if err := x.keys.put(context.WithoutCancel(ctx), x.crowd, provider); err != nil {
		x.crowd.rig.t.Errorf("putting the credential again: %v", err)
	}
}

// count adds up what the simulator answered since the last time.
func (x *chaos) count() {
	for _, e := range x.crowd.rig.sim.Log() {
		if e.N <= x.seen {
			continue
		}
		x.seen = e.N
		switch {
		case e.Fault != "":
			x.answers[e.Provider+" "+e.Fault]++
		case e.Status == 200 && e.Reason == "":
			x.answers[e.Provider+" ok"]++
		default:
			x.answers[strings.TrimSpace(fmt.Sprintf("%s %d %s", e.Provider, e.Status, e.Reason))]++
		}
	}
}

// end stops the trouble: Apple and Google are well again, every phone has a token, and both credentials were put anew.
func (x *chaos) end() {
	x.stop()
	x.done.Wait()
	x.crowd.rig.sim.ClearRules()
	for p := range x.graves {
		x.revive(context.Background(), p)
	}
	x.mend(context.Background(), sim.APNs)
	x.mend(context.Background(), sim.FCM)
}

// String tells of it on a few lines.
func (x *chaos) String() string {
	var rows []string
	for what, n := range x.answers {
		rows = append(rows, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(rows)
	return fmt.Sprintf("%d troubles, %d tokens died, %d credentials put again; the simulator answered\n%s", x.started, x.deaths, x.puts, strings.Join(rows, ", "))
}

// keys is what the operator has of an app's credentials, to put them again.
type keys struct {
	admin string
	app   string
	apns  client.ApnsCredentialPut
	fcm   client.FcmCredentialPut
}

// newKeys makes credentials at the simulator and puts both.
func newKeys(t *testing.T, c *crowd, keyID string) keys {
	t.Helper()
	k := keys{admin: c.rig.admin, app: c.rig.app.Id}
	pem := c.rig.sim.NewAPNsKey(demoTeam, keyID, demoTopic)
	k.apns = client.ApnsCredentialPut{TeamId: ptr(demoTeam), KeyId: &keyID, PrivateKey: &pem, Topic: demoTopic}
	k.fcm = client.FcmCredentialPut{ServiceAccount: c.rig.sim.NewServiceAccount(demoProject)}
	for _, provider := range []string{sim.APNs, sim.FCM} {
		if err := k.put(t.Context(), c, provider); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// put gives one of them to the server, however often it takes. The token endpoint's is Google's.
func (k keys) put(ctx context.Context, c *crowd, provider string) error {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	api := c.client(k.admin)
	return insist(ctx, func() (err error) {
		if provider == sim.APNs {
			_, err = answer[client.Credential](api.PutApnsCredential(ctx, k.app, k.apns))
		} else {
			_, err = answer[client.Credential](api.PutFcmCredential(ctx, k.app, k.fcm))
		}
		return err
	})
}
