package apns

import (
	"net/http"
	"time"

	"rouse/providers"
)

// tokenFloor is Apple's rule: no new token more often than every 20 minutes.
const tokenFloor = 20 * time.Minute

// accepted remembers that connections of this epoch work.
func (c *Client) accepted(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sound = max(c.sound, epoch)
}

// healedBefore reports whether epoch came after a replacement of the connection, with no success since.
func (c *Client) healedBefore(epoch uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.healed != 0 && epoch >= c.healed && c.sound < c.healed
}

// mend lets go of the connection that a refusal sticks to, and signs a new
// token if the old one may be replaced. What fails together on one connection mends once.
func (c *Client) mend(epoch uint64, reason string) {
	c.mu.Lock()
	if heals(reason) && epoch >= c.healed {
		c.healed = epoch + 1
	}
	c.mu.Unlock()
	if reason != "TooManyProviderTokenUpdates" {
		c.renewToken(time.Now())
	}
	c.pool.Renew(epoch)
}

// dismiss gives up the pushes that wait for a slot if out is about the app and not the push. Apple shows a stranger one
// request at a time: asking for each of them would open a connection for every second one, only to hear the same, and
// Apple holds that against everybody at our address.
func (c *Client) dismiss(out providers.Outcome) {
	if out.Verdict != providers.CredentialBad && out.Verdict != providers.AppThrottled {
		return
	}
	out.Status = 0
	c.mu.Lock()
	c.refusal = out
	c.mu.Unlock()
	c.pool.Dismiss()
}

// dismissed is the outcome of a push that was given up so.
func (c *Client) dismissed() providers.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal
}

// renewToken signs anew unless the present token is younger than the floor. A
// token from the future is one whose clock was wrong.
func (c *Client) renewToken(now time.Time) {
	t := c.sdk.Token
	if t == nil {
		return
	}
	t.Lock()
	defer t.Unlock()
	if now.Sub(time.Unix(t.IssuedAt, 0)).Abs() < tokenFloor {
		return
	}
	if _, err := t.Generate(); err != nil {
		c.log.Error("APNs: signing a new provider token failed; the old one stays", "err", err)
		return
	}
	c.log.Info("APNs: provider token renewed", "key_id", t.KeyID)
}

// shown is the provider token that the connections of an epoch carry.
type shown struct {
	epoch  uint64
	bearer string
}

// authorize shows the provider token that belongs to the request's connection. The SDK signed when the push began
// to wait for one, perhaps with a token that is over. Apple wants no token to change more than once in 20
// minutes on a connection, and pushes overtake each other: so it never changes at all, and a new token gets a new connection.
func (c *Client) authorize(req *http.Request, epoch uint64) {
	if c.sdk.Token == nil {
		return
	}
	bearer, over := c.bearer(epoch, c.sdk.Token.GenerateIfExpired())
	if over {
		c.pool.Renew(epoch)
	}
	req.Header.Set("Authorization", "bearer "+bearer)
}

// bearer returns the provider token of an epoch, and whether the present one has taken its place.
func (c *Client) bearer(epoch uint64, present string) (bearer string, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch > c.shown.epoch {
		c.before, c.shown = c.shown, shown{epoch, present}
	}
	for _, s := range []shown{c.shown, c.before} {
		if s.epoch == epoch {
			return s.bearer, s.bearer != present
		}
	}
	return present, false
}
