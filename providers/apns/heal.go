package apns

import "time"

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
