package store

import (
	"errors"
	"testing"
	"time"

	"rouse/ident"
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
	late := sendLate(t, all, app, stays, comes)
	must(all[1].BindUser(t.Context(), app, "anna", comes, time.Now()))
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
	close(late.free)
	shardWaits(t, all[1], comes) // it has its places, and wants the second device
	close(go2)
	must(<-other)
	must(<-late.holding)
	passed := between.receipt.Pending[0].Seq
	for _, p := range (<-late.sent).Pending {
		if p.Device == comes && p.Seq <= passed {
			t.Errorf("place %d was given where a cursor may stand at %d", p.Seq, passed)
		}
	}
}
