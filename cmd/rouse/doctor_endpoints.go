package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"rouse/config"
	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/fcm"
	"rouse/tokens"
)

const (
	// stepWait bounds each of connecting, greeting and asking.
	stepWait = 4 * time.Second
	// skewNoticed and skewFatal are how far our clock may be from a provider's.
	skewNoticed = 30 * time.Second
	skewFatal   = 5 * time.Minute
)

// endpoint is an address that pushes need.
type endpoint struct {
	check string
	// who is whose it is, in words.
	who      string
	provider tokens.Provider
	url      string
	// flag is the setting for another address, caFlag the one for whom to trust there.
	flag, caFlag string
	roots        *x509.CertPool
	// http2 is what becomes of pushes without HTTP/2: fail, warn, or ok where it does not matter.
	http2 providers.FindingStatus
}

// endpoints lists them as serve would use them.
func endpoints(e config.Endpoints) []endpoint {
	or := func(given, own string) string {
		if given != "" {
			return given
		}
		return own
	}
	return []endpoint{
		{check: "endpoint_apns_production", who: "Apple's production environment", provider: tokens.APNs, url: or(e.APNs, apns.ProductionEndpoint),
			flag: "apns-endpoint", caFlag: "apns-ca", roots: e.APNsCA, http2: providers.FindingFail},
		{check: "endpoint_apns_sandbox", who: "Apple's sandbox", provider: tokens.APNs, url: or(e.APNsSandbox, apns.SandboxEndpoint),
			flag: "apns-sandbox-endpoint", caFlag: "apns-ca", roots: e.APNsCA, http2: providers.FindingFail},
		{check: "endpoint_fcm", who: "Google's FCM", provider: tokens.FCM, url: or(e.FCM, fcm.Endpoint),
			flag: "fcm-endpoint", caFlag: "fcm-ca", roots: e.FCMCA, http2: providers.FindingWarn},
		{check: "endpoint_fcm_token", who: "Google's OAuth", provider: tokens.FCM, url: or(e.FCMToken, fcm.TokenEndpoint),
			flag: "fcm-token-endpoint", caFlag: "fcm-ca", roots: e.FCMCA, http2: providers.FindingOK},
	}
}

// reach is what came of trying one endpoint.
type reach struct {
	endpoint
	found found
	// skew is how far its clock is ahead of ours, where it told its time.
	skew  time.Duration
	timed bool
}

// reach tries all endpoints at once.
func (e examination) reach(ctx context.Context) []reach {
	if e.offline {
		return nil
	}
	list := endpoints(e.cfg.Endpoints)
	all := make([]reach, len(list))
	var wg sync.WaitGroup
	for n, p := range list {
		wg.Go(func() { all[n] = p.try(ctx) })
	}
	wg.Wait()
	return all
}

// ways is the findings on the endpoints and the clock. That a provider which no app uses cannot be reached is nothing to fail for; where the apps
// were not read, there are no tenants and each counts.
func (e examination) ways(reached []reach, tenants []tenant) (all []found) {
	if e.offline {
		return nil
	}
	used := map[tokens.Provider]bool{}
	for _, p := range tenants {
		for _, provider := range p.uses {
			used[provider] = true
		}
	}
	for _, r := range reached {
		if r.found.Status == providers.FindingFail && len(tenants) > 0 && !used[r.provider] {
			r.found.Status = providers.FindingWarn
			r.found.Cause += " No app looked at uses it."
		}
		all = append(all, r.found)
	}
	return append(all, clock(reached))
}

// clock compares ours with those of the providers. The worst counts: each judges by its own.
func clock(reached []reach) found {
	timed := slices.DeleteFunc(slices.Clone(reached), func(r reach) bool { return !r.timed })
	if len(timed) == 0 {
		return doubtful("clock", "no_time", "No endpoint told its time, so the clock of this machine could not be compared.", "See that an NTP client runs here: timedatectl, or chronyc tracking.")
	}
	worst := slices.MaxFunc(timed, func(a, b reach) int { return cmp.Compare(a.skew.Abs(), b.skew.Abs()) })
	const cure = "Set the clock of this machine and have an NTP client keep it: timedatectl set-ntp true."
	way := "behind"
	if worst.skew < 0 {
		way = "ahead of"
	}
	off := fmt.Sprintf("The clock of this machine is %v %s that of %s", worst.skew.Abs(), way, worst.host())
	switch {
	case worst.skew.Abs() > skewFatal:
		return broken("clock", "clock_skew", off+": Google refuses signatures from another time (invalid_grant), and Apple's signing tokens run out early (ExpiredProviderToken).", cure)
	case worst.skew.Abs() > skewNoticed:
		return doubtful("clock", "clock_skew", off+"; from 5 minutes on Google refuses signatures (invalid_grant).", cure)
	}
	return fine("clock", "The clock of this machine is within %v of that of %s.", skewNoticed, worst.host())
}

func (p endpoint) host() string {
	u, err := url.Parse(p.url)
	if err != nil { // config has read it already
		return p.who
	}
	return u.Host
}

// try connects, greets and asks for an answer, whatever it says.
func (p endpoint) try(ctx context.Context) reach {
	r := reach{endpoint: p}
	u, err := url.Parse(p.url)
	if err != nil {
		r.found = broken(p.check, "bad_setting", "The address is no URL.", p.setting())
		return r
	}
	conn, err := p.connect(ctx, u)
	if err != nil {
		r.found = p.unreached(err)
		return r
	}
	if u.Scheme == "https" {
		secured, err := p.greet(ctx, conn, u.Hostname())
		if err != nil {
			_ = conn.Close()
			r.found = p.ungreeted(err)
			return r
		}
		conn = secured
	}
	defer func() { _ = conn.Close() }()
	r.skew, r.timed, err = date(ctx, conn, p.url)
	r.found = p.reached(conn, err)
	return r
}

func (p endpoint) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = u.Scheme // a service's name
	}
	d := net.Dialer{Timeout: stepWait}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
}

func (p endpoint) greet(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	// Whoever speaks only the older protocol is to say so, instead of hanging up.
	protocols := []string{"h2", "http/1.1"}
	secured := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: p.roots, NextProtos: protocols, MinVersion: tls.VersionTLS12})
	return secured, secured.HandshakeContext(ctx)
}

// reached judges a connection that came about; asking is why nothing was answered on it.
func (p endpoint) reached(conn net.Conn, asking error) found {
	secured, encrypted := conn.(*tls.Conn)
	http2 := encrypted && secured.ConnectionState().NegotiatedProtocol == "h2"
	const proxy = "See that no proxy between here and there opens the connections (it shows in the certificate), and "
	switch {
	case encrypted && !http2 && p.http2 == providers.FindingFail:
		return broken(p.check, "no_http2", fmt.Sprintf("%s can be reached and does not speak HTTP/2, without which nothing can be pushed.", p.name()), proxy+p.setting())
	case encrypted && !http2 && p.http2 == providers.FindingWarn:
		return doubtful(p.check, "no_http2", fmt.Sprintf("%s can be reached and does not speak HTTP/2, so pushes go one at a time.", p.name()), proxy+p.setting())
	case asking != nil:
		return doubtful(p.check, "no_answer", fmt.Sprintf("%s can be reached and answers no request within %v.", p.name(), stepWait), "Run doctor again; if it stays, look at the provider's status page and at firewalls in between.")
	}
	return fine(p.check, "%s can be reached.", p.name())
}

// unreached says why no connection came about.
func (p endpoint) unreached(err error) found {
	var dns *net.DNSError
	var slow net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return broken(p.check, "dns_failed", fmt.Sprintf("The name of %s is not known to the resolver of this machine.", p.name()), "Correct /etc/resolv.conf, or "+p.setting())
	case errors.As(err, &dns):
		return broken(p.check, "dns_failed", fmt.Sprintf("The resolver of this machine gives no answer for %s.", p.name()), "See that the servers in /etc/resolv.conf can be reached (UDP and TCP port 53).")
	case errors.Is(err, syscall.ECONNREFUSED):
		return broken(p.check, "connect_refused", fmt.Sprintf("%s refuses connections.", p.name()), "See that a firewall lets this machine out to it, and "+p.setting())
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return broken(p.check, "unreachable", fmt.Sprintf("This machine has no route to %s.", p.name()), "Give it a way out to the internet: a default route, or a network for the container.")
	case errors.As(err, &slow) && slow.Timeout():
		return broken(p.check, "connect_timeout", fmt.Sprintf("No connection to %s came about within %v.", p.name(), stepWait), "Let this machine out through the firewall, which drops what it does not like, to that port.")
	}
	return broken(p.check, "connect_failed", fmt.Sprintf("No connection to %s came about: %v.", p.name(), err), "See that this machine reaches the internet, and "+p.setting())
}

// ungreeted says why TLS did not come about.
func (p endpoint) ungreeted(err error) found {
	const reason = "untrusted_certificate"
	var stranger x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var plain tls.RecordHeaderError
	var slow net.Error
	switch {
	case errors.As(err, &stranger):
		issuer := ""
		if stranger.Cert != nil {
			issuer = fmt.Sprintf(" (%s)", stranger.Cert.Issuer)
		}
		return broken(p.check, reason, fmt.Sprintf("The certificate of %s is signed by somebody%s whom this machine does not trust.", p.name(), issuer), p.trust())
	case errors.As(err, &host):
		return broken(p.check, reason, fmt.Sprintf("%s shows a certificate for another name.", p.name()), "See that nothing answers in its place (a proxy, a captive portal, a wrong entry in the DNS), and "+p.setting())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return broken(p.check, reason, fmt.Sprintf("By the clock of this machine the certificate of %s has run out or does not hold yet.", p.name()), "Set the clock; if it is right, whoever runs that address must renew the certificate.")
	case errors.As(err, &invalid), isUnverified(err):
		return broken(p.check, reason, fmt.Sprintf("The certificate of %s does not check: %v.", p.name(), err), p.trust())
	case errors.As(err, &plain):
		return broken(p.check, "not_tls", fmt.Sprintf("%s does not speak TLS.", p.name()), "See that no proxy answers in its place, and "+p.setting())
	case errors.As(err, &slow) && slow.Timeout():
		return broken(p.check, "tls_timeout", fmt.Sprintf("%s takes connections and then says nothing for %v.", p.name(), stepWait), "See that no firewall in between holds encrypted connections up; if it stays, look at the provider's status page.")
	}
	return broken(p.check, "tls_failed", fmt.Sprintf("No encrypted connection to %s came about: %v.", p.name(), err), "See that no proxy or firewall in between ends encrypted connections.")
}

func isUnverified(err error) bool {
	var e *tls.CertificateVerificationError
	return errors.As(err, &e)
}

func (p endpoint) name() string { return p.who + " at " + p.host() }

// setting is where another address would be given, and that it usually is not.
func (p endpoint) setting() string {
	return fmt.Sprintf("see --%s (%s), which is left out for the provider's own address.", p.flag, config.Env(p.flag))
}

// trust is how the operator says whom to trust.
func (p endpoint) trust() string {
	if p.roots == nil {
		return fmt.Sprintf("Install the system's authorities (the package ca-certificates); if a proxy opens connections on purpose, name its authority with --%s (%s).", p.caFlag, config.Env(p.caFlag))
	}
	return fmt.Sprintf("Put the authority that signed it into the file of --%s (%s), or leave that out for the system's.", p.caFlag, config.Env(p.caFlag))
}

// date asks for anything and returns how far the clock of whoever answers is ahead of ours; timed is false if it told no time.
func date(ctx context.Context, conn net.Conn, url string) (skew time.Duration, timed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	already := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	transport := &http.Transport{DialContext: already, DialTLSContext: already, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, false, err
	}
	sent := time.Now()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = res.Body.Close() }()
	told, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return 0, false, nil // an answer all the same
	}
	// It is told in whole seconds, and somewhere on the way: anything within that is no skew.
	early, late := time.Until(told), told.Add(time.Second).Sub(sent)
	switch {
	case early > 0:
		skew = early
	case late < 0:
		skew = late
	}
	return skew.Round(time.Second), true, nil
}
