package sim_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"rouse/providers/sim"
)

const (
	team  = "TEAM000001"
	keyID = "KEY0000001"
	topic = "com.example.app"
	body  = `{"aps":{"alert":{"body":"You have a new message"},"mutable-content":1},"rouse":"1"}`
)

// patience bounds whatever a test waits for; only a failing test takes so long.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a simulator for the test.
func start(t testing.TB, o sim.Options) *sim.Sim {
	t.Helper()
	s, err := sim.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func trust(t testing.TB, s *sim.Sim) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CAPEM()) {
		t.Fatal("CAPEM holds no certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// apple is a registered key with one client that speaks to APNs.
type apple struct {
	t      *testing.T
	sim    *sim.Sim
	key    string
	token  string
	bearer string
	client *http.Client
}

func newApple(t *testing.T, s *sim.Sim) *apple {
	t.Helper()
	key := s.NewAPNsKey(team, keyID)
	return &apple{
		t: t, sim: s, key: key, token: s.NewAPNsToken(topic, false),
		bearer: "bearer " + sign(t, key, jwt.SigningMethodES256, keyID, team, time.Now()),
		client: h2Client(t, s),
	}
}

func h2Client(t testing.TB, s *sim.Sim) *http.Client {
	t.Helper()
	transport := &http2.Transport{TLSClientConfig: trust(t, s)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// sign makes a provider token.
func sign(t testing.TB, key string, method jwt.SigningMethod, kid, issuer string, at time.Time) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims{"iss": issuer, "iat": at.Unix()})
	token.Header["kid"] = kid
	var secret any = []byte(key)
	if method == jwt.SigningMethodES256 {
		parsed, err := jwt.ParseECPrivateKeyFromPEM([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		secret = parsed
	}
	signed, err := token.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// ask is one request to APNs; a header set to "" is left out.
type ask struct {
	method, base, path, body string
	header                   map[string]string
	twice                    string // a header sent a second time
}

// said is the answer to it.
type said struct {
	status    int
	reason    string
	timestamp int64
	header    http.Header
	body      string
}

func (a *apple) request(ctx context.Context, q ask) *http.Request {
	a.t.Helper()
	if q.method == "" {
		q.method = http.MethodPost
	}
	if q.base == "" {
		q.base = a.sim.APNsURL()
	}
	if q.path == "" {
		q.path = "/3/device/" + a.token
	}
	if q.body == "" {
		q.body = body
	}
	r, err := http.NewRequestWithContext(ctx, q.method, q.base+q.path, strings.NewReader(strings.TrimPrefix(q.body, "-")))
	if err != nil {
		a.t.Fatal(err)
	}
	header := map[string]string{"authorization": a.bearer, "apns-topic": topic, "apns-push-type": "alert", "apns-priority": "10"}
	for name, value := range q.header {
		header[name] = value
	}
	for name, value := range header {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if q.twice != "" {
		r.Header.Add(q.twice, r.Header.Get(q.twice))
	}
	return r
}

// try sends a request and returns the answer or the error of the transport.
func (a *apple) try(ctx context.Context, q ask) (said, error) {
	a.t.Helper()
	return roundTrip(a.client, a.request(ctx, q))
}

// push sends a request that must be answered.
func (a *apple) push(q ask) said {
	a.t.Helper()
	got, err := a.try(within(a.t, patience), q)
	if err != nil {
		a.t.Fatal(err)
	}
	return got
}

func roundTrip(client *http.Client, r *http.Request) (said, error) {
	resp, err := client.Do(r)
	if err != nil {
		return said{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	got := said{status: resp.StatusCode, header: resp.Header, body: string(data)}
	var refusal struct {
		Reason    string `json:"reason"`
		Timestamp int64  `json:"timestamp"`
	}
	if json.Unmarshal(data, &refusal) == nil {
		got.reason, got.timestamp = refusal.Reason, refusal.Timestamp
	}
	return got, err
}

// waitFor polls until the condition holds: the thing waited for happens in
// another goroutine's bookkeeping and has no signal of its own.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never happened: %s", what)
		}
	}
}

func equalJSON(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Errorf("%v in %s", err, text)
	}
}
