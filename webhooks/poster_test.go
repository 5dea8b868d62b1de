package webhooks_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// The receiver is down for an hour, then up: every event arrives, in order per device, and signed.
func TestAReceiverThatWasDownForAnHourMissesNothing(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r)
		var devices []ident.Device
		for range 5 {
			devices = append(devices, o.device())
		}
		o.happen(devices[0], 1)
		o.pass(time.Second)
		r.complete(t, o.events())
		r.set(func(r *receiver) { r.down = true })
		before := r.tried()
		for minute := range 60 {
			o.happen(devices[minute%5], 1+minute%3)
			o.pass(time.Minute)
		}
		if tried := r.tried() - before; tried < 8 || tried > 60 {
			t.Errorf("a receiver that was down for an hour was called %d times", tried)
		}
		h := o.webhook(id)
		if since := time.Since(h.FailingSince); since < 59*time.Minute || since > time.Hour || h.Attempts < 5 || h.NextAt.Before(time.Now()) || h.LastError == "" {
			t.Errorf("after an hour: %+v", h)
		}
		r.set(func(r *receiver) { r.down = false })
		o.pass(time.Until(h.NextAt) + 10*time.Second)
		r.complete(t, o.events())
		if n := len(r.got()); n != len(o.events()) {
			t.Errorf("%d events came in %d posts", len(o.events()), n)
		}
		if h := o.webhook(id); !h.FailingSince.IsZero() || h.Attempts != 0 || h.Retrying != 0 || time.Since(h.LastSuccessAt) > time.Minute {
			t.Errorf("afterwards: %+v", h)
		}
	})
}

// An event that is never taken delays its own device, for three days, and no other.
func TestAPoisonEventDelaysOnlyItsDevice(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r, "message.*")
		sick, well := o.device(), o.device()
		var first sync.Once
		var poison ident.Event
		r.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, _ *http.Request, e got) {
				if e.Data.Device != sick {
					return
				}
				if first.Do(func() { poison = e.ID }); e.ID == poison {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}
		})
		o.happen(sick, 3)
		for range 10 {
			o.happen(well, 2)
			o.pass(2 * time.Second)
		}
		if n := len(r.got()); n != 20 {
			t.Errorf("%d of the 20 events of the other device came", n)
		}
		for _, e := range r.got() {
			if e.Data.Device != well || time.Since(e.at) > 21*time.Second || e.at.Sub(e.CreatedAt) > time.Second {
				t.Errorf("%+v came at %v", e, e.at)
			}
		}
		if h := o.webhook(id); h.Retrying != 3 {
			t.Errorf("%d wait by themselves", h.Retrying)
		}
		o.happen(sick, 2)
		for range 3 {
			o.skip(25 * time.Hour)
			o.happen(well, 1)
			o.pass(time.Minute)
		}
		all := o.messages()
		r.complete(t, all[1:])
		if h := o.webhook(id); h.Retrying != 0 || !h.DisabledAt.IsZero() {
			t.Errorf("in the end: %+v", h)
		}
		if !strings.Contains(o.log.String(), "events were given up") {
			t.Errorf("nothing was said of what was given up: %s", o.log.String())
		}
	})
}

// messages are the app's events of messages.
func (o *office) messages() (list []messages.Event) {
	for _, e := range o.events() {
		if strings.HasPrefix(string(e.Type), "message.") {
			list = append(list, e)
		}
	}
	return list
}

// A lone event that is not taken does not keep others, which nobody has tried yet, from being posted.
func TestAPoisonEventInAQuietAppDelaysNoOther(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		o.hook(r, "message.*")
		sick, well := o.device(), o.device()
		r.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, _ *http.Request, e got) {
				if e.Data.Device == sick {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}
		})
		o.happen(sick, 150) // more than are held in memory
		o.pass(5 * time.Minute)
		o.skip(6 * time.Hour)
		o.pass(time.Minute)
		o.happen(well, 1)
		o.pass(time.Second)
		if list := r.got(); len(list) != 1 {
			t.Errorf("of the other device came %d", len(list))
		}
		r.set(func(r *receiver) { r.answer = nil })
		o.skip(12 * time.Hour)
		o.pass(time.Minute)
		r.complete(t, o.messages())
	})
}

func TestAWebhookThatTakesNothingIsDisabled(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		down, up := o.receiver(), o.receiver()
		id, _ := o.hook(down), o.hook(up, "webhook.disabled")
		down.set(func(r *receiver) { r.down = true })
		d := o.device()
		for range 5 {
			o.happen(d, 30)
			o.pass(time.Minute)
			o.skip(24*time.Hour - 2*time.Minute)
		}
		if h := o.webhook(id); !h.DisabledAt.IsZero() {
			t.Errorf("disabled too soon: %+v", h)
		}
		o.skip(2 * time.Hour)
		o.pass(time.Minute)
		h := o.webhook(id)
		if h.DisabledReason != messages.WebhookFailing || time.Since(h.DisabledAt) > 3*time.Hour || h.LastError == "" {
			t.Errorf("after 5 days: %+v", h)
		}
		told := up.got()
		if len(told) != 1 || told[0].Data.Hook != string(id) || told[0].Data.Reason != messages.WebhookFailing {
			t.Errorf("told: %+v", told)
		}
		before := down.tried()
		o.happen(d, 1)
		o.pass(10 * time.Minute)
		if n := down.tried() - before; n != 0 {
			t.Errorf("a disabled webhook was called %d times", n)
		}
		down.set(func(r *receiver) { r.down = false })
		on := true
		_, err := o.store.PatchWebhook(context.Background(), o.app, id, messages.WebhookPatch{Enabled: &on}, time.Now())
		must(t, err)
		o.pass(10 * time.Second)
		down.complete(t, o.events())
	})
}

func TestAReceiverThatIsGoneIsLeftAlone(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r)
		r.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, _ *http.Request, _ got) { w.WriteHeader(http.StatusGone) }
		})
		o.device()
		o.pass(3 * time.Second)
		if h := o.webhook(id); h.DisabledReason != messages.WebhookFailing || h.LastError != "answered 410" {
			t.Errorf("%+v", h)
		}
		o.device()
		o.pass(10 * time.Minute)
		if n := r.tried(); n != 1 {
			t.Errorf("called %d times", n)
		}
	})
}

func TestARetryAfterIsKept(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		r := o.receiver()
		id := o.hook(r)
		r.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, _ *http.Request, _ got) {
				w.Header().Set("Retry-After", "300")
				w.WriteHeader(http.StatusTooManyRequests)
			}
		})
		o.device()
		o.pass(5 * time.Second)
		for range 10 {
			o.device()
			o.pass(20 * time.Second)
		}
		if n := r.tried(); n != 1 {
			t.Errorf("a receiver that wanted 5 minutes was called %d times", n)
		}
		r.set(func(r *receiver) { r.answer = nil })
		o.pass(2 * time.Minute)
		r.complete(t, o.events())
		if h := o.webhook(id); h.Retrying != 0 {
			t.Errorf("%+v", h)
		}
	})
}

// A receiver that answers nothing holds up nobody else's events, not even in the same app.
func TestAReceiverThatHangsDelaysNoOther(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		hangs, well := o.receiver(), o.receiver()
		for range messages.MaxWebhooks - 1 {
			o.hook(hangs, "message.*")
		}
		o.hook(well, "message.*")
		hangs.set(func(r *receiver) {
			r.answer = func(_ http.ResponseWriter, q *http.Request, _ got) { <-q.Context().Done() }
			r.shared = true
		})
		for range 20 {
			o.happen(o.device(), 1)
			o.pass(100 * time.Millisecond)
		}
		o.pass(time.Second)
		well.complete(t, o.messages())
		for _, e := range well.got() {
			if e.at.Sub(e.CreatedAt) > time.Second {
				t.Errorf("%s came after %v", e.ID, e.at.Sub(e.CreatedAt))
			}
		}
		o.pass(20 * time.Second) // what hangs is cut off
	})
}

// An app whose receivers hang holds its share of posts, and what each webhook may have besides.
func TestAnAppHasItsShareOfPosts(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		hangs := o.receiver()
		for range messages.MaxWebhooks {
			o.hook(hangs, "message.*")
		}
		hangs.set(func(r *receiver) { r.shared = true })
		var devices []ident.Device
		for range 20 {
			devices = append(devices, o.device())
			o.happen(devices[len(devices)-1], 1)
		}
		o.pass(5 * time.Second) // which each takes, so that it is given more at a time
		var posts atomic.Int64
		hangs.set(func(r *receiver) {
			r.answer = func(_ http.ResponseWriter, q *http.Request, _ got) {
				posts.Add(1)
				<-q.Context().Done()
			}
		})
		for _, d := range devices {
			o.happen(d, 1)
		}
		o.pass(5 * time.Second)
		if n := posts.Load(); n < 128 || n > 128+messages.MaxWebhooks {
			t.Errorf("%d posts are under way to %d webhooks of one app", n, messages.MaxWebhooks)
		}
		o.pass(20 * time.Second) // what hangs is cut off
	})
}

func TestSlowAnswersAreCutOff(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		head, body := o.receiver(), o.receiver()
		first, second := o.hook(head), o.hook(body)
		drip := func(w http.ResponseWriter, status int, q *http.Request) {
			w.WriteHeader(status)
			for q.Context().Err() == nil {
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(time.Second):
				case <-q.Context().Done():
				}
			}
		}
		head.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, q *http.Request, _ got) { // heads that do not end
				for q.Context().Err() == nil {
					w.WriteHeader(http.StatusProcessing)
					select {
					case <-time.After(time.Second):
					case <-q.Context().Done():
					}
				}
			}
		})
		body.set(func(r *receiver) {
			r.answer = func(w http.ResponseWriter, q *http.Request, _ got) { drip(w, http.StatusOK, q) }
		})
		o.device()
		o.pass(4 * time.Second)
		if h := o.webhook(second); h.LastSuccessAt.IsZero() || !h.FailingSince.IsZero() {
			t.Errorf("an answer without an end: %+v", h)
		}
		o.pass(13 * time.Second)
		if h := o.webhook(first); h.FailingSince.IsZero() || !strings.HasPrefix(h.LastError, "did not answer within 15 s") && h.LastError != "the connection failed" {
			t.Errorf("heads without an end: %+v", h)
		}
	})
}
