package store_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

type (
	storeOptions = store.Options
	storeT       = store.Store
)

// mustNotHold reads the database's files for a secret.
func mustNotHold(t *testing.T, dsn, secret string) {
	t.Helper()
	path := strings.TrimPrefix(dsn, "sqlite:")
	for _, file := range []string{path, path + "-wal"} {
		b, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(b), secret) {
			t.Errorf("%s lies in clear in %s", secret, file)
		}
	}
}

var deviceTests = map[string]func(*testing.T, *world){
	"a device is registered and read back":                  deviceRegistered,
	"a known installation is registered by who may":         deviceReregistered,
	"a rotated secret leaves the old one until it is used":  secretRotated,
	"an unregistered device is gone and drops what it had":  deviceUnregistered,
	"a device is bound to one user":                         deviceBound,
	"another app's device is unknown":                       deviceForeign,
	"a contact is noted, at most once in a while":           deviceContact,
	"push tokens are sealed":                                tokenSealed,
	"a patch is checked against the provider of the moment": patchChecked,
	"a user has a bounded number of devices":                usersBounded,
}

func enrol(app ident.App, change func(*tokens.Enrol)) tokens.Enrol {
	e := tokens.Enrol{Registration: tokens.Registration{App: app, Installation: "inst-1", Platform: tokens.IOS, Provider: tokens.APNs,
		Environment: tokens.Production, Token: "aabbccddeeff00112233", AppVersion: "1.2", Locale: "de-CH"},
		As: tokens.PublishableKey, ID: ident.NewDevice(), Secret: tokens.HashOf("first"), Now: time.Now().Truncate(time.Millisecond).UTC()}
	if change != nil {
		change(&e)
	}
	return e
}

func deviceRegistered(t *testing.T, w *world) {
	e := enrol(w.app, nil)
	d, created, err := w.Register(w.ctx(), e)
	w.must(err)
	want := tokens.Device{ID: e.ID, App: w.app, Installation: "inst-1", Platform: tokens.IOS, Provider: tokens.APNs,
		Environment: tokens.Production, Token: e.Token, TokenState: tokens.TokenActive, Generation: 1, RegisteredAt: e.Now,
		AppVersion: "1.2", Locale: "de-CH", CreatedAt: e.Now, LastContact: e.Now}
	if diff := cmp.Diff(want, d); diff != "" || !created {
		t.Error(created, diff)
	}
	got, err := w.Device(w.ctx(), w.app, d.ID)
	w.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	want.Token = "" // no request needs it
	got, current, previous, err := w.DeviceAuth(w.ctx(), d.ID)
	w.must(err)
	if diff := cmp.Diff(want, got); diff != "" || current != e.Secret || previous != (tokens.Hash{}) {
		t.Error(diff, current, previous)
	}
	_, _, _, err = w.DeviceAuth(w.ctx(), ident.NewDevice())
	w.refused(err, fault.Unauthenticated, "unknown_key")
	poller, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
		e.Installation, e.Provider, e.Environment, e.Token = "inst-2", tokens.NoProvider, "", ""
	}))
	w.must(err)
	if poller.TokenState != tokens.TokenNone {
		t.Errorf("a device without a token is %s", poller.TokenState)
	}
}

func deviceReregistered(t *testing.T, w *world) {
	d, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	_, _, err = w.Register(w.ctx(), enrol(w.app, nil))
	w.refused(err, fault.Conflict, "installation_exists")

	again, created, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
		e.As, e.Token, e.Secret = tokens.SecretKey, "11223344556677889900", tokens.HashOf("second")
	}))
	w.must(err)
	if created || again.ID != d.ID || again.Token != "11223344556677889900" || again.Generation != 2 {
		t.Errorf("with sk: %+v, created %t", again, created)
	}
	if _, current, previous, err := w.DeviceAuth(w.ctx(), d.ID); err != nil || current != tokens.HashOf("second") || previous != (tokens.Hash{}) {
		t.Errorf("with sk the secret is %v, %v, %v", current, previous, err)
	}
	own, created, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
		e.As, e.Device, e.Token, e.Secret, e.AppVersion = tokens.DeviceKey, d.ID, "", tokens.HashOf("third"), "2.0"
	}))
	w.must(err)
	if created || own.ID != d.ID || own.AppVersion != "2.0" || own.Token != "11223344556677889900" || own.Generation != 2 {
		t.Errorf("with its own key: %+v, created %t", own, created)
	}
	if _, current, _, err := w.DeviceAuth(w.ctx(), d.ID); err != nil || current != tokens.HashOf("second") {
		t.Errorf("its own key changed the secret: %v, %v", current, err)
	}
	for _, installation := range []string{"inst-1", "inst-unknown"} {
		_, _, err = w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
			e.As, e.Device, e.Installation = tokens.DeviceKey, ident.NewDevice(), installation
		}))
		w.refused(err, fault.Forbidden, "not_this_device")
	}
}

func secretRotated(t *testing.T, w *world) {
	d, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	secrets := func(current, previous tokens.Secret) {
		t.Helper()
		want := tokens.Hash{}
		if previous != "" {
			want = tokens.HashOf(previous)
		}
		if _, c, p, err := w.DeviceAuth(w.ctx(), d.ID); err != nil || c != tokens.HashOf(current) || p != want {
			t.Errorf("want %q after %q, err %v", string(current), string(previous), err)
		}
	}
	w.must(w.RotateSecret(w.ctx(), d.ID, tokens.HashOf("lost in the post"), w.now))
	secrets("lost in the post", "first")
	w.must(w.RotateSecret(w.ctx(), d.ID, tokens.HashOf("second"), w.now))
	secrets("second", "first") // the one the client still has
	w.ConfirmSecret(d.ID, tokens.HashOf("lost in the post"))
	w.ConfirmSecret(d.ID, tokens.HashOf("second"))
	w.must(w.RotateSecret(w.ctx(), d.ID, tokens.HashOf("third"), w.now))
	secrets("third", "second")
	w.refused(w.RotateSecret(w.ctx(), ident.NewDevice(), tokens.HashOf("x"), w.now), fault.NotFound, "device_not_found")
}

func deviceUnregistered(t *testing.T, w *world) {
	d, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	r := w.accept(d.ID)
	w.must(w.Unregister(w.ctx(), w.app, d.ID, w.now))
	w.must(w.Unregister(w.ctx(), w.app, d.ID, w.now))
	w.is(r.ID, messages.Dropped)
	_, _, _, err = w.DeviceAuth(w.ctx(), d.ID)
	w.refused(err, fault.Gone, "device_unregistered")
	_, err = w.Device(w.ctx(), w.app, d.ID)
	w.refused(err, fault.NotFound, "device_not_found")
	_, err = w.PatchDevice(w.ctx(), d.ID, tokens.Patch{}, w.now)
	w.refused(err, fault.Gone, "device_unregistered")
	_, err = w.Inbox(w.ctx(), messages.Query{Device: d.ID, Limit: 1, Now: w.now})
	w.refused(err, fault.Gone, "device_unregistered")
	_, err = w.Accept(w.ctx(), w.send(d.ID))
	w.refused(err, fault.Invalid, "device_unregistered", "/to/device_id")
	if waiting, dev, err := w.Waiting(w.ctx(), d.ID, w.now); err != nil || waiting.Head.Max() != 0 || dev.Token != "" || dev.UnregisteredAt.IsZero() {
		t.Errorf("waiting for it: %+v, %+v, %v", waiting, dev, err)
	}
	next, created, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	if !created || next.ID == d.ID || next.TokenState != tokens.TokenActive {
		t.Errorf("the installation registers again as %+v", next)
	}
	w.refused(w.Unregister(w.ctx(), testkit.App(t, w.Store).ID, next.ID, w.now), fault.NotFound, "device_not_found")
	w.refused(w.Unregister(w.ctx(), w.app, ident.NewDevice(), w.now), fault.NotFound, "device_not_found")
}

func deviceBound(t *testing.T, w *world) {
	d := w.device()
	bound := func(want string) {
		t.Helper()
		if got, err := w.Device(w.ctx(), w.app, d); err != nil || got.User != want {
			t.Errorf("bound to %q, want %q; %v", got.User, want, err)
		}
	}
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	bound("anna")
	w.must(w.BindUser(w.ctx(), w.app, "bert", d, w.now))
	bound("bert")
	w.must(w.UnbindUser(w.ctx(), w.app, "anna", d, w.now))
	bound("bert")
	w.must(w.UnbindUser(w.ctx(), w.app, "bert", d, w.now))
	bound("")
	w.refused(w.BindUser(w.ctx(), w.app, "anna", unknownDevice(), w.now), fault.NotFound, "device_not_found")
	w.must(w.Unregister(w.ctx(), w.app, d, w.now))
	w.refused(w.BindUser(w.ctx(), w.app, "anna", d, w.now), fault.NotFound, "device_not_found")
}

func deviceForeign(t *testing.T, w *world) {
	d, other := w.device(), testkit.App(t, w.Store).ID
	_, err := w.Device(w.ctx(), other, d)
	w.refused(err, fault.NotFound, "device_not_found")
	w.refused(w.BindUser(w.ctx(), other, "anna", d, w.now), fault.NotFound, "device_not_found")
	w.refused(w.UnbindUser(w.ctx(), other, "anna", d, w.now), fault.NotFound, "device_not_found")
	m := w.send(d)
	m.App = other
	_, err = w.Accept(w.ctx(), m)
	w.refused(err, fault.Invalid, "device_not_found", "/to/device_id")
}

func deviceContact(t *testing.T, w *world) {
	d := w.device()
	contact := func(at, want time.Time) {
		t.Helper()
		w.Contact(d, at)
		eventually(t, func() bool {
			got, err := w.Device(w.ctx(), w.app, d)
			return err == nil && got.LastContact.Equal(want)
		})
	}
	first := w.now.Add(time.Hour)
	contact(first, first)
	contact(first.Add(time.Minute), first)
	contact(first.Add(6*time.Minute), first.Add(6*time.Minute))
}

func tokenSealed(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "aabbccddeeff00112233") }) })
	_, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
}

func patchChecked(t *testing.T, w *world) {
	d, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	sandbox, none := tokens.Sandbox, tokens.Token("")
	_, err = w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Environment: &sandbox}, w.now)
	w.refused(err, fault.Invalid, "invalid_registration")
	if got, err := w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Token: &none}, w.now); err != nil || got.TokenState != tokens.TokenNone {
		t.Errorf("without its token: %+v, %v", got, err)
	}
	// Registered again without a provider while the patch was on its way: a token has no place there.
	e := enrol(w.app, nil)
	e.As, e.Device, e.Installation = tokens.DeviceKey, d.ID, d.Installation
	e.Provider, e.Environment, e.Token = tokens.NoProvider, "", ""
	_, _, err = w.Register(w.ctx(), e)
	w.must(err)
	_, err = w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Token: &d.Token}, w.now)
	w.refused(err, fault.Invalid, "invalid_registration")
}

func usersBounded(t *testing.T, w *world) {
	mine := w.crowd("anna", 200)
	w.refused(w.BindUser(w.ctx(), w.app, "anna", w.device(), w.now), fault.Invalid, "too_many_devices")
	w.must(w.BindUser(w.ctx(), w.app, "anna", mine[0], w.now)) // again is no more
	w.must(w.UnbindUser(w.ctx(), w.app, "anna", mine[0], w.now))
	w.must(w.BindUser(w.ctx(), w.app, "anna", w.device(), w.now))
}
