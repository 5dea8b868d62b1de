package fcm

import (
	"crypto/x509"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/sim"
)

// TestAClockThatIsOff: Google refuses what seems to be signed in the future, or too long ago; it says what time it is.
func TestAClockThatIsOff(t *testing.T) {
	t.Parallel()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	checked, err := Check(providers.FCMUpload{ServiceAccount: s.NewServiceAccount("example-project")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	known, err := openSecret(checked.Secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute, 3 * time.Hour, -3 * time.Hour} {
		e := exchanger{secret: known, endpoint: s.FCMTokenURL(), roots: roots, now: func() time.Time { return time.Now().Add(ahead) }}
		g, err := e.fetch(t.Context())
		if err != nil || g.value == "" || g.life < 50*time.Minute || g.life > time.Hour {
			t.Errorf("a clock that is ahead by %v: life %v, %v", ahead, g.life, err)
		}
	}
	known.ClientEmail = "nobody@example.com"
	e := exchanger{secret: known, endpoint: s.FCMTokenURL(), roots: roots, now: func() time.Time { return time.Now().Add(time.Hour) }}
	if _, err := e.fetch(t.Context()); err == nil || !ofAccess(err).bad || ofAccess(err).skew < 50*time.Minute {
		t.Errorf("%v: an unknown account is refused by any clock", err)
	}
}
