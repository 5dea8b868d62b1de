package webhooks

import (
	"net"
	"net/netip"
)

// Open reports whether an address may be posted to, under a list of what the operator allows.
func Open(allow []netip.Prefix, a netip.Addr) bool { return guard{allow}.open(a) }

// DialWith is the real Dialer with another resolver.
func DialWith(r *net.Resolver) Dialer { return dialWith(r) }
