package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

var webhookTests = map[string]func(*testing.T, *world){
	"a webhook is kept, changed and deleted":           webhookKept,
	"an app has at most twenty webhooks":               webhooksBounded,
	"a webhook begins with what happens from now on":   webhookBegins,
	"what came of posts is noted as a whole":           postsNoted,
	"a late note does not count":                       lateNote,
	"a disabling is told with it":                      disablingTold,
	"events are delivered again":                       eventsAgain,
	"a webhook's secrets are sealed and replaced":      secretsReplaced,
	"an app that is deleted takes its webhooks along":  webhooksDeleted,
	"a webhook that is put right begins a clean sheet": cleanSheet,
}

// hook adds a webhook.
func (w *world) hook(change ...func(*messages.Webhook)) messages.Webhook {
	w.t.Helper()
	h := messages.Webhook{ID: ident.NewWebhook(), App: w.app, URL: "https://example.com/", Events: messages.EventFilter{"message.*", "circuit.opened"}, CreatedAt: w.now}
	for _, f := range change {
		f(&h)
	}
	w.must(w.AddWebhook(w.ctx(), h, []byte("the first secret")))
	return w.hookOf(h.ID)
}

func (w *world) hookOf(id ident.Webhook) messages.Webhook {
	w.t.Helper()
	list, err := w.Webhooks(w.ctx(), w.app)
	w.must(err)
	for _, h := range list {
		if h.ID == id {
			return h
		}
	}
	w.t.Fatalf("there is no webhook %s among %+v", id, list)
	return messages.Webhook{}
}

func (w *world) takeHook(h messages.Webhook) messages.WebhookDesk {
	w.t.Helper()
	d, err := w.TakeWebhook(w.ctx(), h.App, h.ID)
	w.must(err)
	return d
}

// notes writes a note under the desk's term.
func (w *world) notes(d messages.WebhookDesk, change func(*messages.WebhookNote)) bool {
	w.t.Helper()
	n := messages.WebhookNote{ID: d.ID, App: d.App, Term: d.Term, Place: d.Place, Now: w.now}
	change(&n)
	ok, err := w.NotePosts(w.ctx(), n)
	w.must(err)
	return ok
}

func isCode(err error, code string) bool {
	return errors.Is(err, fault.New(fault.Internal, code, ""))
}

func webhookKept(t *testing.T, w *world) {
	want := messages.Webhook{ID: ident.NewWebhook(), App: w.app, URL: "https://example.com/a", Events: messages.EventFilter{"*"}, Description: "for the till", CreatedAt: w.now}
	w.must(w.AddWebhook(w.ctx(), want, []byte("secret")))
	got := w.hookOf(want.ID)
	want.Place = got.Place
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	url, text := "https://example.com/b", ""
	got, err := w.PatchWebhook(w.ctx(), w.app, want.ID, messages.WebhookPatch{URL: &url, Events: &messages.EventFilter{"message.acked"}, Description: &text}, w.now)
	w.must(err)
	want.URL, want.Events, want.Description, want.Term = url, messages.EventFilter{"message.acked"}, "", 1
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	off := false
	got, err = w.PatchWebhook(w.ctx(), w.app, want.ID, messages.WebhookPatch{Enabled: &off}, w.now)
	w.must(err)
	if !got.DisabledAt.Equal(w.now) || got.DisabledReason != messages.WebhookManual || got.Term != 2 {
		t.Errorf("off: %+v", got)
	}
	if _, err := w.TakeWebhook(w.ctx(), w.app, want.ID); !isCode(err, "webhook_not_found") {
		t.Errorf("one that is off was taken: %v", err)
	}
	for what, err := range map[string]error{
		"add": w.AddWebhook(w.ctx(), messages.Webhook{ID: ident.NewWebhook(), App: ident.NewApp(), CreatedAt: w.now}, nil),
		"patch": func() error {
			_, err := w.PatchWebhook(w.ctx(), ident.NewApp(), want.ID, messages.WebhookPatch{}, w.now)
			return err
		}(),
		"delete": w.DeleteWebhook(w.ctx(), ident.NewApp(), want.ID),
		"rotate": w.RotateWebhookSecret(w.ctx(), ident.NewApp(), want.ID, nil, w.now),
		"read":   func() error { _, err := w.Webhook(w.ctx(), ident.NewApp(), want.ID); return err }(),
		"take":   func() error { _, err := w.TakeWebhook(w.ctx(), ident.NewApp(), want.ID); return err }(),
	} {
		if fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s of another app: %v", what, err)
		}
	}
	w.must(w.DeleteWebhook(w.ctx(), w.app, want.ID))
	if list, err := w.Webhooks(w.ctx(), w.app); len(list) != 0 || err != nil {
		t.Errorf("deleted: %+v, %v", list, err)
	}
}

func webhooksBounded(t *testing.T, w *world) {
	var adding sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for range messages.MaxWebhooks + 5 {
		adding.Go(func() {
			err := w.AddWebhook(w.ctx(), messages.Webhook{ID: ident.NewWebhook(), App: w.app, URL: "https://example.com/", CreatedAt: w.now}, []byte("s"))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				return
			}
			if refused++; !isCode(err, "too_many_webhooks") {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	if refused != 5 {
		t.Errorf("%d were refused", refused)
	}
}

func webhookBegins(t *testing.T, w *world) {
	w.happen(4)
	h := w.hook()
	if list, _ := w.eventsAfter(h.Place, 10); len(list) != 0 {
		t.Errorf("it begins before %+v", list)
	}
	turn := func() messages.WebhookTurn {
		t.Helper()
		all, err := w.WebhookTurns(w.ctx())
		w.must(err)
		for _, x := range all {
			if x.ID == h.ID {
				return x
			}
		}
		t.Fatalf("it has no turn: %+v", all)
		return messages.WebhookTurn{}
	}
	before := turn()
	w.happen(2)
	if list, _ := w.eventsAfter(h.Place, 10); len(list) != 2 {
		t.Errorf("it begins with %+v", list)
	} else if after := turn(); after.Newest <= before.Newest || after.Newest < list[1].Seq || after.App != w.app {
		t.Errorf("turns %+v, then %+v", before, after)
	}
}

func postsNoted(t *testing.T, w *world) {
	h := w.hook()
	w.happen(6)
	events, _ := w.eventsAfter(h.Place, 10)
	d, at := w.takeHook(h), w.now
	device := ident.NewDevice()
	ok := w.notes(d, func(n *messages.WebhookNote) {
		n.Place, n.SucceededAt, n.LastError = events[3].Seq, at, "answered 500"
		n.Apart = []messages.WebhookRetry{{Place: events[1].Seq, Device: device, Attempts: 1, FirstAt: at, NextAt: at.Add(5 * time.Second), LastError: "answered 500"},
			{Place: events[2].Seq, Device: device}, {Place: events[0].Seq, Attempts: 2, FirstAt: at, NextAt: at}}
	})
	got := w.hookOf(h.ID)
	if !ok || got.Place != events[3].Seq || got.Retrying != 3 || !got.LastSuccessAt.Equal(at) || got.LastError != "answered 500" {
		t.Errorf("%t: %+v", ok, got)
	}
	d = w.takeHook(h)
	if len(d.Retries) != 3 || d.Retries[0].Place != events[0].Seq || d.Retries[1].Device != device || !d.Retries[1].FirstAt.Equal(at) ||
		d.Retries[1].LastError != "answered 500" || d.Retries[2].Attempts != 0 || d.Retries[2].NextAt.After(at) {
		t.Errorf("%+v", d.Retries)
	}
	ok = w.notes(d, func(n *messages.WebhookNote) {
		n.Place, n.FailingSince, n.Attempts, n.NextAt = events[1].Seq, at, 3, at.Add(time.Minute) // a place does not go back
		n.Again = []messages.WebhookRetry{{Place: events[1].Seq, Attempts: 2, FirstAt: at, NextAt: at.Add(time.Hour), LastError: "answered 502"}}
		n.Done = []messages.Seq{events[0].Seq}
	})
	got = w.hookOf(h.ID)
	if !ok || got.Place != events[3].Seq || got.Retrying != 2 || !got.FailingSince.Equal(at) || got.Attempts != 3 || !got.NextAt.Equal(at.Add(time.Minute)) ||
		got.LastError != "answered 500" || !got.LastSuccessAt.Equal(at) {
		t.Errorf("%t: %+v", ok, got)
	}
	if d = w.takeHook(h); d.Retries[0].Attempts != 2 || !d.Retries[0].NextAt.Equal(at.Add(time.Hour)) || d.Retries[0].LastError != "answered 502" {
		t.Errorf("%+v", d.Retries)
	}
}

func lateNote(t *testing.T, w *world) {
	h := w.hook()
	w.happen(2)
	late, heir := w.takeHook(h), w.takeHook(h)
	all := func(n *messages.WebhookNote) {
		n.Place, n.Disable = h.Place+1<<20, messages.WebhookFailing
		n.Apart = []messages.WebhookRetry{{Place: h.Place + 1}}
	}
	if w.notes(late, all) {
		t.Error("a late note counts")
	}
	if got := w.hookOf(h.ID); got.Place != h.Place || !got.DisabledAt.IsZero() || got.Retrying != 0 || got.Term != heir.Term {
		t.Errorf("%+v", got)
	}
	if list, _ := w.eventsAfter(h.Place, 10); len(list) != 2 {
		t.Errorf("told: %+v", list)
	}
	w.notes(heir, func(n *messages.WebhookNote) { n.Place += 1 << 30 })
	for _, x := range []struct {
		what   string
		change func() error
	}{
		{"moved by hand", func() error {
			_, err := w.Redeliver(w.ctx(), w.app, h.ID, messages.Redelivery{Since: w.now.Add(-time.Hour)})
			return err
		}},
		{"given another secret", func() error { return w.RotateWebhookSecret(w.ctx(), w.app, h.ID, []byte("x"), w.now) }},
		{"deleted", func() error { return w.DeleteWebhook(w.ctx(), w.app, h.ID) }},
	} {
		heir := w.takeHook(h)
		w.must(x.change())
		if w.notes(heir, func(*messages.WebhookNote) {}) {
			t.Errorf("a note counts after it was %s", x.what)
		}
	}
}

func disablingTold(t *testing.T, w *world) {
	h := w.hook()
	d := w.takeHook(h)
	disable := func(n *messages.WebhookNote) { n.Disable, n.LastError = messages.WebhookFailing, "answered 410" }
	if !w.notes(d, disable) || w.notes(d, disable) {
		t.Error("it is not disabled once")
	}
	got := w.hookOf(h.ID)
	if got.DisabledReason != messages.WebhookFailing || !got.DisabledAt.Equal(w.now) {
		t.Errorf("%+v", got)
	}
	list, _ := w.eventsAfter(h.Place, 10)
	want := fmt.Sprintf(`{"webhook_id":%q,"reason":"failing"}`, h.ID)
	if len(list) != 1 || list[0].Type != messages.WebhookDisabled || string(list[0].Data) != want {
		t.Errorf("told: %+v", list)
	}
}

func eventsAgain(t *testing.T, w *world) {
	h := w.hook()
	first := w.now.Add(-30 * time.Second)
	w.now = first
	w.happen(4)
	w.now = first.Add(30 * time.Second)
	w.happen(4)
	all, _ := w.eventsAfter(h.Place, 10)
	w.notes(w.takeHook(h), func(n *messages.WebhookNote) {
		n.Place = all[6].Seq
		n.Apart = []messages.WebhookRetry{{Place: all[2].Seq, Attempts: 4, FirstAt: first, NextAt: w.now.Add(time.Hour)}, {Place: all[5].Seq}}
	})
	term := w.hookOf(h.ID).Term
	again := func(event ident.Event, since time.Time) messages.Webhook {
		t.Helper()
		got, err := w.Redeliver(w.ctx(), w.app, h.ID, messages.Redelivery{Event: event, Since: since})
		w.must(err)
		return got
	}
	again(all[2].ID, time.Time{})
	if d := w.takeHook(h); len(d.Retries) != 2 || d.Retries[0].Attempts != 0 || d.Retries[0].NextAt.After(w.now) || d.Term != term+2 {
		t.Errorf("one that waits: %+v", d)
	}
	if got := again(all[4].ID, time.Time{}); got.Retrying != 3 || got.Place != all[6].Seq {
		t.Errorf("one that was taken: %+v", got)
	}
	if got := again(all[7].ID, time.Time{}); got.Retrying != 3 {
		t.Errorf("one that is still to come: %+v", got)
	}
	got := again("", w.now)
	if rest, _ := w.eventsAfter(got.Place, 10); len(rest) != 4 || rest[0].ID != all[4].ID || got.Retrying != 1 {
		t.Errorf("since then: %+v, %+v", got, rest)
	}
	got = again("", first.Add(-24*time.Hour))
	if rest, _ := w.eventsAfter(got.Place, 10); len(rest) != 8 || got.Retrying != 0 {
		t.Errorf("since ever: %+v, %+v", got, rest)
	}
	if later := again("", w.now.Add(time.Hour)); later.Place != got.Place {
		t.Errorf("since the future: %+v", later)
	}
	for _, id := range []ident.Event{ident.NewEvent(), "evt_"} {
		if _, err := w.Redeliver(w.ctx(), w.app, h.ID, messages.Redelivery{Event: id}); !isCode(err, "event_not_found") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func secretsReplaced(t *testing.T, w *world) {
	h := w.hook()
	w.must(w.RotateWebhookSecret(w.ctx(), w.app, h.ID, []byte("the second"), w.now.Add(time.Hour)))
	d, err := w.Webhook(w.ctx(), w.app, h.ID)
	w.must(err)
	now, later := d.Secrets.At(w.now), d.Secrets.At(w.now.Add(time.Hour))
	if len(now) != 2 || !bytes.Equal(now[0], []byte("the second")) || !bytes.Equal(now[1], []byte("the first secret")) || len(later) != 1 || !bytes.Equal(later[0], now[0]) {
		t.Errorf("%q, %q", now, later)
	}
	if taken := w.takeHook(h); !cmp.Equal(taken.Secrets, d.Secrets) {
		t.Error("who takes it has other secrets")
	}
	if text := fmt.Sprintf("%v %+v %#v", d.Secrets, d, d.Secrets); bytes.Contains([]byte(text), []byte("second")) || bytes.Contains([]byte(text), []byte("116 104 101")) {
		t.Errorf("a secret is printed: %s", text)
	}
}

func webhooksDeleted(t *testing.T, w *world) {
	h := w.hook()
	w.happen(2)
	d := w.takeHook(h)
	w.notes(d, func(n *messages.WebhookNote) { n.Apart = []messages.WebhookRetry{{Place: h.Place + 1}} })
	w.must(w.DeleteApp(w.ctx(), w.app))
	if list, err := w.Webhooks(w.ctx(), w.app); len(list) != 0 || err != nil {
		t.Errorf("left: %+v, %v", list, err)
	}
	if w.notes(d, func(*messages.WebhookNote) {}) {
		t.Error("a note counts for an app that is gone")
	}
}

func cleanSheet(t *testing.T, w *world) {
	h := w.hook()
	w.happen(2)
	broken := func(n *messages.WebhookNote) {
		n.FailingSince, n.Attempts, n.NextAt, n.LastError = w.now, 9, w.now.Add(time.Hour), "refused the connection"
		n.Apart = []messages.WebhookRetry{{Place: h.Place + 1, Attempts: 5, FirstAt: w.now, NextAt: w.now.Add(time.Hour)}}
		n.Disable = messages.WebhookFailing
	}
	w.notes(w.takeHook(h), broken)
	on, url := true, "https://example.com/other"
	for what, p := range map[string]messages.WebhookPatch{"enabled": {Enabled: &on}, "elsewhere": {URL: &url}} {
		if what == "elsewhere" {
			_, err := w.PatchWebhook(w.ctx(), w.app, h.ID, messages.WebhookPatch{Enabled: &on}, w.now)
			w.must(err)
			w.notes(w.takeHook(h), func(n *messages.WebhookNote) { broken(n); n.Disable = "" })
		}
		got, err := w.PatchWebhook(w.ctx(), w.app, h.ID, p, w.now)
		w.must(err)
		if !got.DisabledAt.IsZero() && what == "enabled" || !got.FailingSince.IsZero() || got.Attempts != 0 || !got.NextAt.IsZero() || got.Place != h.Place {
			t.Errorf("%s: %+v", what, got)
		}
		if d := w.takeHook(h); len(d.Retries) != 1 || d.Retries[0].Attempts != 0 || d.Retries[0].NextAt.After(w.now) {
			t.Errorf("%s: %+v", what, d.Retries)
		}
	}
}
