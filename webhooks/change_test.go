package webhooks_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/webhooks"
)

// Secrets that are replaced while events flow: both sign until the overlap ends, and then one.
func TestASecretIsReplacedWhileEventsFlow(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r)
		d := o.device()
		o.pass(time.Second)
		first, second := r.secrets[0], []byte("another secret of some 30 bytes.")
		must(t, o.store.RotateWebhookSecret(context.Background(), o.app, id, second, time.Now().Add(time.Hour)))
		o.bus.Hint(messages.Hint{Kind: messages.HintEvents, App: o.app})
		o.pass(2 * time.Second)
		r.set(func(r *receiver) { r.secrets = [][]byte{first, second} })
		o.happen(d, 2)
		o.pass(time.Hour)
		r.set(func(r *receiver) { r.secrets = [][]byte{second} })
		var signatures string
		r.set(func(r *receiver) {
			r.answer = func(_ http.ResponseWriter, q *http.Request, _ got) { signatures = q.Header.Get("webhook-signature") }
		})
		o.happen(d, 1)
		o.pass(time.Second)
		r.complete(t, o.events())
		if strings.Count(signatures, "v1,") != 1 {
			t.Errorf("signatures after the overlap: %q", signatures)
		}
	})
}

// What a backend changes is so within seconds, told or not.
func TestAChangeIsKnownWithinSeconds(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		old, next := o.receiver(), o.receiver()
		id := o.hook(old)
		d := o.device()
		o.pass(time.Second)
		old.complete(t, o.events())
		patch := func(p messages.WebhookPatch) {
			t.Helper()
			_, err := o.store.PatchWebhook(context.Background(), o.app, id, p, time.Now())
			must(t, err)
			o.pass(3 * time.Second)
		}
		url, off, on := "http://"+next.address+"/", false, true
		next.secrets = old.secrets
		patch(messages.WebhookPatch{URL: &url})
		o.happen(d, 1)
		o.pass(time.Second)
		next.complete(t, o.messages())
		patch(messages.WebhookPatch{Enabled: &off})
		o.happen(d, 2)
		o.pass(time.Minute)
		if n := len(next.got()); n != 1 {
			t.Errorf("a webhook that is off got %d", n-1)
		}
		patch(messages.WebhookPatch{Enabled: &on})
		next.complete(t, o.messages())
		patch(messages.WebhookPatch{Events: &messages.EventFilter{"device.registered"}})
		o.happen(d, 1)
		other := o.device()
		o.pass(time.Second)
		if list := next.got(); len(list) != 4 || list[3].Data.Device != other {
			t.Errorf("after another choice: %+v", list)
		}
		must(t, o.store.DeleteWebhook(context.Background(), o.app, id))
		o.pass(3 * time.Second)
		o.device()
		o.pass(time.Minute)
		if n := len(next.got()); n != 4 {
			t.Errorf("a webhook that is gone got %d", n-4)
		}
	})
}

func TestEventsAreDeliveredAgain(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r, "message.*")
		d := o.device()
		o.happen(d, 2)
		o.pass(time.Hour)
		since := time.Now()
		o.happen(d, 3)
		o.pass(time.Hour)
		all := o.messages()
		r.complete(t, all)
		r.set(func(r *receiver) { r.taken = nil })
		_, err := o.store.Redeliver(context.Background(), o.app, id, messages.Redelivery{Since: since})
		must(t, err)
		o.pass(5 * time.Second)
		r.complete(t, all[2:])
		if n := len(r.got()); n != 3 {
			t.Errorf("%d of 3 since a time", n)
		}
	})
}

func TestATestPost(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r)
		try := func() messages.WebhookTested {
			t.Helper()
			got, err := o.poster.Test(context.Background(), o.app, id)
			must(t, err)
			return got
		}
		if got := try(); !got.OK || got.Status != 200 || got.Error != "" {
			t.Errorf("%+v", got)
		}
		if list := r.got(); len(list) != 1 || list[0].Type != messages.WebhookTest || list[0].Data.Hook != string(id) {
			t.Errorf("came: %+v", list)
		}
		r.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, _ *http.Request, _ got) {
				w.Header().Set("Location", "http://10.0.0.77/secret")
				w.WriteHeader(http.StatusFound)
			}
		})
		if got := try(); got.OK || got.Status != 302 || !strings.Contains(got.Error, "redirect") || strings.Contains(got.Error, "77") {
			t.Errorf("%+v", got)
		}
		r.set(func(r *receiver) { r.down = true })
		if got := try(); got.OK || got.Status != 0 || got.Error != "the connection failed" {
			t.Errorf("%+v", got)
		}
		if _, err := o.poster.Test(context.Background(), ident.NewApp(), id); err == nil {
			t.Error("another app's webhook was tested")
		}
	})
}

// stubborn is a store that from some moment on loses what is noted, as a process that dies does.
type stubborn struct {
	webhooks.Store
	dead atomic.Bool
}

func (s *stubborn) NotePosts(ctx context.Context, n messages.WebhookNote) (bool, error) {
	if s.dead.Load() {
		return false, context.Canceled
	}
	return s.Store.NotePosts(ctx, n)
}

// A process that dies in the middle: what it had not written down comes again, nothing is missing, and the order is kept.
func TestACrashLosesNothing(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		o.stop()
		r := o.receiver()
		o.hook(r)
		var devices []ident.Device
		for range 4 {
			devices = append(devices, o.device())
		}
		for i := range 80 {
			o.happen(devices[i%4], 1)
		}
		r.set(func(r *receiver) {
			var tries atomic.Int64
			r.answer = func(w http.ResponseWriter, _ *http.Request, _ got) {
				if tries.Add(1)%7 == 0 {
					w.WriteHeader(http.StatusBadGateway)
				}
				<-time.After(200 * time.Millisecond)
			}
		})
		for range 3 {
			s := &stubborn{Store: o.store}
			o.start(func(p *webhooks.Options) { p.Store = s })
			o.pass(900 * time.Millisecond)
			s.dead.Store(true)
			o.pass(300 * time.Millisecond)
			o.stop()
			o.close()
			o.open()
		}
		if n := len(r.ids()); n == 0 || n == 84 {
			t.Fatalf("%d events came before the crashes: nothing is shown", n)
		}
		r.set(func(r *receiver) { r.answer = nil })
		o.start()
		o.pass(10 * time.Minute)
		r.complete(t, o.events())
	})
}

// Who was taken for dead and goes on writes nothing down any more.
func TestALateNoteDoesNotCount(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		o.stop()
		r := o.receiver()
		id := o.hook(r)
		o.device()
		ctx := context.Background()
		frozen, err := o.store.TakeWebhook(ctx, o.app, id)
		must(t, err)
		heir, err := o.store.TakeWebhook(ctx, o.app, id)
		must(t, err)
		ok, err := o.store.NotePosts(ctx, messages.WebhookNote{ID: id, App: o.app, Term: frozen.Term, Place: heir.Place + 1, Disable: messages.WebhookFailing, Now: time.Now()})
		if ok || err != nil {
			t.Errorf("a late note: %t, %v", ok, err)
		}
		ok, err = o.store.NotePosts(ctx, messages.WebhookNote{ID: id, App: o.app, Term: heir.Term, Place: heir.Place - 1, Now: time.Now()})
		if h := o.webhook(id); !ok || err != nil || h.Place != heir.Place || !h.DisabledAt.IsZero() {
			t.Errorf("a place went back: %t, %v, %+v", ok, err, h)
		}
		o.start()
		synctest.Wait()
	})
}

// swollen is a store one of whose events is too large to be posted.
type swollen struct{ webhooks.Store }

func (s swollen) EventPage(ctx context.Context, q messages.EventQuery) (messages.EventPage, error) {
	page, err := s.Store.EventPage(ctx, q)
	for i := range page.Events {
		if page.Events[i].Type == messages.DeviceRegistered {
			page.Events[i].Data = []byte(`{"device_id":"` + strings.Repeat("x", messages.MaxPost) + `"}`)
		}
	}
	return page, err
}

func TestAnEventThatIsTooLargeIsPassedOver(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		o.stop()
		o.start(func(p *webhooks.Options) { p.Store = swollen{o.store} })
		r := o.receiver()
		o.hook(r)
		d := o.device()
		o.happen(d, 2)
		o.pass(2 * time.Second)
		r.complete(t, o.messages())
		if !strings.Contains(o.log.String(), "cannot be posted") {
			t.Error(o.log.String())
		}
	})
}

// TestTestsHoldUpNobody has more tests than there may be wait for a receiver that hangs: those beyond are refused at once.
func TestTestsHoldUpNobody(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r)
		r.set(func(r *receiver) {
			r.answer = func(_ http.ResponseWriter, q *http.Request, _ got) { <-q.Context().Done() }
		})
		begun := time.Now()
		var refused, hung atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				got, err := o.poster.Test(context.Background(), o.app, id)
				switch {
				case err != nil && fault.From(err).Code == "overloaded" && time.Since(begun) == 0:
					refused.Add(1)
				case err == nil && !got.OK && time.Since(begun) == 15*time.Second:
					hung.Add(1)
				}
			})
		}
		all.Wait()
		if refused.Load() != 36 || hung.Load() != 64 {
			t.Errorf("%d refused, %d hung", refused.Load(), hung.Load())
		}
	})
}
