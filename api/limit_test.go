package api

import (
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"rouse/fault"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		trusted      []netip.Prefix
		want         string
	}{
		{"the peer", "192.0.2.1:1234", nil, nil, "192.0.2.1"},
		{"nobody is trusted", "192.0.2.1:1", []string{"198.51.100.1"}, nil, "192.0.2.1"},
		{"a stranger may not say", "192.0.2.1:1", []string{"198.51.100.1"}, proxies, "192.0.2.1"},
		{"a proxy may", "10.0.0.1:1", []string{"198.51.100.1"}, proxies, "198.51.100.1"},
		{"the last that is no proxy", "10.0.0.1:1", []string{"203.0.113.9, 198.51.100.1", "10.0.0.2"}, proxies, "198.51.100.1"},
		{"nonsense ends it", "10.0.0.1:1", []string{"198.51.100.1, nonsense"}, proxies, "10.0.0.1"},
		{"nothing said", "10.0.0.1:1", nil, proxies, "10.0.0.1"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.1]:1", nil, nil, "192.0.2.1"},
		{"an IPv6 network", "[2001:db8:1:2:3:4:5:6]:1", nil, nil, "2001:db8:1:2::"},
		{"a zone", "[fe80::1%eth0]:1", nil, nil, "fe80::"},
		{"no address", "@", nil, nil, "invalid IP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.remote
			for _, f := range c.forwarded {
				r.Header.Add("X-Forwarded-For", f)
			}
			a := &API{deps: Deps{Limits: Limits{TrustedProxies: c.trusted}}}
			if got := a.clientOf(r).String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestLimiterRefills(t *testing.T) {
	t.Parallel()
	l := newLimiter("test", Rate{PerSecond: 2, Burst: 3})
	who, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	now := time.Now()
	take := func(who netip.Addr) (string, error) {
		w := httptest.NewRecorder()
		err := l.take(w, who, now)
		return w.Header().Get("RateLimit") + " " + w.Header().Get("RateLimit-Policy"), err
	}
	for i, want := range []string{`"test";r=2;t=1`, `"test";r=1;t=1`, `"test";r=0;t=2`} {
		if got, err := take(who); err != nil || got != want+` "test";q=3;w=2` {
			t.Errorf("%d: %s %v", i, got, err)
		}
	}
	_, err := take(who)
	if e := fault.From(err); e.Kind != fault.TooMany || e.RetryAfter != 500*time.Millisecond {
		t.Errorf("got %v, wait %s", err, e.RetryAfter)
	}
	if _, err := take(other); err != nil {
		t.Error("another address pays for it")
	}
	now = now.Add(500 * time.Millisecond)
	if _, err := take(who); err != nil {
		t.Error("it does not refill")
	}
}

func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter("test", Rate{PerSecond: 1, Burst: 1})
	now := time.Now()
	w := httptest.NewRecorder()
	for i := range addressesKept + 10 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if err := l.take(w, addr, now.Add(time.Duration(i)*time.Microsecond)); err != nil {
			t.Fatal(err)
		}
		if len(l.by) > addressesKept {
			t.Fatalf("%d addresses", len(l.by))
		}
	}
}
