package store_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

var circuitTests = map[string]func(*testing.T, *world){
	"a circuit opens, pauses again and closes":       circuitLife,
	"causes, environments and carriers are apart":    circuitsApart,
	"a credential fails while it is refused":         credentialFailing,
	"a wave is watched before it is over":            circuitWatched,
	"putting a credential closes its circuits":       circuitsClosedByPut,
	"taking a credential away closes its circuits":   circuitsClosedByDelete,
	"a note from before a new credential is late":    circuitStale,
	"a deleted app leaves no circuits and no events": circuitsDeleted,
	"of several notes the longest counts":            circuitNotedTwice,
	"nodes with other clocks mean the same pause":    circuitsByOtherClocks,
}

// note has the app's circuit for production be open since now, unless change says otherwise.
func (w *world) note(change ...func(*tokens.Circuit)) tokens.Circuit {
	w.t.Helper()
	c := tokens.Circuit{Outlet: tokens.Outlet{App: w.app, Provider: tokens.APNs, Environment: tokens.Production}, State: tokens.CircuitOpen,
		Cause: tokens.CauseCredential, Reason: "TooManyRequests", OpenedAt: w.now, RetryAt: w.now.Add(time.Minute), Pauses: 1}
	for _, f := range change {
		f(&c)
	}
	w.must(w.NoteCircuit(w.ctx(), c, w.now))
	return c
}

func in(e tokens.Environment) func(*tokens.Circuit) {
	return func(c *tokens.Circuit) { c.Environment = e }
}

// of makes it a circuit of another provider, which has no environments.
func of(p tokens.Provider) func(*tokens.Circuit) {
	return func(c *tokens.Circuit) { c.Provider, c.Environment = p, "" }
}

func because(cause tokens.CircuitCause) func(*tokens.Circuit) {
	return func(c *tokens.Circuit) { c.Cause = cause }
}

func watching(c *tokens.Circuit) { c.State, c.RetryAt = tokens.CircuitWatching, time.Time{} }

func closed(c *tokens.Circuit) { c.State = tokens.CircuitClosed }

func (w *world) circuits(want ...tokens.Circuit) {
	w.t.Helper()
	for _, app := range []ident.App{w.app, ""} {
		got, err := w.Circuits(w.ctx(), app)
		w.must(err)
		if len(got)+len(want) > 0 && !cmp.Equal(want, got) {
			w.t.Errorf("circuits of %q: %s", app, cmp.Diff(want, got))
		}
	}
}

// told returns the app's events, their data decoded.
func (w *world) told() (types []messages.EventType, data []map[string]any) {
	w.t.Helper()
	list, more, err := w.Events(w.ctx(), w.app, 0, 1000)
	w.must(err)
	if more {
		w.t.Error("more than 1000 events")
	}
	for _, e := range list {
		var d map[string]any
		w.must(json.Unmarshal(e.Data, &d))
		types, data = append(types, e.Type), append(data, d)
	}
	return types, data
}

func (w *world) tells(want ...messages.EventType) {
	w.t.Helper()
	if types, _ := w.told(); !cmp.Equal(want, types) {
		w.t.Errorf("events: %s", cmp.Diff(want, types))
	}
}

func circuitLife(t *testing.T, w *world) {
	w.circuits()
	w.note(because(tokens.CauseThrottled), closed) // was not open
	w.tells()
	first := w.note(because(tokens.CauseThrottled))
	w.circuits(first)
	w.now = w.now.Add(time.Minute)
	again := w.note(because(tokens.CauseThrottled), func(c *tokens.Circuit) { c.Pauses, c.Reason = 2, "another word" })
	again.OpenedAt = first.OpenedAt
	w.circuits(again)
	w.tells(messages.CircuitOpened)
	w.note(because(tokens.CauseThrottled), closed)
	w.note(because(tokens.CauseThrottled), closed)
	w.circuits()
	_, data := w.told()
	want := []map[string]any{
		{"provider": "apns", "environment": "production", "cause": "throttled", "reason": "TooManyRequests", "retry_at": first.RetryAt.Format(time.RFC3339Nano)},
		{"provider": "apns", "environment": "production", "cause": "throttled", "reason": "another word"},
	}
	w.tells(messages.CircuitOpened, messages.CircuitClosed)
	if diff := cmp.Diff(want, data); diff != "" {
		t.Error(diff)
	}
	w.note(because(tokens.CauseThrottled))
	w.tells(messages.CircuitOpened, messages.CircuitClosed, messages.CircuitOpened)
}

// circuitNotedTwice: two nodes find out at the same time, and write in any order.
func circuitNotedTwice(_ *testing.T, w *world) {
	long := w.note(func(c *tokens.Circuit) { c.RetryAt, c.Pauses = w.now.Add(5*time.Minute), 2 })
	w.note()
	w.circuits(long)
	longer := w.note(func(c *tokens.Circuit) { c.RetryAt, c.Pauses = w.now.Add(15*time.Minute), 3 })
	w.circuits(longer)
	w.tells(messages.CircuitOpened, messages.CredentialFailing)
	w.note(closed)
	w.note(closed)
	w.tells(messages.CircuitOpened, messages.CredentialFailing, messages.CircuitClosed)
	w.note(func(c *tokens.Circuit) { c.RetryAt = w.now.Add(10 * time.Hour) })
	sane := w.note()
	w.circuits(sane)
}

// circuitsByOtherClocks plays a node whose clock is ahead by moving what it knows of it.
func circuitsByOtherClocks(t *testing.T, w *world) {
	w.Skew(10 * time.Minute)
	late := w.now.Add(10 * time.Minute)
	c := tokens.Circuit{Outlet: tokens.Outlet{App: w.app, Provider: tokens.APNs}, State: tokens.CircuitOpen, Cause: tokens.CauseThrottled,
		OpenedAt: late, RetryAt: late.Add(time.Minute), Pauses: 1}
	w.must(w.NoteCircuit(w.ctx(), c, late))
	w.circuits(c)
	w.Skew(0)
	got, err := w.Circuits(w.ctx(), w.app)
	w.must(err)
	if len(got) != 1 || !got[0].RetryAt.Equal(w.now.Add(time.Minute)) || !got[0].OpenedAt.Equal(w.now) {
		t.Errorf("by a clock that is right: %+v", got)
	}
	w.Skew(-10 * time.Minute)
	watched := w.note(of(tokens.FCM), watching)
	got, err = w.Circuits(w.ctx(), w.app)
	w.must(err)
	if len(got) != 2 || !got[1].RetryAt.IsZero() || !got[1].OpenedAt.Equal(watched.OpenedAt) || !got[0].RetryAt.Equal(w.now.Add(-9*time.Minute)) {
		t.Errorf("by one that is late: %+v", got)
	}
}

func circuitsApart(_ *testing.T, w *world) {
	onward := func(o tokens.Onward) func(*tokens.Circuit) { return func(c *tokens.Circuit) { c.Onward = o } }
	wave := w.note(in(""), because(tokens.CauseMassDeath))
	refused := w.note()
	throttled := w.note(because(tokens.CauseThrottled))
	sandbox := w.note(in(tokens.Sandbox))
	google := w.note(of(tokens.FCM))
	apple := w.note(of(tokens.FCM), onward(tokens.OnwardApple))
	w.circuits(wave, refused, throttled, sandbox, google, apple)
	w.note(closed)
	w.circuits(wave, throttled, sandbox, google, apple)
	w.note(of(tokens.FCM), closed)
	w.circuits(wave, throttled, sandbox, apple)
	other := newWorld(w.t, func(testing.TB, ...func(*storeOptions)) *storeT { return w.Store })
	theirs := other.note()
	if got, err := w.Circuits(w.ctx(), other.app); err != nil || !cmp.Equal([]tokens.Circuit{theirs}, got) {
		w.t.Errorf("another app's: %+v, %v", got, err)
	}
	if got, err := w.Circuits(w.ctx(), ""); err != nil || len(got) != 5 {
		w.t.Errorf("all: %+v, %v", got, err)
	}
}

func credentialFailing(t *testing.T, w *world) {
	w.credential(tokens.APNs)
	failing := func(reason string, since time.Time) {
		t.Helper()
		one, err := w.Credential(w.ctx(), w.app, tokens.APNs)
		w.must(err)
		list, err := w.Credentials(w.ctx(), w.app)
		w.must(err)
		for _, c := range append(list, one) {
			if c.Failing != reason || !c.FailingSince.Equal(since) {
				t.Errorf("fails because of %q since %s, want %q since %s", c.Failing, c.FailingSince, reason, since)
			}
		}
	}
	saying := func(word string) func(*tokens.Circuit) { return func(c *tokens.Circuit) { c.Reason = word } }
	w.note(because(tokens.CauseThrottled))
	w.note(in(""), because(tokens.CauseMassDeath))
	w.note(of(tokens.FCM))
	failing("", time.Time{})
	first := w.note(in(tokens.Sandbox), saying("BadEnvironmentKeyIdInToken"))
	w.now = w.now.Add(time.Minute)
	second := w.note(saying("InvalidProviderToken"))
	failing("BadEnvironmentKeyIdInToken", first.OpenedAt)
	w.note(in(tokens.Sandbox), closed)
	failing("InvalidProviderToken", second.OpenedAt)
	w.note(closed)
	failing("", time.Time{})
	types, data := w.told()
	var words []any
	for i, kind := range types {
		if kind == messages.CredentialFailing {
			words = append(words, data[i]["provider"], data[i]["environment"], data[i]["reason"])
			if _, known := data[i]["cause"]; known {
				t.Errorf("a failing credential has a cause: %v", data[i])
			}
		}
	}
	want := []any{"fcm", nil, "TooManyRequests", "apns", "sandbox", "BadEnvironmentKeyIdInToken", "apns", "production", "InvalidProviderToken"}
	if diff := cmp.Diff(want, words); diff != "" {
		t.Error(diff)
	}
}

func circuitWatched(_ *testing.T, w *world) {
	wave := []func(*tokens.Circuit){in(""), because(tokens.CauseMassDeath)}
	opened := w.note(wave...).OpenedAt
	w.now = w.now.Add(time.Minute)
	watched := w.note(append(wave, watching)...)
	watched.OpenedAt = opened
	w.circuits(watched)
	w.tells(messages.CircuitOpened)
	w.note(append(wave, closed)...)
	w.tells(messages.CircuitOpened, messages.CircuitClosed)
	w.note(append(wave, watching)...)
	w.tells(messages.CircuitOpened, messages.CircuitClosed, messages.CircuitOpened)
	if _, data := w.told(); data[2]["retry_at"] != nil {
		w.t.Errorf("what is not open is tried at %v", data[2]["retry_at"])
	}
}

func circuitsClosedByPut(_ *testing.T, w *world) {
	w.note(of(tokens.FCM))
	kept, _ := w.Circuits(w.ctx(), w.app)
	w.note()
	w.note(in(tokens.Sandbox), because(tokens.CauseThrottled))
	w.note(in(""), because(tokens.CauseMassDeath))
	before, _ := w.told()
	w.now = w.now.Add(time.Minute)
	w.credential(tokens.APNs)
	w.circuits(kept...)
	w.tells(append(before, messages.CircuitClosed, messages.CircuitClosed, messages.CircuitClosed)...)
	w.credential(tokens.APNs)
	w.tells(append(before, messages.CircuitClosed, messages.CircuitClosed, messages.CircuitClosed)...)
	w.note()
	w.tells(append(before, messages.CircuitClosed, messages.CircuitClosed, messages.CircuitClosed, messages.CircuitOpened, messages.CredentialFailing)...)
}

func circuitsClosedByDelete(_ *testing.T, w *world) {
	w.credential(tokens.APNs)
	w.credential(tokens.FCM)
	w.note()
	google := w.note(of(tokens.FCM))
	w.must(w.DeleteCredential(w.ctx(), w.app, tokens.APNs))
	w.circuits(google)
	w.tells(messages.CircuitOpened, messages.CredentialFailing, messages.CircuitOpened, messages.CredentialFailing, messages.CircuitClosed)
	missing := w.note(func(c *tokens.Circuit) { c.Reason = "no_credentials" })
	w.circuits(missing, google)
}

// circuitStale: the worker's note was on its way while the app put its credential.
func circuitStale(_ *testing.T, w *world) {
	stale := w.now
	w.now = w.now.Add(time.Millisecond)
	w.credential(tokens.APNs)
	c := tokens.Circuit{Outlet: tokens.Outlet{App: w.app, Provider: tokens.APNs}, State: tokens.CircuitOpen, Cause: tokens.CauseCredential,
		OpenedAt: stale.Add(-time.Hour), RetryAt: w.now}
	w.must(w.NoteCircuit(w.ctx(), c, stale))
	w.circuits()
	w.tells()
	google := c
	google.Provider = tokens.FCM
	w.must(w.NoteCircuit(w.ctx(), google, stale))
	w.must(w.NoteCircuit(w.ctx(), c, w.now)) // who says so now means it, since whenever
	w.circuits(c, google)
}

func circuitsDeleted(t *testing.T, w *world) {
	other := newWorld(t, func(testing.TB, ...func(*storeOptions)) *storeT { return w.Store })
	kept := other.note()
	w.note()
	for range 300 { // more than one piece
		w.note(because(tokens.CauseThrottled))
		w.note(because(tokens.CauseThrottled), closed)
	}
	w.must(w.DeleteApp(w.ctx(), w.app))
	w.tells()
	w.note() // the worker has not heard of it yet
	w.note(closed)
	w.tells()
	if got, err := w.Circuits(w.ctx(), ""); err != nil || !cmp.Equal([]tokens.Circuit{kept}, got) {
		t.Errorf("left: %+v, %v", got, err)
	}
	other.tells(messages.CircuitOpened, messages.CredentialFailing)
}
