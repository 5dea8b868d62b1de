package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"rouse/client"
)

// audiences sends to many, in batches and for later, beside a backend that sends to one phone at a time. What is to wake goes to
// the members alone, a third of the half whose turn it is: so the rest of the quiet half has nothing but the backend's messages to be woken by.
// Each phone's ledger says what it must get, whichever way it was sent.
type audiences struct {
	senders
	all     []*wanderer
	members [2][]*wanderer
	turn    func() int // whose turn it is
	sent    atomic.Int64
	// resting is while clocks are wrong: what is sent when is by them.
	resting atomic.Bool
}

const (
	// audienceEvery is how often something is sent to many, in a batch, or for later.
	audienceEvery = 300 * time.Millisecond
	// aheadAtMost is how far ahead a send is scheduled at most.
	aheadAtMost = 3 * time.Second
	// batchSize is how many messages a batch has.
	batchSize = 12
)

func halfTopic(half int) string { return fmt.Sprintf("half-%d", half) }

// startAudiences subscribes the members of both halves and begins to send to them, as turn says.
func (c *crowd) startAudiences(halves [2][]*wanderer, turn func() int) *audiences {
	t := c.rig.t
	t.Helper()
	a := &audiences{senders: senders{crowd: c, api: c.client(c.rig.app.SecretKey), stopped: make(chan struct{})}, all: slices.Concat(halves[:]...), turn: turn}
	for half, list := range halves {
		var ids []string
		for i, w := range list {
			if i%3 == 0 {
				a.members[half], ids = append(a.members[half], w), append(ids, w.device)
			}
		}
		results, err := answer[client.SubscriptionResults](a.api.SubscribeDevices(t.Context(), halfTopic(half), client.DeviceIds{DeviceIds: ids}))
		if err != nil || slices.ContainsFunc(results.Results, func(r client.SubscriptionResult) bool { return r.Status != http.StatusNoContent }) {
			t.Fatalf("subscribing %d phones: %v, %+v", len(ids), err, results)
		}
	}
	a.done.Go(func() {
		dice := rand.New(rand.NewPCG(c.seed, 3_000_000))
		tick := time.NewTicker(audienceEvery)
		defer tick.Stop()
		for n := int64(0); ; n++ {
			select {
			case <-tick.C:
				if !a.resting.Load() {
					a.one(n, dice)
				}
			case <-a.stopped:
				return
			}
		}
	})
	return a
}

// one sends the nth.
func (a *audiences) one(n int64, dice *rand.Rand) {
	half := a.turn()
	members := a.members[half]
	later := time.Now().Add(time.Duration(dice.Int64N(int64(aheadAtMost))))
	switch n % 5 {
	case 0:
		a.post(n, client.MessageSend{To: client.Recipient{Topic: ptr(halfTopic(half))}}, members)
	case 1:
		a.post(n, client.MessageSend{To: everyone(), Urgency: ptr(client.MessageSendUrgency("low"))}, a.all)
	case 2:
		a.batch(n, members, dice)
	case 3:
		a.post(n, client.MessageSend{To: client.Recipient{Topic: ptr(halfTopic(half))}, SendAt: &later}, members)
	case 4:
		w := members[dice.IntN(len(members))]
		a.post(n, client.MessageSend{To: client.Recipient{DeviceId: &w.device}, SendAt: &later}, []*wanderer{w})
	}
}

func everyone() client.Recipient {
	return client.Recipient{Broadcast: ptr(client.RecipientBroadcast(true))}
}

// post sends one message until it has its 202, and promises it to all it is for.
func (a *audiences) post(n int64, body client.MessageSend, to []*wanderer) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patient)
	defer cancel()
	due, key := time.Now(), fmt.Sprintf("many-%d", n)
	if body.SendAt != nil {
		due = *body.SendAt
	}
	body.Data = fmt.Appendf(nil, `{"many":%d,"text":%q}`, n, secretWords)
	var id string
	err := insist(ctx, func() error {
		m, err := answer[client.MessageAccepted](a.api.SendMessage(ctx, &client.SendMessageParams{IdempotencyKey: &key}, body))
		id = m.Id
		return err
	})
	if err != nil {
		a.crowd.rig.t.Errorf("sending to %d phones: %v", len(to), err)
		return
	}
	a.promise(id, due, body.Urgency != nil, to)
}

// promise notes that a message is for all of these.
func (a *audiences) promise(id string, due time.Time, calm bool, to []*wanderer) {
	a.sent.Add(1)
	s := share{to: map[*crowdPhone]bool{}, at: due, calm: calm}
	for _, w := range to {
		s.to[w.crowdPhone] = true
		if !calm {
			w.log.add(heardSend{due, id})
		}
	}
	a.crowd.ledger.promiseAll(id, s)
}

// batch sends several messages at once, each to a member, until all have their 202.
func (a *audiences) batch(n int64, members []*wanderer, dice *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patient)
	defer cancel()
	began, key := time.Now(), fmt.Sprintf("batch-%d", n)
	var body client.MessageBatch
	var to []*wanderer
	for i := range batchSize {
		w := members[dice.IntN(len(members))]
		to = append(to, w)
		body.Messages = append(body.Messages, fmt.Appendf(nil, `{"to":{"device_id":%q},"data":{"batch":%d,"item":%d,"text":%q}}`, w.device, n, i, secretWords))
	}
	var got client.MessageBatchResults
	err := insist(ctx, func() (err error) {
		got, err = answer[client.MessageBatchResults](a.api.SendMessages(ctx, &client.SendMessagesParams{IdempotencyKey: &key}, body))
		for _, r := range got.Results {
			if err == nil && r.Status != http.StatusAccepted {
				err = fmt.Errorf("item %d: %d", r.Index, r.Status)
			}
		}
		return err
	})
	if err != nil || len(got.Results) != batchSize {
		a.crowd.rig.t.Errorf("sending a batch: %d results, %v", len(got.Results), err)
		return
	}
	for i, r := range got.Results {
		a.promise(r.Message.Id, began, false, to[i:i+1])
	}
}

// last sends to everybody what wakes them, so that what rides along arrives, too.
func (a *audiences) last() {
	a.end()
	a.post(-1, client.MessageSend{To: everyone()}, a.all)
}

// add notes a send that has its 202.
func (l *pushLog) add(s heardSend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sends = append(l.sends, s)
}

// told is what an event says of a message and a device.
type told struct {
	Message string `json:"message_id"`
	Device  string `json:"device_id"`
}

// allEvents are the app's of some types, from the beginning.
func allEvents(ctx context.Context, api *client.Client, types string) (all []client.Event, err error) {
	for after := (*string)(nil); ; {
		var list client.EventList
		err := insist(ctx, func() (err error) {
			list, err = answer[client.EventList](api.ListEvents(ctx, &client.ListEventsParams{After: after, Limit: ptr(100), Types: &types}))
			return err
		})
		if err != nil {
			return nil, err
		}
		if all = append(all, list.Events...); !list.More {
			return all, nil
		}
		after = list.Cursor
	}
}

// judgeEvents fails unless every message that was promised to a phone has one event that says it acked it, and the receiver has got every
// event, those of a device in their order.
func judgeEvents(t *testing.T, c *crowd, r *receiver) {
	t.Helper()
	api := c.client(c.rig.app.SecretKey)
	var events []client.Event
	acked := map[told]int{}
	missing := func() (n int, example told) {
		c.ledger.each(func(id string, p *crowdPhone) {
			if acked[told{id, p.device}] == 0 {
				n, example = n+1, told{id, p.device}
			}
		})
		return n, example
	}
	eventually(t, healLimit, func() (bool, string) {
		var err error
		if events, err = allEvents(t.Context(), api, "message.*"); err != nil {
			return false, err.Error()
		}
		clear(acked)
		for _, e := range events {
			var of told
			if err := json.Unmarshal(e.Data, &of); err != nil || e.Type != "message.acked" {
				t.Fatalf("event %+v (%v); nothing but acks can have ended a message", e, err)
			}
			acked[of]++
		}
		n, example := missing()
		return n == 0, fmt.Sprintf("%d acks have no event, such as %+v", n, example)
	})
	for of, n := range acked {
		if n != 1 {
			t.Errorf("%d events say that %s acked %s", n, of.Device, of.Message)
		}
	}
	eventually(t, healLimit, func() (bool, string) {
		n, example := r.lacks(events)
		return n == 0, fmt.Sprintf("%d of %d events did not arrive, such as %+v", n, len(events), example)
	})
	r.judgeOrder(t, events)
}
