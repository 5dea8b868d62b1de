package webhooks_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"crypto/x509"

	"golang.org/x/net/dns/dnsmessage"

	"rouse/bus"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/webhooks"
)

func TestWhichAddressesMayBePostedTo(t *testing.T) {
	t.Parallel()
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")}
	for address, want := range map[string]bool{
		"93.184.216.34": true, "1.1.1.1": true, "2606:4700:4700::1111": true, "2a00:1450::1": true,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::10.1.2.3": true, "fd00:1::5": true, // allowed
		"10.2.0.1": false, "127.0.0.1": false, "127.8.8.8": false, "0.0.0.0": false, "0.1.2.3": false, "100.64.0.1": false, "100.100.100.200": false,
		"169.254.169.254": false, "169.254.170.2": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "192.0.0.192": false,
		"192.0.2.1": false, "192.88.99.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.9": false, "224.0.0.1": false, "239.1.1.1": false,
		"240.0.0.1": false, "255.255.255.255": false, "168.63.129.16": false,
		"172.32.0.1": true, "100.128.0.1": true, "11.0.0.1": true,
		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false,
		"fec0::1": false, "fc00::1": false, "fd00:ec2::254": false, "fd00:2::1": false, "ff02::1": false, "2001:db8::1": false, "3fff::1": false, "100::1": false,
		"64:ff9b::127.0.0.1": false, "64:ff9b::169.254.169.254": false, "64:ff9b::8.8.8.8": true, "64:ff9b:1::8.8.8.8": false,
		"2002:7f00:1::": false, "2002:a9fe:a9fe::1": false, "2002:808:808::1": true, "2001:0:4136:e378:8000:63bf:3fff:fdd2": false,
		"2a00:1450::5efe:10.2.0.1": false, "2a00:1450::200:5efe:10.2.0.1": false, "5f00::1": false, "4000::1": false,
	} {
		if got := webhooks.Open(allow, netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	if webhooks.Open(nil, netip.Addr{}) {
		t.Error("no address at all may be posted to")
	}
}

func TestWhichURLsCanBeWebhooks(t *testing.T) {
	t.Parallel()
	lone, allowing := poster(t, webhooks.Options{}), poster(t, webhooks.Options{Allow: inside})
	for url, want := range map[string]bool{
		"https://example.com/hook": true, "https://example.com:8443/hook?a=b": true, "https://xn--bcher-kva.example/": true, "https://93.184.216.34/": true, "https://[2606:4700::1]/": true,
		"http://example.com/": false, "ftp://example.com/": false, "//example.com/": false, "example.com": false, "": false, "https://": false, "https:///x": false,
		"https:example.com": false, "javascript:alert(1)": false, "https://user@example.com/": false, "https://user:pass@example.com/": false, "https://example.com/#x": false, "https://example.com/#": false,
		"https://127.0.0.1/": false, "https://[::1]/": false, "https://[::ffff:7f00:1]/": false, "https://169.254.169.254/latest/meta-data/": false, "https://localhost/": false,
		"https://a.localhost/": false, "https://LOCALHOST./": false, "https://127.1/": false, "https://2130706433/": false, "https://0x7f000001/": false, "https://0177.0.0.1/": false,
		"https://example.com:0/": false, "https://example.com:65536/": false, "https://example.com:/": false, "https://exa mple.com/": false, "https://example.com/\n": false, "https://b\u00fccher.example/": false,
		"https://[fe80::1%25eth0]/": false, "https://example.com/" + strings.Repeat("x", 2048): false, "https://10.0.0.1/": false,
	} {
		err := lone.CheckURL(url)
		if (err == nil) != want {
			t.Errorf("%q: %v", url, err)
		}
		var f *fault.Error
		if err != nil && (!errors.As(err, &f) || f.Kind != fault.Invalid || f.Code != "invalid_webhook" || len(f.Fields) != 1 || f.Fields[0].Pointer != "/url") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for url, want := range map[string]bool{
		"http://10.0.0.1/": true, "https://10.0.0.1/": true, "http://receiver.internal/": true, "http://93.184.216.34/": false, "https://192.168.0.1/": false, "https://localhost/": false,
	} {
		if err := allowing.CheckURL(url); (err == nil) != want {
			t.Errorf("where 10/8 is allowed, %q: %v", url, err)
		}
	}
}

// poster makes one that does not run.
func poster(t *testing.T, o webhooks.Options) *webhooks.Poster {
	t.Helper()
	o.Hints, o.Nodes = &bus.Memory{}, alone{}
	p, err := webhooks.New(o)
	must(t, err)
	return p
}

// single is a store of one webhook, that is tested.
type single struct {
	webhooks.Store
	hook messages.WebhookDesk
}

func (s *single) Webhook(context.Context, ident.App, ident.Webhook) (messages.WebhookDesk, error) {
	return s.hook, nil
}

// tested is what comes of a test of the URL.
func tested(t *testing.T, o webhooks.Options, url string) messages.WebhookTested {
	t.Helper()
	s := &single{hook: messages.WebhookDesk{Secrets: messages.WebhookSecrets{Current: []byte("secret")}}}
	s.hook.URL = url
	o.Store = s
	got, err := poster(t, o).Test(t.Context(), "", ident.NewWebhook())
	must(t, err)
	return got
}

// A name that leads to a private address is refused when it is dialed, whatever it led to before; nobody there is called.
func TestANameThatLeadsInsideIsRefused(t *testing.T) {
	t.Parallel()
	var called, connected atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Add(1) }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connected.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	names := startNames(t, [4]byte{127, 0, 0, 1})
	url := "https://example.com:" + port + "/" // what its certificate is for
	refused := tested(t, webhooks.Options{Dial: webhooks.DialWith(names), Roots: roots}, url)
	if refused.OK || refused.Status != 0 || !strings.Contains(refused.Error, "private") || connected.Load() != 0 {
		t.Errorf("%+v, %d connections", refused, connected.Load())
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	allowed := tested(t, webhooks.Options{Dial: webhooks.DialWith(names), Roots: roots, Allow: loopback}, url)
	if !allowed.OK || called.Load() != 1 {
		t.Errorf("%+v, %d calls", allowed, called.Load())
	}
	plain := tested(t, webhooks.Options{Dial: webhooks.DialWith(startNames(t, [4]byte{93, 184, 216, 34})), Allow: loopback}, "http://example.com:"+port+"/")
	if plain.OK || !strings.Contains(plain.Error, "private") { // http only where the operator allows it
		t.Errorf("http to a public address: %+v", plain)
	}
	stranger := tested(t, webhooks.Options{Dial: webhooks.DialWith(names), Allow: loopback}, url)
	if stranger.OK || !strings.Contains(stranger.Error, "authority") || called.Load() != 1 {
		t.Errorf("a certificate by nobody known: %+v", stranger)
	}
}

// A redirect is a failure, wherever it leads, and nobody there is called.
func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var inner atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inner.Add(1) }))
	t.Cleanup(inside.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		outside := httptest.NewServer(http.RedirectHandler(inside.URL+"/secret", status))
		t.Cleanup(outside.Close)
		got := tested(t, webhooks.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, outside.URL)
		if got.OK || got.Status != status || strings.Contains(got.Error, "secret") || inner.Load() != 0 {
			t.Errorf("%d: %+v, %d calls inside", status, got, inner.Load())
		}
	}
}

// startNames answers every question for a name with one address, and returns who asks there.
func startNames(t *testing.T, address [4]byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			if reply, err := nameReply(buffer[:n], address); err == nil {
				_, _ = server.WriteTo(reply, from)
			}
		}
	})
	t.Cleanup(func() {
		must(t, server.Close())
		running.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

func nameReply(question []byte, address [4]byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: address}}}
	}
	return m.Pack()
}
