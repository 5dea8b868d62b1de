package apns

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"rouse/providers"
)

const (
	// verifyLimit bounds a verification, and swapLimit the part of it that tries the ids the other way round.
	verifyLimit = 9 * time.Second
	swapLimit   = 3 * time.Second
)

// nobody is a token of no device.
var nobody = strings.Repeat("0", 64)

// Verify asks Apple whether it takes the credential, within 9 seconds: a background push to a token of zeros goes the way of
// every push, and a refusal of that token means yes. The one finding is called apns_production or apns_sandbox.
func (c *Client) Verify(ctx context.Context) []providers.Finding {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	if leaf := c.leaf(); leaf != nil && time.Now().After(leaf.NotAfter) {
		return []providers.Finding{c.fail("certificate_expired",
			fmt.Sprintf("The certificate ran out on %s.", leaf.NotAfter.UTC().Format(time.DateOnly)),
			"Make a new one in the Apple developer account, or better a signing key, and put the credential again.")}
	}
	out := c.ask(ctx)
	if c.sdk.Token != nil && out.Reason == "InvalidProviderToken" && c.swapped(ctx) {
		return []providers.Finding{c.fail("ids_swapped",
			"Team id and key id are swapped: Apple takes the key with the two exchanged.",
			fmt.Sprintf("Put it again with the two exchanged: team id %s and key id %s. If this server refuses that as swapped, because no push has failed with the stored one yet, delete the stored one first.",
				c.secret.KeyID, c.secret.TeamID))}
	}
	return []providers.Finding{c.finding(out)}
}

// ask pushes to nobody, and once more if the connection was at fault.
func (c *Client) ask(ctx context.Context) providers.Outcome {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit-swapLimit)
	defer cancel()
	push := providers.Push{ID: uuid.NewString(), Token: nobody, Kind: providers.Background, ExpiresAt: time.Now()}
	out := c.Push(ctx, push)
	if out.Verdict == providers.ConnectionLost {
		out = c.Push(ctx, push)
	}
	return out
}

// swapped reports whether Apple knows the key under the exchanged ids. It asks once, with one provider token
// made for it, and over a connection of its own: what is wrong on a connection stays wrong on it.
func (c *Client) swapped(ctx context.Context) bool {
	s := c.secret
	s.TeamID, s.KeyID = s.KeyID, s.TeamID
	other, err := newClient(s, c.sandbox, c.options)
	if err != nil {
		return false
	}
	defer func() { _ = other.Close() }()
	ctx, cancel := context.WithTimeout(ctx, swapLimit)
	defer cancel()
	out := other.Push(ctx, providers.Push{ID: uuid.NewString(), Token: nobody, Kind: providers.Background, ExpiresAt: time.Now()})
	return known(out)
}

// known reports whether an answer could only be given to somebody whose key Apple knows.
func known(out providers.Outcome) bool {
	switch out.Reason {
	case "BadTopic", "TopicDisallowed", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return true
	}
	switch out.Verdict {
	case providers.Accepted, providers.TokenSuspect, providers.TokenDead:
		return true
	default:
		return false
	}
}

// leaf is the credential's certificate, nil if it is a key.
func (c *Client) leaf() *x509.Certificate { return parseLeaf(c.secret.Certificate) }

func (c *Client) check() string { return "apns_" + c.environment() }

func (c *Client) environment() string {
	if c.sandbox {
		return "sandbox"
	}
	return "production"
}

func (c *Client) fail(reason, cause, cure string) providers.Finding {
	return providers.Finding{Check: c.check(), Status: providers.FindingFail, Reason: reason, Cause: cause, Cure: cure}
}

func (c *Client) warn(reason, cause, cure string) providers.Finding {
	return providers.Finding{Check: c.check(), Status: providers.FindingWarn, Reason: reason, Cause: cause, Cure: cure}
}

// finding puts an outcome into words.
func (c *Client) finding(out providers.Outcome) providers.Finding {
	switch out.Verdict {
	case providers.Accepted, providers.TokenSuspect, providers.TokenDead:
		return providers.Finding{Check: c.check(), Status: providers.FindingOK, Cause: fmt.Sprintf("Apple takes the credential in its %s environment.", c.environment())}
	case providers.CredentialBad:
		cause, cure := c.refused(out.Reason)
		return c.fail(out.Reason, cause, cure)
	case providers.AppThrottled:
		return c.warn(out.Reason, "Apple saw too many new provider tokens of this team, and for some minutes does not say whether it takes this one.",
			"Try again in half an hour; if it happens again, see who else signs with the team's keys.")
	case providers.DeviceThrottled:
		return c.warn(out.Reason, "Apple took the credential, and wants no more test pushes for now.", "Try again in a few minutes.")
	case providers.Rejected:
		if strings.HasPrefix(out.Reason, "http_") {
			return c.fail(out.Reason, fmt.Sprintf("%s answered, but not as Apple does (%s).", c.sdk.Host, out.Reason),
				"Check the endpoint in this server's settings, and whether a proxy answers in Apple's place.")
		}
		return c.warn(out.Reason, fmt.Sprintf("Apple refused the test push itself (%s), which says nothing of the credential.", out.Reason), "Send a real push and look at its timeline.")
	default:
		return providers.Unanswered(c.check(), "Apple", c.sdk.Host, out.Reason)
	}
}

// refused says why Apple refuses a credential, and what helps.
func (c *Client) refused(reason string) (cause, cure string) {
	const again = "put the credential again"
	switch reason {
	case "InvalidProviderToken":
		return fmt.Sprintf("Apple does not know the key %s of team %s: an id is wrong, or the key was revoked or belongs to other ids.", c.secret.KeyID, c.secret.TeamID),
			"Compare both ids with the Apple developer account and the file name AuthKey_XXXXXXXXXX.p8, make a new key if it is not listed there, and " + again + "."
	case "ExpiredProviderToken":
		return "Apple calls a provider token expired that was signed just now: this server's clock is wrong.", "Set the clock, best by NTP."
	case "MissingProviderToken":
		return "Apple saw neither provider token nor certificate.", "Check that no proxy takes headers or TLS away; then " + again + "."
	case "UnrelatedKeyIdInToken":
		return "Apple does not connect the key with those it knows of the team.", "Check the key id in the Apple developer account, and " + again + "."
	case "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return fmt.Sprintf("The key is not made for the %s environment.", c.environment()),
			"Make a key for Sandbox & Production in the Apple developer account and put that, if devices are registered for this environment."
	case "BadCertificateEnvironment":
		return fmt.Sprintf("The certificate is not made for the %s environment.", c.environment()),
			"Make a certificate for Sandbox & Production or a signing key and put that, if devices are registered for this environment."
	case "BadCertificate", certificateRefused:
		return "Apple refuses the certificate: it was revoked, or is no push certificate.", "Make a new one in the Apple developer account, or better a signing key, and " + again + "."
	case "BadTopic", "MissingTopic", "TopicDisallowed":
		return fmt.Sprintf("Apple does not let this credential push to the topic %s.", c.secret.Topic),
			"Put the bundle id of the app as the topic, or a credential of the team and for the topics that it belongs to."
	default:
		return fmt.Sprintf("Apple refuses the credential (%s).", reason), "Look at the team, its keys and its agreements in the Apple developer account, and " + again + "."
	}
}
