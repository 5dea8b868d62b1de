package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/tokens"
)

var appTests = map[string]func(*testing.T, *world){
	"an app and its keys are created together":  appWithKeys,
	"apps are listed in pages":                  appsInPages,
	"an app is changed in part":                 appPatched,
	"a deleted app leaves nothing":              appDeleted,
	"what is not there is not found":            appNotThere,
	"keys come, are looked up and go":           keysLife,
	"a key is replaced by one that may as much": keyRotated,
	"the use of a key is noted now and then":    keyUsed,
	"credentials come and go":                   credentialsLife,
	"a credential's secret is sealed":           credentialSealed,
}

func newKey(app ident.App, kind tokens.KeyKind) tokens.Key {
	id := ident.NewKey()
	return tokens.Key{ID: id, App: app, Kind: kind, Name: "of a test", Scopes: tokens.AllScopes(),
		Hash: tokens.HashOf(tokens.Secret(id)), CreatedAt: time.Now().Truncate(time.Millisecond).UTC()}
}

func appWithKeys(t *testing.T, w *world) {
	app := tokens.App{ID: ident.NewApp(), Name: "shop", InboxOverflow: tokens.OverflowDropOldest, Registration: tokens.RegistrationServer,
		BroadcastRate: 50, EventTypes: []string{"message.*"}, Rate: tokens.RateLimit{PerSecond: 0.5, Burst: 7}, CreatedAt: w.now}
	keys := []tokens.Key{newKey(app.ID, tokens.SecretKey), newKey(app.ID, tokens.PublishableKey)}
	w.must(w.CreateApp(w.ctx(), app, keys))
	got, err := w.App(w.ctx(), app.ID)
	w.must(err)
	if diff := cmp.Diff(app, got); diff != "" {
		t.Error(diff)
	}
	list, err := w.Keys(w.ctx(), app.ID)
	w.must(err)
	if diff := cmp.Diff(keys, list); diff != "" {
		t.Error(diff)
	}
}

func appsInPages(t *testing.T, w *world) {
	want := []ident.App{w.app}
	for range 4 {
		want = append(want, testkit.App(t, w.Store).ID)
	}
	slices.Sort(want)
	var got []ident.App
	var after ident.App
	for {
		page, err := w.Apps(w.ctx(), after, 2)
		w.must(err)
		if len(page) == 0 {
			break
		}
		for _, app := range page {
			got = append(got, app.ID)
			after = app.ID
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func appPatched(t *testing.T, w *world) {
	name := "renamed"
	app, err := w.PatchApp(w.ctx(), w.app, tokens.AppPatch{Name: &name})
	w.must(err)
	if app.Name != name || app.InboxOverflow != tokens.OverflowReject {
		t.Errorf("patched to %+v", app)
	}
	overflow := tokens.OverflowDropOldest
	_, err = w.PatchApp(w.ctx(), w.app, tokens.AppPatch{InboxOverflow: &overflow})
	w.must(err)
	if app, err = w.App(w.ctx(), w.app); err != nil || app.Name != name || app.InboxOverflow != overflow {
		t.Errorf("stored %+v, %v", app, err)
	}
	if app.Registration != tokens.RegistrationOpen || app.BroadcastRate != tokens.DefaultBroadcastRate || app.EventTypes != nil || app.Rate != (tokens.RateLimit{}) {
		t.Errorf("what nobody set is %+v", app)
	}
	mode, rate, limit := tokens.RegistrationToken, 10, tokens.RateLimit{PerSecond: 12.345, Burst: 20}
	for _, types := range [][]string{{"circuit.*", "message.acked"}, {}, nil} {
		want := app
		want.Registration, want.BroadcastRate, want.Rate, want.EventTypes = mode, rate, limit, types
		got, err := w.PatchApp(w.ctx(), w.app, tokens.AppPatch{Registration: &mode, BroadcastRate: &rate, Rate: &limit, EventTypes: &types})
		w.must(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		stored, err := w.App(w.ctx(), w.app)
		w.must(err)
		if diff := cmp.Diff(want, stored); diff != "" {
			t.Error(diff)
		}
	}
}

func appDeleted(t *testing.T, w *world) {
	key := newKey(w.app, tokens.SecretKey)
	w.must(w.AddKey(w.ctx(), key))
	w.must(w.PutCredential(w.ctx(), tokens.Credential{App: w.app, Provider: tokens.FCM, Secret: []byte("{}"), UpdatedAt: w.now}))
	d := w.device()
	devices := w.userDevices("anna", 2)
	one, several, none := w.accept(d), w.acceptUser("anna"), w.acceptUser("nobody")
	w.RecordWake(messages.Wake{App: w.app, Device: d, At: w.now, Head: messages.Marks{High: 1}, Accepted: true})
	other := newWorld(t, func(testing.TB, ...func(*storeOptions)) *storeT { return w.Store })
	bystander := other.device()
	kept := other.accept(bystander)

	w.must(w.DeleteApp(w.ctx(), w.app))

	_, err := w.App(w.ctx(), w.app)
	w.refused(err, fault.NotFound, "app_not_found")
	_, err = w.LookupKey(w.ctx(), key.ID)
	w.refused(err, fault.Unauthenticated, "unknown_key")
	_, err = w.Credential(w.ctx(), w.app, tokens.FCM)
	w.refused(err, fault.NotFound, "no_credential")
	for _, id := range append(devices, d) {
		_, _, _, err = w.DeviceAuth(w.ctx(), id)
		w.refused(err, fault.Unauthenticated, "unknown_key")
	}
	for _, r := range []messages.Receipt{one, several, none} {
		_, err = w.Message(w.ctx(), w.app, r.ID)
		w.refused(err, fault.NotFound, "message_not_found")
	}
	w.refused(w.DeleteApp(w.ctx(), w.app), fault.NotFound, "app_not_found")
	other.is(kept.ID, messages.Queued)
	if n := w.pending(); n != 1 {
		t.Errorf("%d are pending, want the bystander's one", n)
	}
}

func appNotThere(_ *testing.T, w *world) {
	nobody := ident.NewApp()
	_, err := w.App(w.ctx(), nobody)
	w.refused(err, fault.NotFound, "app_not_found")
	_, err = w.PatchApp(w.ctx(), nobody, tokens.AppPatch{})
	w.refused(err, fault.NotFound, "app_not_found")
	w.refused(w.DeleteApp(w.ctx(), nobody), fault.NotFound, "app_not_found")
	w.refused(w.AddKey(w.ctx(), newKey(nobody, tokens.SecretKey)), fault.NotFound, "app_not_found")
	_, err = w.Keys(w.ctx(), nobody)
	w.refused(err, fault.NotFound, "app_not_found")
	_, err = w.Credentials(w.ctx(), nobody)
	w.refused(err, fault.NotFound, "app_not_found")
	w.refused(w.PutCredential(w.ctx(), tokens.Credential{App: nobody, Provider: tokens.APNs}), fault.NotFound, "app_not_found")
	_, _, err = w.Register(w.ctx(), tokens.Enrol{Registration: tokens.Registration{App: nobody}, ID: ident.NewDevice()})
	w.refused(err, fault.NotFound, "app_not_found")
}

func keysLife(t *testing.T, w *world) {
	key := newKey(w.app, tokens.SecretKey)
	key.Scopes, key.ExpiresAt = []tokens.Scope{tokens.ScopeSend, tokens.ScopeRead}, w.now.Add(time.Hour)
	w.must(w.AddKey(w.ctx(), key))
	got, err := w.LookupKey(w.ctx(), key.ID)
	w.must(err)
	if diff := cmp.Diff(key, got); diff != "" {
		t.Error(diff)
	}
	other := testkit.App(t, w.Store)
	w.refused(w.DeleteKey(w.ctx(), other.ID, key.ID), fault.NotFound, "key_not_found")
	w.must(w.DeleteKey(w.ctx(), w.app, key.ID))
	w.refused(w.DeleteKey(w.ctx(), w.app, key.ID), fault.NotFound, "key_not_found")
	_, err = w.LookupKey(w.ctx(), key.ID)
	w.refused(err, fault.Unauthenticated, "unknown_key")
}

func keyRotated(t *testing.T, w *world) {
	key := newKey(w.app, tokens.SecretKey)
	key.Scopes, key.Rate = []tokens.Scope{tokens.ScopeSend}, tokens.RateLimit{PerSecond: 2.5, Burst: 3}
	w.must(w.AddKey(w.ctx(), key))
	rotate := func(old ident.Key, until time.Time, app ident.App) (tokens.Key, error) {
		next := newKey(app, "")
		next.Name, next.Scopes, next.CreatedAt = "", nil, w.now
		return w.RotateKey(w.ctx(), old, next, until)
	}
	ends := func(id ident.Key, at time.Time) {
		t.Helper()
		if got, err := w.LookupKey(w.ctx(), id); err != nil || !got.ExpiresAt.Equal(at) {
			t.Errorf("it ends at %v, want %v; %v", got.ExpiresAt, at, err)
		}
	}
	next, err := rotate(key.ID, w.now.Add(time.Hour), w.app)
	w.must(err)
	stored, err := w.LookupKey(w.ctx(), next.ID)
	w.must(err)
	want := key
	want.ID, want.Hash, want.CreatedAt = next.ID, next.Hash, next.CreatedAt
	for _, got := range []tokens.Key{next, stored} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	ends(key.ID, w.now.Add(time.Hour))
	_, err = rotate(key.ID, w.now.Add(2*time.Hour), w.app) // no later than it did
	w.must(err)
	ends(key.ID, w.now.Add(time.Hour))
	_, err = rotate(key.ID, w.now, w.app)
	w.must(err)
	ends(key.ID, w.now)
	_, err = rotate(key.ID, w.now.Add(time.Hour), w.app)
	w.refused(err, fault.NotFound, "key_not_found")
	_, err = rotate(next.ID, w.now, testkit.App(t, w.Store).ID)
	w.refused(err, fault.NotFound, "key_not_found")
	_, err = rotate(ident.NewKey(), w.now, w.app)
	w.refused(err, fault.NotFound, "key_not_found")
	if list, err := w.Keys(w.ctx(), w.app); err != nil || len(list) != 4 {
		t.Errorf("%d keys, want the old one and its three successors; %v", len(list), err)
	}
}

func keyUsed(t *testing.T, w *world) {
	key := newKey(w.app, tokens.SecretKey)
	w.must(w.AddKey(w.ctx(), key))
	used := func(at, want time.Time) {
		t.Helper()
		w.NoteKeyUse(key.ID, at)
		_, err := w.PatchApp(w.ctx(), w.app, tokens.AppPatch{}) // which comes after it
		w.must(err)
		if got, err := w.LookupKey(w.ctx(), key.ID); err != nil || !got.LastUsedAt.Equal(want) {
			t.Errorf("used at %v, want %v; %v", got.LastUsedAt, want, err)
		}
	}
	used(w.now, w.now)
	used(w.now.Add(59*time.Second), w.now)
	used(w.now.Add(time.Minute), w.now.Add(time.Minute))
	used(w.now.Add(-time.Hour), w.now.Add(time.Minute)) // the clock went back: it was used later than that
	w.NoteKeyUse(ident.NewKey(), w.now)
	w.must(w.DeleteKey(w.ctx(), w.app, key.ID))
}

func credentialsLife(t *testing.T, w *world) {
	c := tokens.Credential{App: w.app, Provider: tokens.APNs, Fingerprint: "aa", Public: []byte(`{"topic":"t"}`),
		Secret: []byte(`{"private_key":"s"}`), UpdatedAt: w.now, ExpiresAt: w.now.Add(time.Hour)}
	w.must(w.PutCredential(w.ctx(), c))
	got, err := w.Credential(w.ctx(), w.app, tokens.APNs)
	w.must(err)
	if diff := cmp.Diff(c, got); diff != "" {
		t.Error(diff)
	}
	again := c
	again.Fingerprint, again.ExpiresAt, again.UpdatedAt = "bb", time.Time{}, w.now.Add(time.Minute)
	w.must(w.PutCredential(w.ctx(), again))
	if got, err = w.Credential(w.ctx(), w.app, tokens.APNs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(again, got); diff != "" {
		t.Errorf("put in its place: %s", diff)
	}
	list, err := w.Credentials(w.ctx(), w.app)
	w.must(err)
	if len(list) != 1 || list[0].Secret != nil || list[0].Fingerprint != "bb" {
		t.Errorf("listed %+v", list)
	}
	w.must(w.DeleteCredential(w.ctx(), w.app, tokens.APNs))
	w.refused(w.DeleteCredential(w.ctx(), w.app, tokens.APNs), fault.NotFound, "no_credential")
}

func credentialSealed(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "very-private") }) })
	w.must(w.PutCredential(w.ctx(), tokens.Credential{App: w.app, Provider: tokens.APNs, Secret: []byte("very-private"), UpdatedAt: w.now}))
}
