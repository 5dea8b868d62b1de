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
	l := newLimiter[string]("test", "slow down")
	now := time.Now()
	take := func(who string) (string, error) {
		w := httptest.NewRecorder()
		err := new(exchange).count(w, l.meter(who, Rate{PerSecond: 2, Burst: 3}, now), now)
		return w.Header().Get("RateLimit") + " " + w.Header().Get("RateLimit-Policy"), err
	}
	for i, want := range []string{`"test";r=2;t=1`, `"test";r=1;t=1`, `"test";r=0;t=2`} {
		if got, err := take("a"); err != nil || got != want+` "test";q=3;w=2` {
			t.Errorf("%d: %s %v", i, got, err)
		}
	}
	_, err := take("a")
	if e := fault.From(err); e.Kind != fault.TooMany || e.RetryAfter != 500*time.Millisecond || e.Detail != "slow down" {
		t.Errorf("got %v, wait %s", err, e.RetryAfter)
	}
	if _, err := take("b"); err != nil {
		t.Error("another caller pays for it")
	}
	now = now.Add(500 * time.Millisecond)
	if _, err := take("a"); err != nil {
		t.Error("it does not refill")
	}
}

func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter[int]("test", "slow down")
	now := time.Now()
	one := Rate{PerSecond: 0.001, Burst: 1}
	for i := range 4 * limiterShards * shardKept {
		l.meter(i, one, now).bucket.AllowN(now, 1)
	}
	kept := 0
	for i := range l.shards {
		kept += len(l.shards[i].late) + len(l.shards[i].early)
	}
	if most := 2 * limiterShards * shardKept; kept > most || kept < most/2 {
		t.Errorf("%d are kept", kept)
	}
	last := 4*limiterShards*shardKept - 1
	if l.meter(last, one, now).bucket.AllowN(now, 1) {
		t.Error("who was here last is forgotten")
	}
	if !l.meter(0, one, now).bucket.AllowN(now, 1) {
		t.Error("who was here first is still kept")
	}
}

func TestLimiterTakesANewRate(t *testing.T) {
	t.Parallel()
	l := newLimiter[string]("test", "slow down")
	now := time.Now()
	if m := l.meter("a", Rate{PerSecond: 1, Burst: 1}, now); !m.bucket.AllowN(now, 1) || m.bucket.AllowN(now, 1) {
		t.Fatal("a burst of one is not one")
	}
	now = now.Add(time.Second)
	m := l.meter("a", Rate{PerSecond: 100, Burst: 50}, now)
	now = now.Add(time.Second)
	if !m.bucket.AllowN(now, 50) || m.bucket.AllowN(now, 1) {
		t.Error("the new rate does not count")
	}
}

// TestTheTightestLimitIsTold: of several limits the client hears of the one with the least left, and of the one that refuses.
func TestTheTightestLimitIsTold(t *testing.T) {
	t.Parallel()
	key, app := newLimiter[string]("key", "k"), newLimiter[string]("app", "a")
	now := time.Now()
	call := func() (string, error) {
		w, x := httptest.NewRecorder(), &exchange{}
		for _, m := range []meter{key.meter("k", Rate{PerSecond: 1, Burst: 3}, now), app.meter("a", Rate{PerSecond: 10, Burst: 4}, now)} {
			x.meters = append(x.meters, m)
			if err := x.count(w, m, now); err != nil {
				return w.Header().Get("RateLimit"), err
			}
		}
		x.countMore(w, 1, now)
		return w.Header().Get("RateLimit"), nil
	}
	if got, err := call(); err != nil || got != `"key";r=1;t=2` {
		t.Errorf("%s %v", got, err)
	}
	now = now.Add(300 * time.Millisecond) // the app's is full again, the key's has 1.3
	if got, err := call(); err != nil || got != `"key";r=0;t=4` {
		t.Errorf("%s %v", got, err)
	}
	if got, err := call(); fault.From(err).Detail != "k" || got != `"key";r=0;t=4` {
		t.Errorf("%s %v", got, err)
	}
}

// TestABatchMayOwe: more than a bucket holds is owed, and paid back at its rate.
func TestABatchMayOwe(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := newLimiter[string]("test", "slow down").meter("a", Rate{PerSecond: 100, Burst: 10}, now)
	if wait := m.spend(5, now); wait != 0 {
		t.Errorf("waits %v for what is there", wait)
	}
	if wait := m.spend(500, now); wait.Round(time.Millisecond) != 4950*time.Millisecond {
		t.Errorf("500 of 5 at 100 a second are paid after %v", wait)
	}
	for after, want := range map[time.Duration]bool{4900 * time.Millisecond: false, 4970 * time.Millisecond: true} {
		if got := m.bucket.TokensAt(now.Add(after)) >= 1; got != want {
			t.Errorf("after %v it takes one: %v", after, got)
		}
	}
}

// BenchmarkCount is what a limit adds to a call, with all callers at once.
func BenchmarkCount(b *testing.B) {
	plenty := Rate{PerSecond: 1e9, Burst: 1e9}
	for name, callers := range map[string]int{"one key": 1, "10000 devices": 10000} {
		b.Run(name, func(b *testing.B) {
			l := newLimiter[int]("device", "slow down")
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w := httptest.NewRecorder()
				for i := 0; pb.Next(); i++ {
					now := time.Now()
					var x exchange
					if err := x.count(w, l.meter(i%callers, plenty, now), now); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
