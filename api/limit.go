package api

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rouse/fault"
)

// Rate is a token bucket: so many a second, and so many at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

func (r Rate) or(def Rate) Rate {
	if r.PerSecond <= 0 {
		r.PerSecond = def.PerSecond
	}
	if r.Burst <= 0 {
		r.Burst = def.Burst
	}
	return r
}

// window is the time in which an empty bucket fills.
func (r Rate) window() time.Duration {
	return time.Duration(float64(r.Burst) / r.PerSecond * float64(time.Second))
}

// addressesKept bounds a limiter, at about 150 bytes each.
const addressesKept = 65536

// limiter is one limit by address.
type limiter struct {
	name string
	rate Rate

	mu sync.Mutex
	by map[netip.Addr]*bucket // guarded by mu
}

type bucket struct {
	*rate.Limiter
	last time.Time
}

func newLimiter(name string, r Rate) *limiter {
	return &limiter{name: name, rate: r, by: map[netip.Addr]*bucket{}}
}

// take uses one up, tells the client what is left, and fails with fault.TooMany when nothing is.
func (l *limiter) take(w http.ResponseWriter, who netip.Addr, now time.Time) error {
	l.mu.Lock()
	b := l.bucket(who, now)
	ok := b.AllowN(now, 1)
	left := b.TokensAt(now)
	l.mu.Unlock()
	window := l.rate.window()
	full := time.Duration((float64(l.rate.Burst) - left) / l.rate.PerSecond * float64(time.Second))
	w.Header().Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%s", l.name, l.rate.Burst, seconds(window)))
	w.Header().Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", l.name, max(0, int(left)), int(math.Ceil(full.Seconds()))))
	if ok {
		return nil
	}
	wait := time.Duration((1 - left) / l.rate.PerSecond * float64(time.Second))
	return fault.New(fault.TooMany, "rate_limited", "too many calls of this kind from your address; slow down").After(wait)
}

// bucket is called with mu held.
func (l *limiter) bucket(who netip.Addr, now time.Time) *bucket {
	b := l.by[who]
	if b == nil {
		l.room(now)
		b = &bucket{Limiter: rate.NewLimiter(rate.Limit(l.rate.PerSecond), l.rate.Burst)}
		l.by[who] = b
	}
	b.last = now
	return b
}

// room keeps the map within its bound: buckets that are full again say nothing, and if
// none is, all are forgotten rather than memory spent. It is called with mu held.
func (l *limiter) room(now time.Time) {
	if len(l.by) < addressesKept {
		return
	}
	for who, b := range l.by {
		if now.Sub(b.last) >= l.rate.window() {
			delete(l.by, who)
		}
	}
	if len(l.by) >= addressesKept {
		clear(l.by)
	}
}

// clientOf is the address limits go by: the peer, or, if that is a trusted proxy, the last address in
// X-Forwarded-For that is not. An IPv6 client is its /64, for it has all of that.
func (a *API) clientOf(r *http.Request) netip.Addr {
	client := peerOf(r)
	trusted := func(addr netip.Addr) bool {
		return slices.ContainsFunc(a.deps.Limits.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && trusted(client); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = hop.Unmap()
	}
	if client.Is6() {
		if net, err := client.WithZone("").Prefix(64); err == nil {
			return net.Addr()
		}
	}
	return client
}

// peerOf is who is connected; the zero address, one for all, if that has no address.
func peerOf(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}
