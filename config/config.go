// Package config turns the operator's words into settings that are whole and
// right, or into the full list of what is wrong. It reads no environment:
// the command hands it what was given.
package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"rouse/store"
	"rouse/tokens"
)

// MinAdminKey is the least length of the administrator's key, in characters.
const MinAdminKey = 24

// Raw is what was given, word for word; an empty field was left out.
type Raw struct {
	// Listen is host:port for the API.
	Listen string
	// OpsListen is host:port for /livez, /readyz and /metrics; it must not be public.
	OpsListen string
	// DB is "sqlite:PATH" or "postgres://user:password@host:5432/name".
	DB DSN
	// Bus is auto, memory, postgres, a DSN of PostgreSQL, or the URLs of NATS servers.
	Bus DSN
	// DBConns is how many connections a node may take to PostgreSQL.
	DBConns string
	// AdminKey is the instance's administrator key.
	AdminKey tokens.Secret
	// MasterKeys is "id:base64 of 32 bytes", comma separated.
	MasterKeys Hidden

	// APNsEndpoint and APNsSandboxEndpoint are https://host[:port], without a path; empty is Apple's own.
	APNsEndpoint        string
	APNsSandboxEndpoint string
	// APNsCA is a PEM file of the authorities to trust instead of the system's.
	APNsCA string
	// FCMEndpoint is a base URL including /v1; empty is Google's own.
	FCMEndpoint string
	// FCMTokenEndpoint is where OAuth tokens come from; empty is Google's own.
	FCMTokenEndpoint string
	// FCMCA is a PEM file of the authorities to trust instead of the system's.
	FCMCA string

	// TrustedProxies is CIDRs, comma separated, whose X-Forwarded-For is believed.
	TrustedProxies string
	// RegistrationLimit and FailedAuthLimit are "PER_SECOND:BURST" for one address.
	RegistrationLimit string
	FailedAuthLimit   string
	// DeviceLimit and AddressLimit are "PER_SECOND:BURST", or "off", for all calls of one device and from one address.
	DeviceLimit  string
	AddressLimit string

	// WebhookAllow is CIDRs, comma separated, of internal addresses that events may be posted to.
	WebhookAllow string

	// LogLevel is debug, info, warn or error.
	LogLevel string
	// LogFormat is text or json.
	LogFormat string
	// Grace is how long a device that was served on a poll may stay silent before it is pushed.
	Grace string
	// DrainTimeout is how long an ordered stop may take.
	DrainTimeout string
}

// Hidden is a setting that must not be printed.
type Hidden string

// String returns a redacted form.
func (h Hidden) String() string {
	if h == "" {
		return ""
	}
	return "[redacted]"
}

// GoString returns a redacted form.
func (h Hidden) GoString() string { return h.String() }

// LogValue returns a redacted form.
func (h Hidden) LogValue() slog.Value { return slog.StringValue(h.String()) }

// Endpoints is where the push providers are. It is the operator's alone: no
// app can choose where a request goes. Empty means the provider's own.
type Endpoints struct {
	APNs        string
	APNsSandbox string
	// APNsCA is nil for the system's authorities.
	APNsCA   *x509.CertPool
	FCM      string
	FCMToken string
	// FCMCA is nil for the system's authorities.
	FCMCA *x509.CertPool
}

// Limit is a bucket: so many a second, and so many at once.
type Limit struct {
	PerSecond float64
	Burst     int
}

// Serve is the checked settings of one node.
type Serve struct {
	Listen    string
	OpsListen string
	// DSN is "sqlite:PATH", Path its file; or PostgreSQL's, and Path is empty.
	DSN  DSN
	Path string
	Bus  Bus
	// DBConns is how many connections the node may take to PostgreSQL, those of the bus not counted: store.MinConnections to 1000.
	DBConns int
	// AdminKey is at least MinAdminKey characters.
	AdminKey tokens.Secret
	// MasterKeys is empty if the key file beside the database is to be used, on SQLite alone.
	MasterKeys Hidden
	Endpoints  Endpoints
	// TrustedProxies is whose X-Forwarded-For is believed; empty is nobody's.
	TrustedProxies []netip.Prefix
	// Registrations and FailedAuth are the limits of one address.
	Registrations Limit
	FailedAuth    Limit
	// WebhookAllow is which internal addresses events may be posted to; empty is none.
	WebhookAllow []netip.Prefix
	// Devices and Addresses are the limits of one device and of one address; zero for none.
	Devices   Limit
	Addresses Limit
	LogLevel  slog.Level
	LogJSON   bool
	// Grace is 100 ms to 5 min.
	Grace time.Duration
	// DrainTimeout is 1 s to 5 min.
	DrainTimeout time.Duration
}

// Check reads r. The error joins every mistake, one a line, each naming its
// setting and what it should be; none repeats a secret.
func Check(r Raw) (Serve, error) {
	c := &checker{}
	s := Serve{
		Listen:    c.address("listen", r.Listen),
		OpsListen: c.address("ops-listen", r.OpsListen),
		DBConns:   c.number("db-conns", r.DBConns, store.MinConnections, 1000),
		AdminKey:  c.adminKey(r.AdminKey),
		Endpoints: Endpoints{
			APNs:        c.origin("apns-endpoint", r.APNsEndpoint),
			APNsSandbox: c.origin("apns-sandbox-endpoint", r.APNsSandboxEndpoint),
			APNsCA:      c.pool("apns-ca", r.APNsCA),
			FCM:         c.endpoint("fcm-endpoint", r.FCMEndpoint, "https", "http"),
			FCMToken:    c.endpoint("fcm-token-endpoint", r.FCMTokenEndpoint, "https", "http"),
			FCMCA:       c.pool("fcm-ca", r.FCMCA),
		},
		MasterKeys:     c.masterKeys(r.MasterKeys),
		TrustedProxies: c.prefixes("trusted-proxies", r.TrustedProxies),
		Registrations:  c.limit("registration-limit", r.RegistrationLimit),
		FailedAuth:     c.limit("failed-auth-limit", r.FailedAuthLimit),
		Devices:        c.limitOrOff("device-limit", r.DeviceLimit),
		Addresses:      c.limitOrOff("address-limit", r.AddressLimit),
		WebhookAllow:   c.prefixes("webhook-allow", r.WebhookAllow),
		LogLevel:       c.level(r.LogLevel),
		LogJSON:        c.oneOf("log-format", r.LogFormat, "text", "json") == "json",
		Grace:          c.duration("grace", r.Grace, 100*time.Millisecond, 5*time.Minute),
		DrainTimeout:   c.duration("drain-timeout", r.DrainTimeout, time.Second, 5*time.Minute),
	}
	s.DSN, s.Path = c.db(r.DB)
	s.Bus = c.bus(r.Bus, s.DSN)
	if r.DB.IsPostgres() && r.MasterKeys == "" {
		c.bad("master-keys", "is missing: give what the other nodes on this PostgreSQL have; for a new database `rouse keys generate master` makes one")
	}
	if s.Listen != "" && s.Listen == s.OpsListen && !strings.HasSuffix(s.Listen, ":0") {
		c.bad("ops-listen", "is the same as listen; the operations listener must not be public")
	}
	return s, errors.Join(c.mistakes...)
}

// CheckDB reads the database setting alone, for commands that need no other. path is the database's file, empty on PostgreSQL.
func CheckDB(db string) (dsn, path string, err error) {
	c := &checker{}
	checked, path := c.db(DSN(db))
	return string(checked), path, errors.Join(c.mistakes...)
}

// Env returns the environment variable of the setting with the given flag name.
func Env(flag string) string {
	return "ROUSE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

type checker struct{ mistakes []error }

// bad notes one mistake. detail must not repeat a secret.
func (c *checker) bad(flag, format string, args ...any) {
	c.mistakes = append(c.mistakes, fmt.Errorf("--%s (%s) %s", flag, Env(flag), fmt.Sprintf(format, args...)))
}

func (c *checker) address(flag, value string) string {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		c.bad(flag, "is %q; it is host:port, such as 127.0.0.1:8080 or :8080", value)
		return ""
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		c.bad(flag, "has the port %q; a port is 0 to 65535", port)
		return ""
	}
	return value
}

func (c *checker) adminKey(key tokens.Secret) tokens.Secret {
	switch {
	case key == "":
		c.bad("admin-key", "is missing; `rouse keys generate admin` makes one")
	case len(key) < MinAdminKey:
		c.bad("admin-key", "has %d characters; it needs at least %d", len(key), MinAdminKey)
	case strings.ContainsFunc(string(key), func(r rune) bool { return r <= ' ' || r > '~' }):
		c.bad("admin-key", "holds a space or a character that is not ASCII; it travels in an HTTP header")
	}
	return key
}

func (c *checker) masterKeys(keys Hidden) Hidden {
	if keys == "" {
		return ""
	}
	if _, err := tokens.ParseRing(string(keys)); err != nil {
		c.bad("master-keys", "%v; `rouse keys generate master` makes one", err)
	}
	return keys
}

// origin reads where Apple is: the path of every request is the protocol's.
func (c *checker) origin(flag, value string) string {
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || (u.Path != "" && u.Path != "/") || !isBare(u) {
		c.bad(flag, "is not of the form https://host[:port], without user, path, query and fragment")
		return ""
	}
	return strings.TrimSuffix(value, "/")
}

// isBare reports whether a URL has nothing but scheme, host and path.
func isBare(u *url.URL) bool {
	return u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

func (c *checker) endpoint(flag, value string, schemes ...string) string {
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	ok := err == nil && u.Hostname() != "" && isBare(u)
	if ok {
		for _, scheme := range schemes {
			if u.Scheme == scheme {
				return strings.TrimSuffix(value, "/")
			}
		}
	}
	c.bad(flag, "is not a URL of the form %s://host[:port][/path] without user, query and fragment", strings.Join(schemes, " or "))
	return ""
}

func (c *checker) pool(flag, file string) *x509.CertPool {
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		c.bad(flag, "cannot be read: %v", err)
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		c.bad(flag, "%s holds no certificate in PEM form", file)
		return nil
	}
	return pool
}

func (c *checker) prefixes(flag, value string) []netip.Prefix {
	var list []netip.Prefix
	for entry := range strings.SplitSeq(value, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			c.bad(flag, "holds %q, which is no CIDR such as 10.0.0.0/8", entry)
			continue
		}
		list = append(list, prefix)
	}
	return list
}

// limitOrOff is limit, or the word off.
func (c *checker) limitOrOff(flag, value string) Limit {
	if value == "off" {
		return Limit{}
	}
	return c.limit(flag, value)
}

func (c *checker) limit(flag, value string) Limit {
	rate, burst, _ := strings.Cut(value, ":")
	perSecond, err := strconv.ParseFloat(rate, 64)
	n, burstErr := strconv.Atoi(burst)
	if err != nil || burstErr != nil || !(perSecond > 0 && perSecond <= 1e6) || n < 1 {
		c.bad(flag, "is %q; it is PER_SECOND:BURST, such as 50:1000", value)
		return Limit{}
	}
	return Limit{PerSecond: perSecond, Burst: n}
}

func (c *checker) level(value string) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(value)); err != nil {
		c.bad("log-level", "is %q; it is one of debug, info, warn, error", value)
	}
	return level
}

func (c *checker) oneOf(flag, value string, choices ...string) string {
	for _, choice := range choices {
		if value == choice {
			return value
		}
	}
	c.bad(flag, "is %q; it is one of %s", value, strings.Join(choices, ", "))
	return ""
}

func (c *checker) number(flag, value string, least, most int) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		c.bad(flag, "is %q; it is a number from %d to %d", value, least, most)
	}
	return n
}

func (c *checker) duration(flag, value string, least, most time.Duration) time.Duration {
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > most {
		c.bad(flag, "is %q; it is a duration from %v to %v, such as 10s", value, least, most)
	}
	return d
}
