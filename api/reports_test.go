package api_test

import (
	"testing"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

func (w *world) report(p phone, priority, original string) {
	w.t.Helper()
	w.do(call{"POST", "/v1/device/push-reports", p.key, obj{"priority": priority, "original_priority": original, "sent_by": "a newer app"}, nil}).want(204)
}

// demotedAt is when the phone last told of a demoted push, as it reads of itself.
func (w *world) demotedAt(p phone) *time.Time {
	w.t.Helper()
	var d device
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200).into(&d)
	return d.PushDemotedAt
}

// demotions is how many reports count.
func (w *world) demotions(of tenant, p phone) int {
	w.t.Helper()
	d, err := w.store.Device(w.t.Context(), ident.App(of.id), ident.Device(p.id))
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Demotions
}

// age makes the phone's last report older, as a clock would.
func (w *world) age(p phone, by time.Duration) {
	w.t.Helper()
	if err := w.store.NotePush(w.t.Context(), ident.Device(p.id), true, time.Now().Add(-by)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) android(app tenant) phone {
	w.t.Helper()
	return w.register(app.pk, obj{"installation_id": unique("android"), "platform": "android", "provider": "fcm", "token": unique(googleToken)})
}

func TestDemotedPushIsNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p, other := w.android(app), w.android(app)
	for _, x := range []struct{ priority, original string }{{"high", "high"}, {"normal", "normal"}, {"high", "normal"}, {"unknown", "high"}, {"normal", "unknown"}} {
		if w.report(p, x.priority, x.original); w.demotedAt(p) != nil {
			t.Fatalf("%+v counts as demoted", x)
		}
	}
	begun := time.Now().Truncate(time.Millisecond)
	w.report(p, "normal", "high")
	if at := w.demotedAt(p); at == nil || at.Before(begun) || time.Since(*at) > time.Minute {
		t.Errorf("reported just now, and noted %v", at)
	}
	w.report(p, "normal", "high")
	if n := w.demotions(app, p); n != 1 {
		t.Errorf("two reports of one demotion count %d", n)
	}
	w.age(p, 2*time.Minute)
	w.report(p, "normal", "high")
	if n := w.demotions(app, p); n != 3 {
		t.Errorf("%d demotions count, want 3", n)
	}
	if at := w.demotedAt(other); at != nil {
		t.Errorf("another phone has it too: %v", at)
	}
	for _, x := range []struct{ priority, original string }{{"high", "normal"}, {"high", "unknown"}, {"unknown", "high"}} {
		if w.report(p, x.priority, x.original); w.demotedAt(p) == nil {
			t.Errorf("%+v ended it, and proves nothing", x)
		}
	}
	w.report(p, "high", "high")
	if at := w.demotedAt(p); at != nil || w.demotions(app, p) != 0 {
		t.Errorf("a push of high priority that arrived as such did not end it: %v", at)
	}
	w.age(p, tokens.DemotionLife)
	if at := w.demotedAt(p); at != nil {
		t.Errorf("it still counts after a week: %v", at)
	}
}

// TestReportsOfOthersAreIgnored: only Google demotes.
func TestReportsOfOthersAreIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	for _, p := range []phone{w.newPhone(app), w.register(app.pk, iphone("one"))} {
		w.report(p, "normal", "high")
		if at := w.demotedAt(p); at != nil || w.demotions(app, p) != 0 {
			t.Errorf("noted %v", at)
		}
	}
}

func TestBadReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.android(app)
	for name, c := range map[string]struct {
		body    any
		status  int
		code    string
		pointer string
	}{
		"nothing":         {obj{}, 422, "invalid_body", "/priority"},
		"half":            {obj{"priority": "high"}, 422, "invalid_body", "/original_priority"},
		"other word":      {obj{"priority": "urgent", "original_priority": "high"}, 422, "invalid_body", "/priority"},
		"Google's number": {obj{"priority": 1, "original_priority": "high"}, 422, "invalid_body", "/priority"},
		"null":            {obj{"priority": nil, "original_priority": "high"}, 422, "invalid_body", "/priority"},
		"list":            {"[]", 422, "invalid_body", ""},
		"no JSON":         {"priority=high", 400, "malformed_json", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(call{"POST", "/v1/device/push-reports", p.key, c.body, nil}).refused(c.status, c.code)
			if c.pointer != "-" {
				a.points(c.pointer)
			}
		})
	}
	w.do(call{"POST", "/v1/device/push-reports", p.key, "{}", map[string]string{"Content-Type": "text/plain"}}).refused(415, "unsupported_media_type")
	w.do(call{"GET", "/v1/device/push-reports", p.key, nil, nil}).refused(405, "method_not_allowed")
	w.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
	w.do(call{"POST", "/v1/device/push-reports", p.key, obj{"priority": "normal", "original_priority": "high"}, nil}).refused(410, "device_unregistered")
}
