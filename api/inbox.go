package api

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"rouse/api/contract"
	"rouse/api/park"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

const (
	// maxWait is the longest poll, in seconds: below the minute after which proxies cut.
	maxWait = 55
	// shorten is by how much a wait may be cut at random, so that polls do not end together.
	shorten = 0.1
	// drainSpread is over how many seconds clients come back after a stop: to another node, if there is one, and soon enough
	// that a message waits for less than 5 s meanwhile.
	drainSpread = 4
	// pollSlack is what a poll may take beyond its wait, whatever becomes of the database: its phone would wait for a node that
	// is cut off, when another could serve it.
	pollSlack = 1800 * time.Millisecond
)

// reading is one GET /v1/inbox.
type reading struct {
	api    *API
	device tokens.Device
	proof  tokens.Hash
	wait   time.Duration
	limit  int
	after  *messages.Seq
	ack    *messages.Seq
	// last is what was read last: an empty answer takes its cursor and gap from there.
	last messages.Page
	// end is when it is answered at the latest.
	end time.Time
}

// getInbox acks, reads and waits. It is written by hand because the parker, and not the
// generated code, decides when and where the answer is written.
func (a *API) getInbox(w http.ResponseWriter, r *http.Request) {
	read, err := a.readingOf(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if read.ack != nil {
		if err := read.ackFirst(r.Context()); err != nil {
			a.fail(w, r, err)
			return
		}
	}
	if read.wait == 0 {
		reply, done := read.look(r.Context(), false)
		if !done {
			reply = read.empty(0)
		}
		reply.WriteTo(w)
		return
	}
	a.parker.Park(w, r, park.Poll{
		Device: read.device.ID, After: read.place(), Proof: read.proof,
		// What it took to get here counts.
		Wait: min(time.Duration(float64(read.wait)*(1-shorten*rand.Float64())), time.Until(read.end)-pollSlack),
		Look: read.look,
		Parked: func(number int64, until time.Time) {
			read.hint(messages.Hint{Kind: messages.HintPolling, Seq: messages.Seq(number), Until: until})
		},
		Idle:  func(number int64) { read.hint(messages.Hint{Kind: messages.HintIdle, Seq: messages.Seq(number)}) },
		Empty: read.empty,
	})
}

// readingOf checks the query.
func (a *API) readingOf(r *http.Request) (*reading, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Malformed, "bad_query", "the query is not well-formed")
	}
	who := callerOf(r.Context())
	read := &reading{api: a, device: who.device, proof: who.proof, end: exchangeOf(r.Context()).end}
	wait, err := number(q, "wait", 0, 0, maxWait)
	if err != nil {
		return nil, err
	}
	read.wait = time.Duration(wait) * time.Second
	if read.limit, err = number(q, "limit", defaultLimit, 1, maxLimit); err != nil {
		return nil, err
	}
	if read.after, err = place(q, "after", read.device.ID); err != nil {
		return nil, err
	}
	if read.ack, err = place(q, "ack", read.device.ID); err != nil {
		return nil, err
	}
	return read, nil
}

// pollEnd is when a poll that begins now is to be answered at the latest.
func pollEnd(r *http.Request) time.Time {
	wait, err := strconv.Atoi(r.URL.Query().Get("wait"))
	if err != nil {
		wait = 0
	}
	return time.Now().Add(time.Duration(min(max(wait, 0), maxWait))*time.Second + pollSlack)
}

// ackFirst acks what the poll says it has.
func (r *reading) ackFirst(ctx context.Context) error {
	ctx, cancel := context.WithDeadline(ctx, r.end)
	defer cancel()
	_, err := r.api.ackUpTo(ctx, r.device, *r.ack)
	return err
}

func number(q url.Values, name string, def, least, most int) (int, error) {
	values, given := q[name]
	if !given {
		return def, nil
	}
	n, err := strconv.Atoi(values[0])
	if err != nil || len(values) > 1 || n < least || n > most {
		return 0, fault.New(fault.Malformed, "bad_query", "%s: a whole number from %d to %d, once", name, least, most)
	}
	return n, nil
}

func place(q url.Values, name string, device ident.Device) (*messages.Seq, error) {
	values, given := q[name]
	if !given {
		return nil, nil
	}
	seq, err := messages.ParseCursor(device, values[0])
	if err != nil || len(values) > 1 {
		return nil, fault.New(fault.Malformed, "bad_cursor", "%s: that cursor did not come from this inbox; leave it out to start with the oldest message", name)
	}
	return &seq, nil
}

// place is where the reader stands; 0 is everything un-acked.
func (r *reading) place() messages.Seq {
	if r.after == nil {
		return 0
	}
	return *r.after
}

// read reads the inbox. A poll that has been waiting proves its key anew, and before it reads: the key may have been
// revoked, and what came since is for whoever holds the device's new one.
func (r *reading) read(ctx context.Context, parked bool) (messages.Page, error) {
	ctx, cancel := context.WithDeadline(ctx, r.end)
	defer cancel()
	if parked {
		if _, _, err := r.api.holder(ctx, r.device.ID, r.proof); err != nil {
			return messages.Page{}, err
		}
	}
	return r.api.deps.Inboxes.Inbox(ctx, messages.Query{Device: r.device.ID, After: r.after, Limit: r.limit, Now: time.Now()})
}

// look reads the inbox; done means that there is something to say.
func (r *reading) look(ctx context.Context, parked bool) (park.Reply, bool) {
	page, err := r.read(ctx, parked)
	if err != nil {
		if left(ctx) {
			return park.Reply{}, false // the client left; the parker sees that too
		}
		status, header, body := r.api.problem(ctx, err)
		return park.Reply{Status: status, Header: header, Body: body, Idle: true}, true
	}
	r.last = page
	if len(page.Items) == 0 {
		if page.Seen > 0 {
			// It came for something that has ended meanwhile: the wake that called it is answered all the same.
			r.hint(messages.Hint{Kind: messages.HintSeen, Seq: page.Seen})
		}
		return park.Reply{}, false
	}
	// Before it is written: from here on the device counts as served, and is looked after if it stays silent.
	r.hint(messages.Hint{Kind: messages.HintServed, Seq: max(page.Last, page.Seen), Parked: parked, More: page.More})
	return r.reply(nil), true
}

// empty answers a poll that found nothing.
func (r *reading) empty(end park.End) park.Reply {
	r.last.Items, r.last.More = nil, false
	if end == park.Drained {
		// Spread, so that the next server does not get everybody at once.
		return r.reply(http.Header{"Retry-After": {strconv.Itoa(1 + rand.IntN(drainSpread))}})
	}
	return r.reply(nil)
}

func (r *reading) reply(header http.Header) park.Reply {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	return park.Reply{Status: http.StatusOK, Header: header, Body: pageJSON(r.device.ID, r.last)}
}

func (r *reading) hint(h messages.Hint) {
	h.App, h.Device = r.device.App, r.device.ID
	r.api.hint(h)
}

// ackUpTo acks and tells.
func (a *API) ackUpTo(ctx context.Context, d tokens.Device, seq messages.Seq) (int, error) {
	acked, err := a.deps.Inboxes.AckUpTo(ctx, d.ID, seq, time.Now())
	if err != nil {
		return 0, err
	}
	if acked > 0 {
		a.hint(messages.Hint{Kind: messages.HintAcked, App: d.App, Device: d.ID, Seq: seq})
	}
	return acked, nil
}

// AckMessages acks by cursor or by ids.
func (n nouns) AckMessages(ctx context.Context, r contract.AckMessagesRequestObject) (contract.AckMessagesResponseObject, error) {
	device := callerOf(ctx).device
	if (r.Body.Ids == nil) == (r.Body.UpTo == nil) {
		return nil, invalidBody().At("", "give exactly one of ids and up_to")
	}
	if r.Body.UpTo != nil {
		seq, err := messages.ParseCursor(device.ID, *r.Body.UpTo)
		if err != nil {
			return nil, badCursor().At("/up_to", "is not a cursor of this inbox")
		}
		acked, err := n.ackUpTo(ctx, device, seq)
		return contract.AckMessages200JSONResponse{Acked: acked}, err
	}
	var ids []ident.Message
	for _, s := range *r.Body.Ids {
		if id, err := ident.ParseMessage(s); err == nil { // what is no id is an unknown one, and those count nothing
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return contract.AckMessages200JSONResponse{}, nil
	}
	acked, err := n.deps.Inboxes.AckIDs(ctx, device.ID, ids, time.Now())
	if err != nil {
		return nil, err
	}
	if acked > 0 {
		n.hint(messages.Hint{Kind: messages.HintAcked, App: device.App, Device: device.ID})
	}
	return contract.AckMessages200JSONResponse{Acked: acked}, nil
}

// GetInboxMessage reads one message.
func (n nouns) GetInboxMessage(ctx context.Context, r contract.GetInboxMessageRequestObject) (contract.GetInboxMessageResponseObject, error) {
	id, err := messageID(r.MessageId)
	if err != nil {
		return nil, err
	}
	item, err := n.deps.Inboxes.Item(ctx, callerOf(ctx).device.ID, id, time.Now())
	if err != nil {
		return nil, err
	}
	return oneItem(item), nil
}
