package sim_test

import (
	"fmt"
	"testing"
	"time"

	"rouse/providers/sim"
)

// TestDeliveryOverTheWire: what the requests say of expiry, collapsing and priority is what is acted on.
func TestDeliveryOverTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{Delivery: sim.DeliveryReal})
	a, g := newApple(t, s), newGoogle(t, s)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.SetOnline(a.token, false))
	must(s.SetOnline(g.token, false))
	soon := fmt.Sprint(time.Now().Add(10 * time.Minute).Unix())
	for _, header := range []map[string]string{
		{"apns-expiration": "0"}, {"apns-expiration": "1"}, {"apns-collapse-id": "first"}, {"apns-expiration": soon, "apns-collapse-id": "second"},
	} {
		if got := a.push(ask{header: header}); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	for _, more := range []string{
		`,"android":{"ttl":"0s"}`, `,"android":{"ttl":"600s"}`, `,"android":{"collapse_key":"k"}`, `,"android":{"collapse_key":"k","priority":"HIGH"}`,
		`,"notification":{"title":"a"}`, `,"notification":{"title":"b"}`,
	} {
		if got := g.send(g.message(more)); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	check := func(token string, held int, lost sim.Lost) {
		t.Helper()
		if p, ok := s.Phone(token); !ok || p.Held != held || p.Lost != lost {
			t.Errorf("%+v, want %d held, lost %+v", p, held, lost)
		}
	}
	check(a.token, 1, sim.Lost{Replaced: 1, NotStored: 2})
	check(g.token, 3, sim.Lost{Replaced: 2, NotStored: 1})
	s.Advance(11 * time.Minute)
	check(a.token, 0, sim.Lost{Replaced: 1, NotStored: 2, Expired: 1})
	check(g.token, 2, sim.Lost{Replaced: 2, NotStored: 1, Expired: 1})
	a.push(ask{header: map[string]string{"apns-expiration": soon, "apns-collapse-id": "third"}}) // counts from now, whatever was advanced
	must(s.SetOnline(a.token, true))
	must(s.SetDozing(g.token, true))
	must(s.SetOnline(g.token, true))
	if got := s.Pushes(a.token); len(got) != 1 || got[0].Headers["apns-collapse-id"] != "third" {
		t.Errorf("%+v", got)
	}
	if got := s.Pushes(g.token); len(got) != 2 || got[0].Kind != "high" || got[1].Kind != "high" {
		t.Errorf("those of high priority reach a phone that dozes: %+v", got)
	}
	must(s.SetDemoted(g.token, true))
	must(s.SetDozing(g.token, false))
	g.send(g.message(`,"android":{"priority":"HIGH"}`))
	if got := s.Pushes(g.token); len(got) != 3 || got[2].Kind != "normal" || !got[2].Demoted {
		t.Errorf("%+v", got)
	}
	for range 4 {
		a.push(ask{header: map[string]string{"apns-push-type": "background", "apns-priority": "5"}, body: `{"aps":{"content-available":1}}`})
	}
	check(a.token, 1, sim.Lost{Replaced: 1, NotStored: 2, Expired: 1})
	s.KillToken(a.token, time.Time{})
	check(a.token, 0, sim.Lost{})
}

func TestSwitchesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	token := s.NewAPNsToken(topic, false)
	for name, turn := range map[string]func(string, bool) error{"online": s.SetOnline, "dozing": s.SetDozing, "demoted": s.SetDemoted} {
		if turn(token, true) == nil || turn("unknown", true) == nil {
			t.Errorf("%s: taken without a model", name)
		}
	}
	settings := s.Settings()
	settings.Delivery = sim.DeliveryReal
	if err := s.Adjust(settings); err != nil {
		t.Fatal(err)
	}
	if err := s.SetOnline(token, false); err != nil {
		t.Error(err)
	}
	if _, ok := s.Phone("unknown"); ok {
		t.Error("there is no such phone")
	}
	settings.Delivery = "slow"
	if err := s.Adjust(settings); err == nil || s.Settings().Delivery != sim.DeliveryReal {
		t.Errorf("%v", err)
	}
}
