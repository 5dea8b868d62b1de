package store_test

import (
	"slices"
	"testing"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/tokens"
)

var fleetTests = map[string]func(*testing.T, *world){
	"devices are listed by what they are":          fleetFiltered,
	"a page looks at a bounded number of devices":  fleetBounded,
	"a device stands as its backend should see it": fleetStanding,
}

// fleet lists all pages of a query, and returns how many there were.
func (w *world) fleet(q tokens.DeviceQuery) (list []ident.Device, pages int) {
	w.t.Helper()
	q.App = w.app
	for {
		page, err := w.Devices(w.ctx(), q)
		w.must(err)
		pages++
		if len(page.Devices) > q.Limit {
			w.t.Fatalf("a page of %d has %d", q.Limit, len(page.Devices))
		}
		for _, d := range page.Devices {
			list = append(list, d.ID)
			if d.Token != "" {
				w.t.Errorf("%s shows its token", d.ID)
			}
		}
		if !page.More {
			return list, pages
		}
		if page.Next <= q.After {
			w.t.Fatalf("after %s it goes on at %s", q.After, page.Next)
		}
		q.After = page.Next
	}
}

func fleetFiltered(t *testing.T, w *world) {
	var android, ios, pollers []ident.Device
	for range 3 {
		android = append(android, w.device())
		ios = append(ios, w.device(func(e *tokens.Enrol) {
			e.Platform, e.Provider, e.Environment, e.Token = tokens.IOS, tokens.APNs, tokens.Production, tokens.Token("aabbccddeeff0011"+e.ID[len(e.ID)-6:])
		}))
		pollers = append(pollers, w.device(func(e *tokens.Enrol) { e.Provider, e.Token = tokens.NoProvider, "" }))
	}
	testkit.Device(t, w.Store, testkit.App(t, w.Store).ID)
	gone := w.device()
	w.must(w.BindUser(w.ctx(), w.app, "anna", gone, w.now))
	w.subscribe("news", gone, android[1], ios[1])
	w.must(w.Unregister(w.ctx(), w.app, gone, w.now))
	w.must(w.BindUser(w.ctx(), w.app, "anna", ios[1], w.now))
	w.must(w.BindUser(w.ctx(), w.app, "anna", ios[2], w.now))
	all := slices.Sorted(slices.Values(slices.Concat(android, ios, pollers)))
	marked, err := w.Device(w.ctx(), w.app, android[2])
	w.must(err)
	_, err = w.MarkToken(w.ctx(), tokens.TokenMark{Device: marked.ID, Generation: marked.Generation, State: tokens.TokenSuspect, Reason: "r", Strike: true, At: w.now})
	w.must(err)
	for name, x := range map[string]struct {
		q    tokens.DeviceQuery
		want []ident.Device
	}{
		"all":               {tokens.DeviceQuery{}, all},
		"after one":         {tokens.DeviceQuery{After: all[3]}, all[4:]},
		"of a platform":     {tokens.DeviceQuery{Platform: tokens.IOS}, ios},
		"of a provider":     {tokens.DeviceQuery{Provider: tokens.NoProvider}, pollers},
		"suspect":           {tokens.DeviceQuery{TokenState: tokens.TokenSuspect}, android[2:]},
		"active":            {tokens.DeviceQuery{TokenState: tokens.TokenActive, Platform: tokens.Android, Provider: tokens.FCM}, android[:2]},
		"of a user":         {tokens.DeviceQuery{User: "anna"}, ios[1:]},
		"of nobody known":   {tokens.DeviceQuery{User: "bert"}, nil},
		"of a topic":        {tokens.DeviceQuery{Topic: "news"}, []ident.Device{android[1], ios[1]}},
		"of both":           {tokens.DeviceQuery{User: "anna", Topic: "news"}, ios[1:2]},
		"of a topic, other": {tokens.DeviceQuery{Topic: "news", Platform: tokens.Android}, android[1:2]},
	} {
		for _, limit := range []int{1, 2, 100} {
			x.q.Limit = limit
			slices.Sort(x.want)
			if got, _ := w.fleet(x.q); !slices.Equal(got, x.want) {
				t.Errorf("%s by %d: got %v, want %v", name, limit, got, x.want)
			}
		}
	}
	// A refusal from before the app put its credential is none.
	w.must(w.PutCredential(w.ctx(), tokens.Credential{App: w.app, Provider: tokens.FCM, Secret: []byte("{}"), UpdatedAt: w.now.Add(time.Minute)}))
	if got, _ := w.fleet(tokens.DeviceQuery{TokenState: tokens.TokenSuspect, Limit: 10}); len(got) != 0 {
		t.Errorf("suspect are %v", got)
	}
}

func fleetBounded(t *testing.T, w *world) {
	last := slices.Max(w.crowd("", 2100))
	w.must(w.BindUser(w.ctx(), w.app, "anna", last, w.now))
	if got, pages := w.fleet(tokens.DeviceQuery{Platform: tokens.Web, Limit: 10}); len(got) != 0 || pages != 2 {
		t.Errorf("found %v in %d pages", got, pages)
	}
	if got, pages := w.fleet(tokens.DeviceQuery{User: "anna", Limit: 10}); len(got) != 1 || pages != 1 {
		t.Errorf("found %v in %d pages", got, pages)
	}
}

func fleetStanding(t *testing.T, w *world) {
	put := func(at time.Time) {
		t.Helper()
		w.must(w.PutCredential(w.ctx(), tokens.Credential{App: w.app, Provider: tokens.FCM, Secret: []byte("{}"), UpdatedAt: at}))
	}
	stands := func(d ident.Device, code string) tokens.Standing {
		t.Helper()
		got, err := w.Standing(w.ctx(), w.app, d)
		w.must(err)
		if got.Code != code || got.Reachable != (code == "") || (got.Detail == "") != (code == "") {
			t.Errorf("reachable %t: %q, %q; want %q", got.Reachable, got.Code, got.Detail, code)
		}
		return got
	}
	mark := func(d ident.Device, state tokens.TokenState) {
		t.Helper()
		got, err := w.Device(w.ctx(), w.app, d)
		w.must(err)
		changed, err := w.MarkToken(w.ctx(), tokens.TokenMark{Device: d, Generation: got.Generation, State: state, Reason: "r", Strike: state == tokens.TokenSuspect, At: w.now})
		if err != nil || !changed {
			t.Error(changed, err)
		}
	}
	d := w.device()
	stands(d, "no_credentials")
	put(w.now.Add(-time.Hour))
	stands(d, "")
	w.accept(d)
	w.accept(d, low)
	if got := stands(d, ""); got.Pending != 2 || got.ID != d || got.App != w.app || got.Token != "" {
		t.Errorf("it stands as %+v", got)
	}
	w.ackUpTo(d, w.inbox(d, 1).Last)
	w.Contact(d, w.now.Add(time.Hour))
	if got := stands(d, ""); got.Pending != 1 || !got.LastContact.Equal(w.now.Add(time.Hour)) {
		t.Errorf("it stands as %+v", got)
	}
	open := tokens.Circuit{Outlet: tokens.Outlet{App: w.app, Provider: tokens.FCM}, State: tokens.CircuitOpen, Cause: tokens.CauseThrottled,
		Reason: "slow", OpenedAt: w.now, RetryAt: w.now.Add(time.Hour)}
	w.must(w.NoteCircuit(w.ctx(), open, w.now))
	stands(d, "provider_paused")
	open.Cause = tokens.CauseCredential
	w.must(w.NoteCircuit(w.ctx(), open, w.now))
	stands(d, "provider_failing")
	put(w.now.Add(-time.Minute))
	stands(d, "")
	mark(d, tokens.TokenSuspect)
	stands(d, "token_suspect")
	mark(d, tokens.TokenDead)
	stands(d, "token_dead")
	stands(w.device(func(e *tokens.Enrol) { e.Provider, e.Token = tokens.NoProvider, "" }), "no_provider")
	stands(w.device(func(e *tokens.Enrol) { e.Token = "" }), "no_token")
	old := w.device(func(e *tokens.Enrol) { e.Now = w.now.Add(-messages.SilentAfter - time.Hour) })
	stands(old, "silent_device")
	w.Contact(old, w.now)
	stands(old, "")
	held := w.device(func(e *tokens.Enrol) { e.Token = "token-that-moves-on" })
	w.device(func(e *tokens.Enrol) { e.Token = "token-that-moves-on" })
	stands(held, "token_superseded")
	w.must(w.Unregister(w.ctx(), w.app, held, w.now))
	for _, id := range []ident.Device{held, unknownDevice(), testkit.Device(t, w.Store, testkit.App(t, w.Store).ID).ID} {
		_, err := w.Standing(w.ctx(), w.app, id)
		w.refused(err, fault.NotFound, "device_not_found")
	}
}
