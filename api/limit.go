package api

import (
	"hash/maphash"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
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

// on reports whether there is a limit at all.
func (r Rate) on() bool { return r.PerSecond > 0 }

// rateOf is a limit as it is kept.
func rateOf(l tokens.RateLimit) Rate {
	return Rate(l).or(Rate{Burst: int(math.Ceil(2 * l.PerSecond))})
}

// window is the time in which an empty bucket fills.
func (r Rate) window() time.Duration { return r.time(float64(r.Burst)) }

// time is how long so many take to come.
func (r Rate) time(n float64) time.Duration {
	const most = 365 * 24 * time.Hour // far below where a Duration ends
	return time.Duration(min(n/r.PerSecond, most.Seconds()) * float64(time.Second))
}

const (
	// limiterShards is how many locks a limiter's callers are spread over.
	limiterShards = 16
	// shardKept bounds the callers one shard knows, of those seen lately and of those seen before: 65536 a limiter, at about 200
	// bytes each.
	shardKept = 2048
)

// limiter holds back each caller of a kind by itself. It is each node's own.
type limiter[K comparable] struct {
	name string
	// refusal is the sentence for who is over it.
	refusal string
	seed    maphash.Seed
	shards  [limiterShards]shard[K]
}

// shard is some of a limiter's callers. One that has not called while shardKept others did is forgotten: it may begin anew, rather than
// memory be spent on all who ever called.
type shard[K comparable] struct {
	mu          sync.Mutex
	late, early map[K]*bucket // guarded by mu
}

type bucket struct {
	*rate.Limiter
	rate Rate
}

func newLimiter[K comparable](name, refusal string) *limiter[K] {
	l := &limiter[K]{name: name, refusal: refusal, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].late = map[K]*bucket{}
	}
	return l
}

// limiters are all that hold calls back.
type limiters struct {
	register, refuse, address *limiter[netip.Addr]
	device                    *limiter[ident.Device]
	key                       *limiter[ident.Key]
	app                       *limiter[ident.App]
}

func newLimiters() limiters {
	return limiters{
		register: newLimiter[netip.Addr]("registration", "too many calls of this kind from your address; slow down"),
		refuse:   newLimiter[netip.Addr]("failed-auth", "too many calls of this kind from your address; slow down"),
		address:  newLimiter[netip.Addr]("address", "too many calls from your address; slow down"),
		device:   newLimiter[ident.Device]("device", "too many calls of this device; slow down"),
		key:      newLimiter[ident.Key]("key", "too many calls with this key; slow down"),
		app:      newLimiter[ident.App]("app", "too many calls with the keys of this app; slow down"),
	}
}

// meter is one caller's limit.
type meter struct {
	name, refusal string
	rate          Rate
	bucket        *rate.Limiter
}

// meter finds who's bucket, and has it fill at the rate from now on.
func (l *limiter[K]) meter(who K, r Rate, now time.Time) meter {
	s := &l.shards[maphash.Comparable(l.seed, who)%limiterShards]
	return meter{name: l.name, refusal: l.refusal, rate: r, bucket: s.bucket(who, r, now)}
}

func (s *shard[K]) bucket(who K, r Rate, now time.Time) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.late[who]
	if b == nil {
		if len(s.late) >= shardKept {
			s.late, s.early = make(map[K]*bucket, shardKept), s.late
		}
		if b = s.early[who]; b == nil {
			b = &bucket{Limiter: rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst), rate: r}
		}
		s.late[who] = b
	}
	if b.rate != r {
		b.SetLimitAt(now, rate.Limit(r.PerSecond))
		b.SetBurstAt(now, r.Burst)
		b.rate = r
	}
	return b.Limiter
}

// spend uses up n, whether or not they are there, and returns how long it takes until what is owed has come.
func (m meter) spend(n int, now time.Time) (wait time.Duration) {
	for n > 0 {
		most := min(n, m.rate.Burst)                         // a bucket gives no more than that at once
		if owed := m.bucket.ReserveN(now, most); owed.OK() { // or its limit was changed a moment ago
			wait = owed.DelayFrom(now)
		}
		n -= most
	}
	return wait
}

// told is the limit that the client of a call is told of: the one with the least left.
type told struct {
	meter
	left float64
}

// count counts a call on a limit, and fails with fault.TooMany when nothing is left.
func (x *exchange) count(w http.ResponseWriter, m meter, now time.Time) error {
	ok := m.bucket.AllowN(now, 1)
	left := m.bucket.TokensAt(now)
	if x.told == nil || !ok || left < x.told.left {
		x.told = &told{m, left}
		x.told.write(w.Header())
	}
	if ok {
		return nil
	}
	return fault.New(fault.TooMany, "rate_limited", "%s", m.refusal).After(m.rate.time(1 - left))
}

// countMore counts n further messages of a call on the limits of its key and its app, which may owe them, and returns when both have
// what is owed. The client is told what is left then.
func (x *exchange) countMore(w http.ResponseWriter, n int, now time.Time) (wait time.Duration) {
	for _, m := range x.meters {
		wait = max(wait, m.spend(n, now))
		if left := m.bucket.TokensAt(now); left < x.told.left {
			x.told = &told{m, left}
		}
	}
	if x.told != nil && n > 0 {
		x.told.write(w.Header())
	}
	return wait
}

// write sets the headers of the IETF's draft.
func (t told) write(h http.Header) {
	full := t.rate.time(float64(t.rate.Burst) - t.left)
	quoted := append(strconv.AppendQuote(make([]byte, 0, 48), t.name), ';')
	policy := strconv.AppendInt(append(quoted, "q="...), int64(t.rate.Burst), 10)
	policy = append(append(policy, ";w="...), seconds(t.rate.window())...)
	h["Ratelimit-Policy"] = []string{string(policy)}
	limit := strconv.AppendInt(append(quoted, "r="...), int64(max(0, t.left)), 10)
	limit = strconv.AppendInt(append(limit, ";t="...), int64(math.Ceil(full.Seconds())), 10)
	h["Ratelimit"] = []string{string(limit)}
}

// hold counts a call on the limits of whoever was proven to make it.
func (a *API) hold(w http.ResponseWriter, r *http.Request, c caller, key tokens.Key) error {
	x, now := exchangeOf(r.Context()), time.Now()
	if c.kind == tokens.DeviceKey {
		if limit := a.deps.Limits.Devices; limit.on() {
			return x.count(w, a.limits.device.meter(c.device.ID, limit, now), now)
		}
		return nil
	}
	if c.app == "" {
		return nil // the administrator
	}
	if key.Rate.PerSecond > 0 {
		x.meters = append(x.meters, a.limits.key.meter(key.ID, rateOf(key.Rate), now))
	}
	// An app that cannot be read is no reason to refuse; what the call needs of the database will tell.
	if app, err := a.apps.get(r.Context(), c.app, now); err == nil && app.Rate.PerSecond > 0 {
		x.meters = append(x.meters, a.limits.app.meter(c.app, rateOf(app.Rate), now))
	}
	for _, m := range x.meters { // the key first: what it is refused, the app's other keys may use
		if err := x.count(w, m, now); err != nil {
			return err
		}
	}
	return nil
}

// holdAddress counts a call on the limit of the address it comes from.
func (a *API) holdAddress(w http.ResponseWriter, r *http.Request) error {
	limit := a.deps.Limits.Addresses
	if !limit.on() {
		return nil
	}
	now := time.Now()
	return exchangeOf(r.Context()).count(w, a.limits.address.meter(a.clientOf(r), limit, now), now)
}

// holdRegistration counts a registration with a publishable key on the limit of its address.
func (a *API) holdRegistration(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	return exchangeOf(r.Context()).count(w, a.limits.register.meter(a.clientOf(r), a.deps.Limits.Registrations, now), now)
}

// holdFailure counts a failed authentication on the limit of its address.
func (a *API) holdFailure(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	return exchangeOf(r.Context()).count(w, a.limits.refuse.meter(a.clientOf(r), a.deps.Limits.FailedAuth, now), now)
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
