package store_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

func tokenSuperseded(t *testing.T, w *world) {
	older, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	newer, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) { e.Installation = "inst-2" }))
	w.must(err)
	got, err := w.Device(w.ctx(), w.app, older.ID)
	w.must(err)
	if got.TokenState != tokens.TokenSuperseded || got.Token != "" {
		t.Errorf("the older is %s", got.TokenState)
	}
	w.accept(older.ID)
	if p := w.inbox(older.ID, 10); len(p.Items) != 1 {
		t.Errorf("a superseded device reads %d messages", len(p.Items))
	}
	token := older.Token
	back, err := w.PatchDevice(w.ctx(), older.ID, tokens.Patch{Token: &token}, w.now)
	w.must(err)
	if back.TokenState != tokens.TokenActive || back.Generation != 2 {
		t.Errorf("taken back: %+v", back)
	}
	if got, err = w.Device(w.ctx(), w.app, newer.ID); err != nil || got.TokenState != tokens.TokenSuperseded {
		t.Errorf("the newer is %s, %v", got.TokenState, err)
	}
	sandbox, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) { e.Installation, e.Environment = "inst-3", tokens.Sandbox }))
	w.must(err)
	if got, err = w.Device(w.ctx(), w.app, older.ID); err != nil || got.TokenState != tokens.TokenActive || sandbox.TokenState != tokens.TokenActive {
		t.Errorf("the same token in another environment superseded it: %s, %v", got.TokenState, err)
	}
}

func tokenRefreshed(t *testing.T, w *world) {
	d, _, err := w.Register(w.ctx(), enrol(w.app, nil))
	w.must(err)
	w.mark(d, tokens.TokenDead, true)
	if got, err := w.Device(w.ctx(), w.app, d.ID); err != nil || got.TokenState != tokens.TokenDead || got.TokenReason != "why" {
		t.Fatalf("marked: %+v, %v", got, err)
	}
	later := w.now.Add(time.Hour)
	got, err := w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Token: &d.Token}, later)
	w.must(err)
	if got.TokenState != tokens.TokenActive || got.TokenReason != "" || got.Generation != d.Generation+1 || !got.RegisteredAt.Equal(later) {
		t.Errorf("refreshed: %+v", got)
	}
	locale := "fr"
	if got, err = w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Locale: &locale}, later); err != nil || got.Locale != "fr" || got.Generation != d.Generation+1 {
		t.Errorf("a patch without a token: %+v, %v", got, err)
	}
	_, err = w.PatchDevice(w.ctx(), ident.NewDevice(), tokens.Patch{}, later)
	w.refused(err, fault.NotFound, "device_not_found")
}

func tokenMoved(t *testing.T, w *world) {
	d := w.register(nil)
	w.mark(d, tokens.TokenSuspect, true, strike)
	w.now = w.now.Add(time.Hour)
	if changed, err := w.MoveToken(w.ctx(), d.ID, d.Generation, tokens.Production); changed || err != nil {
		t.Errorf("moved to where it is: %t, %v", changed, err)
	}
	if changed, err := w.MoveToken(w.ctx(), d.ID, d.Generation, tokens.Sandbox); !changed || err != nil {
		t.Errorf("moved: %t, %v", changed, err)
	}
	want := d
	want.Environment, want.Generation = tokens.Sandbox, d.Generation+1
	w.everywhere("moved", want)
	w.mark(d, tokens.TokenDead, false) // from before it moved
	other := w.register(func(e *tokens.Enrol) { e.Installation = "inst-2" })
	if other.TokenState != tokens.TokenActive {
		t.Errorf("the place it left is taken: %+v", other)
	}
	w.everywhere("not superseded from the other environment", want)
}

func tokenMovedOnto(t *testing.T, w *world) {
	for name, c := range map[string]struct {
		later time.Duration // how much later than the mover the other registered it where it belongs
		dead  bool
		moved tokens.TokenState
		other tokens.TokenState
	}{
		"the other was earlier":        {later: -time.Minute, moved: tokens.TokenActive, other: tokens.TokenSuperseded},
		"the other was later":          {later: time.Minute, moved: tokens.TokenSuperseded, other: tokens.TokenActive},
		"at once, and the other newer": {later: 0, moved: tokens.TokenSuperseded, other: tokens.TokenActive},
		"the other was later and dead": {later: time.Minute, dead: true, moved: tokens.TokenSuperseded, other: tokens.TokenActive},
	} {
		token := tokens.Token(ident.NewDevice())
		at := w.now.Add(time.Hour)
		mover := w.register(func(e *tokens.Enrol) { e.Installation, e.Token, e.Now = name+" mover", token, at })
		other := w.register(func(e *tokens.Enrol) {
			e.Installation, e.Environment, e.Token, e.Now = name+" other", tokens.Sandbox, token, at.Add(c.later)
		})
		w.mark(mover, tokens.TokenSuspect, true, strike, elsewhere)
		w.mark(other, tokens.TokenSuspect, true, strike, elsewhere)
		if c.dead {
			w.mark(other, tokens.TokenDead, true)
		}
		if changed, err := w.MoveToken(w.ctx(), mover.ID, mover.Generation, tokens.Sandbox); !changed || err != nil {
			t.Errorf("%s: %t, %v", name, changed, err)
		}
		mover.Environment, mover.TokenState, other.TokenState = tokens.Sandbox, c.moved, c.other
		if c.moved == tokens.TokenSuperseded {
			mover.Token = ""
		} else {
			mover.Generation, other.Token = mover.Generation+1, ""
		}
		w.everywhere(name+": the mover", mover)
		w.everywhere(name+": the other", other)
	}
}

// tokenHeldOnce has three phones of one app, and the provider, do whatever they can in any order.
func tokenHeldOnce(t *testing.T, w *world) {
	seed := time.Now().UnixNano()
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	pick := func(n int) int { return random.IntN(n) }
	spellings := []tokens.Token{"0011223344556677", "8899aabbccddeeff"}
	places := []tokens.Environment{tokens.Production, tokens.Sandbox}
	var devices []tokens.Device
	for _, name := range []string{"a", "b", "c"} {
		devices = append(devices, w.register(func(e *tokens.Enrol) { e.Installation, e.Token = name, spellings[0] }))
	}
	for step := range 300 {
		w.now = w.now.Add(time.Second)
		i := pick(len(devices))
		d, token, place := devices[i], spellings[pick(2)], places[pick(2)]
		var err error
		what := pick(6)
		switch what {
		case 0:
			_, err = w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Token: &token, Environment: &place}, w.now)
		case 1:
			_, _, err = w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
				e.As, e.Device, e.Installation, e.Environment, e.Token, e.Now = tokens.DeviceKey, d.ID, d.Installation, place, token, w.now
			}))
		case 2, 3:
			_, err = w.MoveToken(w.ctx(), d.ID, d.Generation, place)
		case 4:
			_, err = w.MarkToken(w.ctx(), tokens.TokenMark{Device: d.ID, Generation: d.Generation - int64(pick(2)), At: w.now, Strike: pick(2) == 1,
				State: []tokens.TokenState{tokens.TokenActive, tokens.TokenSuspect, tokens.TokenDead}[pick(3)]})
		case 5:
			w.credential(tokens.APNs)
		}
		if err != nil {
			t.Fatalf("seed %d, step %d, act %d: %v", seed, step, what, err)
		}
		holders := map[string]ident.Device{}
		for i, before := range devices {
			now, err := w.Device(w.ctx(), w.app, before.ID)
			w.must(err)
			holds := now.TokenState != tokens.TokenNone && now.TokenState != tokens.TokenSuperseded
			key := string(now.Environment) + string(now.Token)
			if other, taken := holders[key]; holds && taken || holds != (now.Token != "") || now.Generation < before.Generation ||
				now.TokenState == tokens.TokenActive && (now.Strikes != 0 || now.OtherTried || now.TokenReason != "") {
				t.Fatalf("seed %d, step %d, act %d: %+v, while %q holds the same token; it was %+v", seed, step, what, now, other, before)
			}
			if devices[i] = now; holds {
				holders[key] = now.ID
			}
		}
		if len(holders) == 0 {
			t.Fatalf("seed %d, step %d, act %d: nobody holds a token any more: %+v", seed, step, what, devices)
		}
	}
}
