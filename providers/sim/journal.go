package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"
)

// How much the journal keeps.
const (
	// LogLimit is how many entries Log holds; the oldest go first.
	LogLimit        = 4096
	violationsLimit = 100
	jwtLimit        = 10000
)

// Entry is one request as a fake saw it, or a connection that a rule has spoilt: that
// has a fault and no method. Secrets are not in it: a bearer token or
// assertion shows as a fingerprint, the same for the same value.
type Entry struct {
	// N counts entries from 1 since the start or the last Reset.
	N int `json:"n"`
	// Provider is APNs, FCM or Token.
	Provider string `json:"provider"`
	// Environment is production or sandbox at APNs, empty elsewhere.
	Environment string `json:"environment,omitempty"`
	Method      string `json:"method"`
	Path        string `json:"path"`
	// Token is the device token, or the account's e-mail address at the token endpoint.
	Token string `json:"token,omitempty"`
	// Headers have lower-case names; of a repeated one the first. Read only.
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	// Connection numbers the TCP connections from 1 since the start.
	Connection int `json:"connection"`
	// Stream is the HTTP/2 stream at APNs, 0 elsewhere.
	Stream uint32 `json:"stream,omitempty"`
	// Status is the answer, 0 if a fault kept the request from being processed.
	Status int `json:"status"`
	// Reason is the APNs reason, FCM error code or OAuth error; empty on success.
	Reason string `json:"reason,omitempty"`
	// Fault is what a rule did besides; client_gone if the client gave up during a Delay.
	Fault string    `json:"fault,omitempty"`
	At    time.Time `json:"at"`
}

// Stats are counters since the start or the last Reset.
type Stats struct {
	// APNs counts both environments.
	APNs ProviderStats `json:"apns"`
	FCM  ProviderStats `json:"fcm"`
	// Token counts calls of the OAuth token endpoint; its connections are FCM's.
	Token ProviderStats `json:"token"`
	// Violations are sentences about what clients did that the protocol forbids or
	// the provider advises against; the first 100.
	Violations []string `json:"violations"`
}

// ProviderStats are the counters of one provider.
type ProviderStats struct {
	// ConnectionsOpened counts TCP connections; ConnectionsOpen is how many are open now.
	ConnectionsOpened int `json:"connections_opened"`
	ConnectionsOpen   int `json:"connections_open"`
	// Requests counts complete requests; Accepted and Rejected those answered with and without 2xx.
	Requests int `json:"requests"`
	Accepted int `json:"accepted"`
	Rejected int `json:"rejected"`
	// RefusedStreams counts streams over the limit at APNs; they are not requests.
	RefusedStreams int `json:"refused_streams"`
	// PeakStreams is the most requests that one connection had in hand at a time.
	PeakStreams int `json:"peak_streams"`
	// DistinctJWTs counts different provider tokens at APNs, access tokens at FCM, assertions at the token endpoint.
	DistinctJWTs int `json:"distinct_jwts"`
	Violations   int `json:"violations"`
}

// Log returns the latest requests, oldest first, at most LogLimit.
func (s *Sim) Log() []Entry { return s.journal.entries() }

// Stats returns the counters.
func (s *Sim) Stats() Stats { return s.journal.snapshot() }

// journal remembers what happened.
type journal struct {
	mu          sync.Mutex
	connections int // ever, across Reset
	n           int
	ring        []Entry // ring[(n-1) % LogLimit] is the newest
	stats       Stats
	jwts        map[string]map[string]struct{} // provider -> fingerprints
}

func newJournal() *journal {
	return &journal{jwts: map[string]map[string]struct{}{APNs: {}, FCM: {}, Token: {}}}
}

// of returns the counters of a provider; the control API's go nowhere.
func (j *journal) of(provider string) *ProviderStats {
	switch provider {
	case APNs:
		return &j.stats.APNs
	case FCM:
		return &j.stats.FCM
	case Token:
		return &j.stats.Token
	}
	return &ProviderStats{}
}

func (j *journal) opened(provider string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.of(provider)
	p.ConnectionsOpened++
	p.ConnectionsOpen++
	j.connections++
	return j.connections
}

func (j *journal) closed(provider string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.of(provider).ConnectionsOpen--
}

// streams notes that a connection has so many requests in hand.
func (j *journal) streams(provider string, now int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p := j.of(provider); now > p.PeakStreams {
		p.PeakStreams = now
	}
}

func (j *journal) refused(provider string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.of(provider).RefusedStreams++
}

// violation notes something a client should not have done.
func (j *journal) violation(provider, sentence string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.of(provider).Violations++
	if len(j.stats.Violations) < violationsLimit {
		j.stats.Violations = append(j.stats.Violations, provider+": "+sentence)
	}
}

// record notes a finished request; secret is its JWT, bearer or assertion.
func (j *journal) record(e Entry, secret string) {
	print := fingerprint(secret)
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.of(e.Provider)
	p.Requests++
	switch {
	case e.Status >= 200 && e.Status < 300:
		p.Accepted++
	case e.Status != 0:
		p.Rejected++
	}
	if seen := j.jwts[e.Provider]; secret != "" && len(seen) < jwtLimit {
		seen[print] = struct{}{}
		p.DistinctJWTs = len(seen)
	}
	j.keep(e)
}

// note keeps an entry that is no request.
func (j *journal) note(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.keep(e)
}

// keep numbers an entry and puts it into the ring.
func (j *journal) keep(e Entry) {
	j.n++
	e.N = j.n
	if len(j.ring) < LogLimit {
		j.ring = append(j.ring, e)
	} else {
		j.ring[(j.n-1)%LogLimit] = e
	}
}

func (j *journal) entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.n <= LogLimit {
		return append([]Entry{}, j.ring...)
	}
	oldest := j.n % LogLimit
	return append(append([]Entry{}, j.ring[oldest:]...), j.ring[:oldest]...)
}

func (j *journal) snapshot() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Violations = append([]string{}, s.Violations...)
	return s
}

// reset forgets entries and counters, but not which connections are open.
func (j *journal) reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	apns, fcm := j.stats.APNs.ConnectionsOpen, j.stats.FCM.ConnectionsOpen
	j.n, j.ring, j.stats = 0, nil, Stats{}
	j.stats.APNs.ConnectionsOpen, j.stats.FCM.ConnectionsOpen = apns, fcm
	for provider := range j.jwts {
		j.jwts[provider] = map[string]struct{}{}
	}
}

// fingerprint stands for a secret in the log.
func fingerprint(secret string) string {
	if secret == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:6])
}
