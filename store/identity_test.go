package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/store"
	"rouse/tokens"
)

var identityTests = map[string]func(*testing.T, *world){
	"identity keys come, are replaced and go":      identityLife,
	"an app has a bounded number of identity keys": identitiesBounded,
	"identity keys are sealed":                     identitySealed,
}

func identityKey(app ident.App, kid string, at time.Time) tokens.IdentityKey {
	return tokens.IdentityKey{App: app, Kid: kid, Algorithm: tokens.HS256, Fingerprint: "f of " + kid, Material: []byte("secret of " + kid), CreatedAt: at}
}

func (w *world) identities(app ident.App, want ...tokens.IdentityKey) {
	w.t.Helper()
	got, err := w.IdentityKeys(w.ctx(), app)
	w.must(err)
	if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
		w.t.Error(diff)
	}
}

func identityLife(t *testing.T, w *world) {
	a, b := identityKey(w.app, "a", w.now), identityKey(w.app, "b", w.now)
	w.must(w.PutIdentityKey(w.ctx(), b))
	w.must(w.PutIdentityKey(w.ctx(), a))
	w.identities(w.app, a, b)
	other := testkit.App(t, w.Store).ID
	w.identities(other)
	foreign := identityKey(other, "a", w.now)
	w.must(w.PutIdentityKey(w.ctx(), foreign))
	a.Algorithm, a.Material, a.Fingerprint, a.CreatedAt = tokens.EdDSA, []byte("PEM"), "g", w.now.Add(time.Minute)
	w.must(w.PutIdentityKey(w.ctx(), a))
	w.identities(w.app, a, b)
	w.must(w.DeleteIdentityKey(w.ctx(), w.app, "a"))
	w.refused(w.DeleteIdentityKey(w.ctx(), w.app, "a"), fault.NotFound, "identity_key_not_found")
	w.identities(w.app, b)
	w.identities(other, foreign)
	nobody := ident.NewApp()
	w.refused(w.PutIdentityKey(w.ctx(), identityKey(nobody, "a", w.now)), fault.NotFound, "app_not_found")
	_, err := w.IdentityKeys(w.ctx(), nobody)
	w.refused(err, fault.NotFound, "app_not_found")
	w.must(w.DeleteApp(w.ctx(), w.app))
	w.refused(w.DeleteIdentityKey(w.ctx(), w.app, "b"), fault.NotFound, "identity_key_not_found")
	w.identities(other, foreign)
}

func identitiesBounded(_ *testing.T, w *world) {
	for i := range tokens.MaxIdentityKeys {
		w.must(w.PutIdentityKey(w.ctx(), identityKey(w.app, fmt.Sprint("k", i), w.now)))
	}
	w.refused(w.PutIdentityKey(w.ctx(), identityKey(w.app, "one more", w.now)), fault.Invalid, "too_many_identity_keys")
	w.must(w.PutIdentityKey(w.ctx(), identityKey(w.app, "k7", w.now.Add(time.Hour))))
}

func identitySealed(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "secret of a") }) })
	w.must(w.PutIdentityKey(w.ctx(), identityKey(w.app, "a", w.now)))
}

// A new master key seals from now on; what the old one sealed opens as long as it is there, and without it no node starts.
func TestIdentityKeysOutliveAChangeOfMasterKeys(t *testing.T) {
	t.Parallel()
	for engine, place := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			old, fresh := tokens.NewRingKey("old"), tokens.NewRingKey("fresh")
			ring := func(keys string) *tokens.Ring {
				r, err := tokens.ParseRing(keys)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			dsn, now := place(t), time.Now().Truncate(time.Millisecond).UTC()
			s, stop := openAt(t, dsn, ring(old))
			app := testkit.App(t, s).ID
			before := identityKey(app, "before", now)
			if err := s.PutIdentityKey(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			stop()
			s, stop = openAt(t, dsn, ring(fresh+","+old))
			after := identityKey(app, "then", now)
			if err := s.PutIdentityKey(t.Context(), after); err != nil {
				t.Error(err)
			}
			got, err := s.IdentityKeys(t.Context(), app)
			if diff := cmp.Diff([]tokens.IdentityKey{before, after}, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
			stop()
			for _, lacking := range []string{old, fresh} {
				s, err := store.Open(t.Context(), store.Options{DSN: dsn, Ring: ring(lacking)})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if err := s.Run(ctx); err == nil {
					t.Error("a node runs without a key that sealed")
				}
				cancel()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
