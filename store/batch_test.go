package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

// What is acked in a batch makes room for the sends of that batch, and for no more.
func TestAnAckMakesRoomForTheSendsOfItsBatch(t *testing.T) {
	t.Parallel()
	const room = 3
	data := int64(len(sendTo("", "").Data))
	for name, limit := range map[string]func(*Options){
		"messages": func(o *Options) { o.InboxMessages = room },
		"bytes":    func(o *Options) { o.InboxBytes = room * data },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openFile(t, "", limit)
			stop := start(t, s)
			app, device := populate(t, s)
			acceptOne := func() (messages.Receipt, error) { return s.Accept(context.Background(), sendTo(app, device)) }
			var last messages.Seq
			for range room {
				r, err := acceptOne()
				if err != nil {
					t.Fatal(err)
				}
				last = r.Pending[0].Seq
			}
			if _, err := acceptOne(); !isFault(err, "inbox_full") {
				t.Fatalf("beyond the limit: %v", err)
			}
			ack := newOp(func(x *tx) error {
				_, err := x.ackUpTo(device, last, time.Now())
				return err
			})
			receipts := together(t, s, room, app, device, ack)
			allThere(t, s, device, receipts)
			if _, err := acceptOne(); !isFault(err, "inbox_full") {
				t.Errorf("beyond the limit again: %v", err)
			}
			stop()
		})
	}
}

// Whatever ends with its device leaves no gap to tell of, in one batch with it or later.
func TestWhatExpiresWithItsDeviceLeavesNoGap(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*tx, ident.Device) error{
		"deleted": func(x *tx, d ident.Device) error { return x.deleteDevice(d) },
		"unregistered": func(x *tx, d ident.Device) error {
			device, err := x.anyDevice(d)
			return errors.Join(err, x.unregister(device, time.Now()))
		},
		"stays": func(*tx, ident.Device) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openFile(t, "")
			stop := start(t, s)
			app, device := populate(t, s)
			for range 2 {
				if _, err := s.Accept(context.Background(), sendTo(app, device)); err != nil {
					t.Fatal(err)
				}
			}
			over := time.Now().Add(messages.DefaultTTL + time.Hour)
			expireOne := func(x *tx) error { _, err := x.expire(millis(over), 1); return err }
			leaveAndExpire := newOp(func(x *tx) error {
				return errors.Join(expireOne(x), leave(x, device), expireOne(x))
			})
			if err := s.write(context.Background(), "leave", leaveAndExpire); err != nil {
				t.Fatal(err)
			}
			var gaps, want int
			if err := s.reads.get(context.Background(), &gaps, "SELECT COUNT(*) FROM gaps"); err != nil {
				t.Fatal(err)
			}
			if name == "stays" {
				want = 1
			}
			if gaps != want {
				t.Errorf("%d gaps, want %d", gaps, want)
			}
			stop()
		})
	}
}

func isFault(err error, code string) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == code
}
