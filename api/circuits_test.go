package api_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

// note opens, changes or closes a circuit of the app as the worker does.
func (w *world) note(app tenant, c tokens.Circuit) {
	w.t.Helper()
	c.App = ident.App(app.id)
	if err := w.store.NoteCircuit(context.Background(), c, time.Now()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) circuits(of tenant) []circuit {
	w.t.Helper()
	var a app
	w.do(call{"GET", "/v1/apps/" + of.id, adminKey, nil, nil}).want(200).into(&a)
	if a.Circuits == nil {
		w.t.Fatal("the app does not tell of its circuits")
	}
	return a.Circuits
}

// TestAppTellsOfItsCircuits: each with where, why, since when and until when.
func TestAppTellsOfItsCircuits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	if list := w.circuits(app); len(list) != 0 {
		t.Errorf("a new app has %+v", list)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	opened, later := now.Add(-time.Minute), now.Add(time.Hour)
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Sandbox}, State: tokens.CircuitOpen,
		Cause: tokens.CauseCredential, Reason: "InvalidProviderToken", OpenedAt: opened, RetryAt: later, Pauses: 3,
	})
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.FCM, Onward: tokens.OnwardApple}, State: tokens.CircuitOpen,
		Cause: tokens.CauseThrottled, Reason: "QUOTA_EXCEEDED", OpenedAt: opened, RetryAt: now,
	})
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.FCM}, State: tokens.CircuitWatching, Cause: tokens.CauseMassDeath, Reason: "UNREGISTERED", OpenedAt: opened, RetryAt: now,
	})
	want := []circuit{
		{Provider: "apns", Environment: "sandbox", State: "open", Cause: "credential", Reason: "InvalidProviderToken", OpenedAt: opened, RetryAt: &later},
		{Provider: "fcm", State: "watching", Cause: "mass_death", Reason: "UNREGISTERED", OpenedAt: opened},
		{Provider: "fcm", Onward: "apple", State: "half_open", Cause: "throttled", Reason: "QUOTA_EXCEEDED", OpenedAt: opened, RetryAt: &now},
	}
	same := func(a, b circuit) bool {
		sameRetry := (a.RetryAt == nil) == (b.RetryAt == nil) && (a.RetryAt == nil || a.RetryAt.Equal(*b.RetryAt))
		sameOpened := a.OpenedAt.Equal(b.OpenedAt)
		a.RetryAt, b.RetryAt, a.OpenedAt, b.OpenedAt = nil, nil, time.Time{}, time.Time{}
		return a == b && sameRetry && sameOpened
	}
	if list := w.circuits(app); !slices.EqualFunc(list, want, same) {
		t.Errorf("got %+v\nwant %+v", list, want)
	}
	if list := w.circuits(other); len(list) != 0 {
		t.Errorf("another app has %+v", list)
	}
	w.putApple(app)
	if list := w.circuits(app); len(list) != 2 || list[0].Provider != "fcm" {
		t.Errorf("after Apple's credential was put: %+v", list)
	}
}

// TestCredentialTellsThatItFails, since when, and that it works again once put again.
func TestCredentialTellsThatItFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.putApple(app)
	at := time.Now().UTC().Truncate(time.Millisecond)
	failing := func() (string, string) {
		var l struct {
			Credentials []struct {
				Failing      string `json:"failing"`
				FailingSince string `json:"failing_since"`
			} `json:"credentials"`
		}
		w.do(call{"GET", "/v1/apps/" + app.id + "/credentials", adminKey, nil, nil}).want(200).decode(&l)
		return l.Credentials[0].Failing, l.Credentials[0].FailingSince
	}
	if reason, since := failing(); reason != "" || since != "" {
		t.Errorf("a new one fails: %s since %s", reason, since)
	}
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Production}, State: tokens.CircuitOpen,
		Cause: tokens.CauseThrottled, Reason: "TooManyRequests", OpenedAt: at, RetryAt: at.Add(time.Hour),
	})
	if reason, _ := failing(); reason != "" {
		t.Errorf("a provider that asks to slow down makes the credential fail: %s", reason)
	}
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Production}, State: tokens.CircuitOpen,
		Cause: tokens.CauseCredential, Reason: "InvalidProviderToken", OpenedAt: at, RetryAt: at.Add(time.Hour),
	})
	reason, since := failing()
	if when, err := time.Parse(time.RFC3339, since); err != nil || reason != "InvalidProviderToken" || !when.Equal(at) {
		t.Errorf("it fails by %q since %q", reason, since)
	}
	w.putApple(app)
	if reason, since := failing(); reason != "" || since != "" {
		t.Errorf("put again it fails: %s since %s", reason, since)
	}
}
