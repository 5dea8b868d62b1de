package store

import (
	"errors"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// A send finds one more device of its user under its locks, and locks that then. The places it took before are not for that inbox: another
// node may have given later ones there meanwhile, and a cursor has passed them.
func TestAPlaceIsNotOlderThanTheLockOfItsInbox(t *testing.T) {
	t.Parallel()
	early := make([]ident.Device, 64) // sorted before any that comes later
	for i := range early {
		early[i] = ident.NewDevice()
	}
	all := nodes(t, 3, single)
	startAll(t, all)
	app, stays := populate(t, all[0])
	comes := early[0]
	for _, d := range early {
		if shardOf(string(d)) != shardOf(string(stays)) {
			comes = d
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	_, _, err := all[0].Register(t.Context(), tokens.Enrol{Registration: tokens.Registration{App: app, Installation: string(comes),
		Platform: tokens.Android, Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: comes, Now: now})
	must(err)
	must(all[0].BindUser(t.Context(), app, "anna", stays, now))

	held, free, holding := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		holding <- all[2].write(t.Context(), "hold", newOp(func(x *tx) error {
			if err := x.w.travel(); err != nil {
				return err
			}
			close(held)
			return x.holdOpen(free)
		}).locking(stays))
	}()
	<-held
	sent := make(chan messages.Receipt, 1)
	go func() {
		m := sendTo(app, "")
		m.To.User = "anna"
		r, err := all[0].Accept(t.Context(), m)
		if err != nil {
			t.Error(err)
		}
		sent <- r
	}()
	shardWaits(t, all[1], stays) // it has seen one device
	must(all[1].BindUser(t.Context(), app, "anna", comes, now))
	locked, go2, other := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	between := newAcceptance(sendTo(app, comes))
	go func() {
		other <- all[1].write(t.Context(), "send", newOp(func(x *tx) error {
			if err := x.w.travel(); err != nil {
				return err
			}
			close(locked)
			return errors.Join(x.holdOpen(go2), x.accept(&op{send: between, app: app}))
		}).locking(comes))
	}()
	<-locked
	close(free)
	shardWaits(t, all[1], comes) // it has its places, and wants the second device
	close(go2)
	must(<-other)
	must(<-holding)
	passed := between.receipt.Pending[0].Seq
	for _, p := range (<-sent).Pending {
		if p.Device == comes && p.Seq <= passed {
			t.Errorf("place %d was given where a cursor may stand at %d", p.Seq, passed)
		}
	}
}
