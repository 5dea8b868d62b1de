package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rouse/fault"
)

func TestRepeatedSendWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f inflight
		release, err := f.enter(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		entered := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			again, err := f.enter(t.Context(), "k")
			if err != nil {
				t.Error(err)
				return
			}
			entered <- time.Since(began)
			again()
		}()
		other, err := f.enter(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		other()
		<-time.After(3 * time.Second) // the bubble's clock
		synctest.Wait()
		if len(entered) != 0 {
			t.Fatal("it did not wait")
		}
		release()
		if took := <-entered; took != 3*time.Second {
			t.Errorf("entered after %s", took)
		}
		synctest.Wait()
		if len(f.keys) != 0 {
			t.Errorf("%d keys are left", len(f.keys))
		}
	})
}

func TestRepeatedSendLosesPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f inflight
		release, err := f.enter(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		began := time.Now()
		_, err = f.enter(t.Context(), "k")
		if e := fault.From(err); e.Code != "idempotency_in_progress" || e.Kind != fault.Conflict || time.Since(began) != patience {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.enter(ctx, "k"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
