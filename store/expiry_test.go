package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

const day = 24 * time.Hour

var expiryTests = map[string]func(*testing.T, *world){
	"an app is told before its credential ends":  expiryTold,
	"of several steps the last is told":          expirySteps,
	"a new credential's end is told anew":        expiryReset,
	"all that expire are told, each app its own": expiryOfMany,
	"credentials with an end are listed":         expiriesListed,
}

func (w *world) expiring(app ident.App, p tokens.Provider, at time.Time) tokens.Credential {
	w.t.Helper()
	w.must(w.PutCredential(w.ctx(), tokens.Credential{App: app, Provider: p, Fingerprint: "f", Secret: []byte("s"), UpdatedAt: w.now, ExpiresAt: at}))
	return tokens.Credential{App: app, Provider: p, ExpiresAt: at}
}

// tellsExpiring moves the clock to at and checks what is told then; days are those of the events.
func (w *world) tellsExpiring(at time.Time, days ...float64) []tokens.Credential {
	w.t.Helper()
	w.now = at
	before, _ := w.told()
	told, err := w.TellExpiring(w.ctx(), at)
	w.must(err)
	types, data := w.told()
	var got []float64
	for i, d := range data[len(before):] {
		if types[len(before)+i] != messages.CredentialExpiring {
			w.t.Errorf("told %s", types[len(before)+i])
		}
		n, _ := d["days"].(float64)
		got = append(got, n)
	}
	if !cmp.Equal(days, got) || len(told) < len(days) {
		w.t.Errorf("told %+v with %v days left, want %v", told, got, days)
	}
	return told
}

func expiryTold(t *testing.T, w *world) {
	end := w.now.Add(60 * day)
	c := w.expiring(w.app, tokens.APNs, end)
	w.expiring(w.app, tokens.FCM, time.Time{})
	w.tellsExpiring(end.Add(-30*day - time.Millisecond))
	told := w.tellsExpiring(end.Add(-30*day), 30)
	if diff := cmp.Diff([]tokens.Credential{c}, told); diff != "" {
		t.Error(diff)
	}
	_, data := w.told()
	if diff := cmp.Diff(map[string]any{"provider": "apns", "expires_at": end.Format(time.RFC3339Nano), "days": 30.0}, data[0]); diff != "" {
		t.Error(diff)
	}
	for hours := 1; hours < 23*24; hours++ {
		if told := w.tellsExpiring(end.Add(-30*day + time.Duration(hours)*time.Hour)); len(told) != 0 {
			t.Fatalf("told again after %d hours: %+v", hours, told)
		}
	}
	w.tellsExpiring(end.Add(-7*day), 7)
	w.tellsExpiring(end.Add(-6 * day))
	w.tellsExpiring(end.Add(-day), 1)
	w.tellsExpiring(end.Add(-time.Millisecond))
	w.tellsExpiring(end, 0)
	w.tellsExpiring(end.Add(time.Hour))
	w.tellsExpiring(end.Add(-8 * day)) // the clock went back
	w.tellsExpiring(end.Add(400 * day))
	got, err := w.Credential(w.ctx(), w.app, tokens.APNs)
	if w.must(err); !got.ExpiresAt.Equal(end) {
		t.Errorf("%+v", got)
	}
}

func expirySteps(_ *testing.T, w *world) {
	start := w.now
	for _, c := range []struct {
		left time.Duration
		days float64
	}{{30*day - time.Hour, 30}, {8*day + time.Hour, 9}, {5*day + time.Minute, 6}, {time.Hour, 1}, {0, 0}, {-day, 0}, {-400 * day, 0}} {
		w.now = start
		w.expiring(w.app, tokens.APNs, start.Add(c.left))
		w.tellsExpiring(start, c.days)
		w.tellsExpiring(start)
	}
}

func expiryReset(_ *testing.T, w *world) {
	end := w.now.Add(day)
	w.expiring(w.app, tokens.APNs, end)
	w.tellsExpiring(w.now, 1)
	w.expiring(w.app, tokens.APNs, end)
	w.tellsExpiring(w.now, 1)
	w.expiring(w.app, tokens.APNs, end.Add(365*day))
	w.tellsExpiring(w.now.Add(2 * day))
	w.expiring(w.app, tokens.APNs, time.Time{})
	w.tellsExpiring(end.Add(1000 * day))
	w.expiring(w.app, tokens.APNs, w.now.Add(-time.Hour))
	w.must(w.DeleteCredential(w.ctx(), w.app, tokens.APNs))
	w.tellsExpiring(w.now)
}

func expiryOfMany(t *testing.T, w *world) {
	var worlds []*world
	for i := range 140 { // more than are told at a time
		other := newWorld(t, func(testing.TB, ...func(*storeOptions)) *storeT { return w.Store })
		other.expiring(other.app, tokens.APNs, w.now.Add(time.Duration(i)*time.Hour))
		worlds = append(worlds, other)
	}
	told, err := w.TellExpiring(w.ctx(), w.now)
	w.must(err)
	if len(told) != len(worlds) {
		t.Fatalf("told of %d of %d", len(told), len(worlds))
	}
	for i, other := range worlds {
		if told[i].App != other.app {
			t.Errorf("told in the wrong order: %d", i)
		}
		other.tells(messages.CredentialExpiring)
	}
	w.tells()
	if again, err := w.TellExpiring(w.ctx(), w.now); len(again) != 0 || err != nil {
		t.Errorf("told again: %d, %v", len(again), err)
	}
}

func expiriesListed(t *testing.T, w *world) {
	late := w.expiring(w.app, tokens.APNs, w.now.Add(50*day))
	w.expiring(w.app, tokens.FCM, time.Time{})
	other := newWorld(t, func(testing.TB, ...func(*storeOptions)) *storeT { return w.Store })
	over := w.expiring(other.app, tokens.APNs, w.now.Add(-day))
	got, err := w.Expiries(w.ctx())
	w.must(err)
	if diff := cmp.Diff([]tokens.Credential{over, late}, got); diff != "" {
		t.Error(diff)
	}
	w.must(w.DeleteApp(w.ctx(), other.app))
	if got, err = w.Expiries(w.ctx()); err != nil || len(got) != 1 {
		t.Errorf("after its app was deleted: %+v, %v", got, err)
	}
}
