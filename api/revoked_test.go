package api_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rouse/api"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// ended waits for the answer of a poll that must not be served.
func (x waiting) ended(t *testing.T, status int, code string) {
	t.Helper()
	select {
	case a := <-x.answer:
		a.refused(status, code)
	case <-time.After(20 * time.Second):
		t.Fatal("the poll hangs")
	}
}

// TestPollEndsWithItsKey: the backend registers the installation anew, and the poll with the old key reads no more.
func TestPollEndsWithItsKey(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app := w.newApp()
	p := w.register(app.pk, iphone("one"))
	x := w.wait(p, "wait=55")
	a := w.do(call{"POST", "/v1/devices", app.sk, iphone("one"), nil}).want(200)
	x.ended(t, 401, "unknown_key")
	w.heard.until(t, messages.HintIdle, 0)
	w.send(app, p, "secret")
	page := w.inbox(phone{p.id, a.text("secret")}, "")
	if len(page.Messages) != 1 || page.Messages[0].Attempt != 1 {
		t.Errorf("the new key reads %+v", page)
	}
}

// TestPollWithARevokedKeyReadsNothing: nobody told this server that the key was replaced; the message finds the poll, and
// the poll finds out.
func TestPollWithARevokedKeyReadsNothing(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	x := w.wait(p, "wait=55")
	secret := tokens.MintKey(tokens.DeviceKey, strings.TrimPrefix(p.id, ident.DevicePrefix))
	if err := w.store.RotateSecret(t.Context(), ident.Device(p.id), tokens.HashOf(secret), time.Now()); err != nil {
		t.Fatal(err)
	}
	w.store.ConfirmSecret(ident.Device(p.id), tokens.HashOf(secret))
	w.send(app, p, "secret")
	x.ended(t, 401, "unknown_key")
	if n := w.heard.count(messages.HintServed); n != 0 {
		t.Errorf("served %d times", n)
	}
	if page := w.inbox(phone{p.id, string(secret)}, ""); len(page.Messages) != 1 || page.Messages[0].Attempt != 1 {
		t.Errorf("the new key reads %+v", page)
	}
}

// TestPollOutlivesARotation until the new key is used: the answer with the new key may have been lost.
func TestPollOutlivesARotation(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	rotate := func() string {
		return w.do(call{"POST", "/v1/device/rotate-secret", p.key, nil, nil}).want(200).text("secret")
	}
	x := w.wait(p, "wait=55")
	rotate()
	w.send(app, p, 1)
	page, _ := x.page(t)
	if len(page.Messages) != 1 {
		t.Errorf("got %+v", page)
	}
	x = w.wait(p, "wait=55&ack="+page.Cursor)
	w.do(call{"GET", "/v1/device", rotate(), nil, nil}).want(200)
	w.send(app, p, 2)
	x.ended(t, 401, "unknown_key")
}

func TestPollEndsWithItsApp(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app := w.newApp()
	x := w.wait(w.newPhone(app), "wait=55")
	other := w.newApp()
	p := w.newPhone(other)
	y := w.wait(p, "wait=55")
	w.do(call{"DELETE", "/v1/apps/" + app.id, adminKey, nil, nil}).want(204)
	x.ended(t, 401, "unknown_key")
	w.send(other, p, 1)
	if page, _ := y.page(t); len(page.Messages) != 1 {
		t.Errorf("another app's poll got %+v", page)
	}
}

// TestPollEndsWithoutAHint: its key, its device or its app ended on another node, and nobody said so. The slow timer finds out;
// a poll that has nothing to say goes on waiting.
func TestPollEndsWithoutAHint(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: 50 * time.Millisecond}}.start(t)
	app, other := w.newApp(), w.newApp()
	replaced, gone, orphan, kept := w.newPhone(app), w.newPhone(app), w.newPhone(other), w.newPhone(app)
	x, y, z, quiet := w.wait(replaced, "wait=55"), w.wait(gone, "wait=55"), w.wait(orphan, "wait=55"), w.wait(kept, "wait=55")
	secret := tokens.MintKey(tokens.DeviceKey, strings.TrimPrefix(replaced.id, ident.DevicePrefix))
	if err := errors.Join(
		w.store.RotateSecret(t.Context(), ident.Device(replaced.id), tokens.HashOf(secret), time.Now()),
		w.store.Unregister(t.Context(), ident.App(app.id), ident.Device(gone.id), time.Now()),
		w.store.DeleteApp(t.Context(), ident.App(other.id)),
	); err != nil {
		t.Fatal(err)
	}
	w.store.ConfirmSecret(ident.Device(replaced.id), tokens.HashOf(secret))
	x.ended(t, 401, "unknown_key")
	y.ended(t, 410, "device_unregistered")
	z.ended(t, 401, "unknown_key")
	if len(quiet.answer) != 0 || api.Waiting(w.api) != 1 {
		t.Error("a poll ended that had nothing to say")
	}
}

// TestOnlyTheKeysHolderIsToldOfTheEnd: the id of an unregistered device is no secret, and its key is asked for all the same.
func TestOnlyTheKeysHolderIsToldOfTheEnd(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{FailedAuth: api.Rate{PerSecond: 0.01, Burst: 1}}}.start(t)
	p := w.newPhone(w.newApp())
	forged := string(tokens.MintKey(tokens.DeviceKey, strings.TrimPrefix(p.id, ident.DevicePrefix)))
	w.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).refused(410, "device_unregistered")
	w.do(call{"GET", "/v1/device", forged, nil, nil}).refused(401, "unknown_key")
	w.do(call{"GET", "/v1/device", forged, nil, nil}).refused(429, "rate_limited")
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).refused(410, "device_unregistered")
}

// slowDoor lets something happen once between a key's check and the call.
type slowDoor struct {
	api.Door
	meanwhile atomic.Pointer[func()]
}

func (d *slowDoor) DeviceAuth(ctx context.Context, id ident.Device) (tokens.Device, tokens.Hash, tokens.Hash, error) {
	device, current, previous, err := d.Door.DeviceAuth(ctx, id)
	if f := d.meanwhile.Swap(nil); f != nil {
		(*f)()
	}
	return device, current, previous, err
}

// TestAppDeletedDuringTheCall: the key was good when it was checked. What the caller gets is what it would have
// got a moment later.
func TestAppDeletedDuringTheCall(t *testing.T) {
	t.Parallel()
	door := &slowDoor{}
	w := setup{door: func(d api.Door) api.Door { door.Door = d; return door }}.start(t)
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"PATCH", "/v1/device", obj{"locale": "de"}},
		{"DELETE", "/v1/device", nil},
		{"POST", "/v1/device/rotate-secret", nil},
		{"POST", "/v1/devices", iphone("one")},
		{"POST", "/v1/inbox/acks", obj{"ids": []string{"msg_00000000000000000000000000"}}},
		{"POST", "/v1/inbox/acks", obj{"up_to": "CURSOR"}},
		{"GET", "/v1/inbox", nil},
		{"GET", "/v1/inbox?wait=55", nil},
		{"GET", "/v1/inbox?ack=CURSOR", nil},
	} {
		app := w.newApp()
		p := w.register(app.pk, iphone("one"))
		cursor := w.inbox(p, "").Cursor
		if body, ok := c.body.(obj); ok && body["up_to"] != nil {
			body["up_to"] = cursor
		}
		erase := func() {
			if err := w.store.DeleteApp(t.Context(), ident.App(app.id)); err != nil {
				t.Error(err)
			}
		}
		door.meanwhile.Store(&erase)
		a := w.do(call{c.method, strings.ReplaceAll(c.path, "CURSOR", cursor), p.key, c.body, nil})
		if a.status != 401 || a.problem().Code != "unknown_key" {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
	}
}

// TestAppDeletedElsewhere: the app's keys are still in this server's cache.
func TestAppDeletedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.register(app.pk, iphone("one"))
	w.register(app.sk, iphone("two"))
	if err := w.store.DeleteApp(t.Context(), ident.App(app.id)); err != nil {
		t.Fatal(err)
	}
	w.do(call{"POST", "/v1/devices", app.pk, iphone("three"), nil}).refused(401, "unknown_key")
	w.do(call{"POST", "/v1/devices", app.sk, iphone("four"), nil}).refused(401, "unknown_key")
	// What is asked about, and is not the caller, stays not found.
	w.do(call{"PUT", "/v1/users/anna/devices/dev_00000000000000000000000000", w.newApp().sk, nil, nil}).refused(404, "device_not_found")
}
