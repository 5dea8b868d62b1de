package webhooks

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rouse/fault"
)

// maxURL is the longest URL, in bytes.
const maxURL = 2048

// refused are blocks inside the ordinary ones, v4's and v6's, that lead to no receiver on the public internet, or to a provider's
// own machines: who runs a relay in a cloud must not lend its tenants what only the relay's machine may ask.
var refused = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", // a cloud's metadata at an address that looks public
	"2001::/23",        // protocols: Teredo and others, which hide addresses
	"2001:db8::/32", "3fff::/20",
)

var (
	ordinary6 = netip.MustParsePrefix("2000::/3")     // everything else in v6 is local, reserved, or another address in disguise
	sixToFour = netip.MustParsePrefix("2002::/16")    // v4 in bytes 2 to 5
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // v4 in the last four
	isatap    = [4]byte{0, 0, 0x5e, 0xfe}             // in bytes 8 to 11, one bit aside: v4 in the last four
)

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// guard says which addresses may be posted to.
type guard struct {
	allow []netip.Prefix
}

// lists reports whether the operator allows the address, whatever it is.
func (g guard) lists(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	return slices.ContainsFunc(g.allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

// open reports whether the address may be posted to. One that hides another is as good as that.
func (g guard) open(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if g.lists(a) {
		return true
	}
	if hidden, ok := within(a); ok {
		return g.open(hidden)
	}
	if a.Is6() && !ordinary6.Contains(a) {
		return false
	}
	return a.IsValid() && !slices.ContainsFunc(refused, func(p netip.Prefix) bool { return p.Contains(a) })
}

// within returns the v4 address that a v6 one leads to.
func within(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return a, false
	}
	b := a.As16()
	switch {
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case [4]byte{b[8] &^ 2, b[9], b[10], b[11]} == isatap && ordinary6.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return a, false
}

func badURL(detail string) error {
	return fault.New(fault.Invalid, "invalid_webhook", "nothing can be posted to that URL").At("/url", detail)
}

// check says why a URL cannot be a webhook's. Names are looked up only when something is posted; where they lead is checked then.
func (g guard) check(text string) error {
	if len(text) > maxURL {
		return badURL("must be at most " + strconv.Itoa(maxURL) + " bytes")
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return badURL("must be of the form https://host[:port]/path")
	}
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return badURL("must be plain ASCII, without spaces; escape what is not")
	case u.User != nil:
		return badURL("must not hold a user name or a password; posts are signed")
	case strings.Contains(text, "#"):
		return badURL("must not have a fragment")
	case u.Scheme != "https" && u.Scheme != "http":
		return badURL("must begin with https://")
	case u.Scheme == "http" && len(g.allow) == 0:
		return badURL("must begin with https://; http is only for addresses that the operator allows")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return badURL("must have a port from 1 to 65535, or none")
		}
	}
	return g.checkHost(u.Scheme, u.Hostname())
}

func (g guard) checkHost(scheme, host string) error {
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && scheme == "http" && !g.lists(a):
		return badURL("must begin with https://; http is only for addresses that the operator allows")
	case err == nil && !g.open(a):
		return badURL("must not be at a private address, unless the operator allows it")
	case err == nil:
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case name == "" || strings.ContainsAny(name, "%[]:"):
		return badURL("must have a host")
	case last == "localhost" && !g.lists(netip.MustParseAddr("127.0.0.1")) && !g.lists(netip.IPv6Loopback()):
		return badURL("must not be at a private address, unless the operator allows it")
	case strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x"):
		return badURL("must have a name or a whole address as its host") // 127.1 and 2130706433 are addresses to some
	}
	return nil
}
