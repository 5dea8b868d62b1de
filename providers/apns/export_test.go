package apns

import (
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Age makes the provider token look signed so long ago.
func (c *Client) Age(by time.Duration) {
	c.sdk.Token.Lock()
	defer c.sdk.Token.Unlock()
	c.sdk.Token.IssuedAt = time.Now().Add(-by).Unix()
}

// Expire shows a provider token that Apple calls expired, as the server's clock does not yet know.
func (c *Client) Expire() {
	t := c.sdk.Token
	t.Lock()
	defer t.Unlock()
	old := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": t.TeamID, "iat": time.Now().Add(-61 * time.Minute).Unix()})
	old.Header["kid"] = t.KeyID
	signed, err := old.SignedString(t.AuthKey)
	if err != nil {
		panic(err) // the key signed before
	}
	t.Bearer, t.IssuedAt = signed, time.Now().Add(-30*time.Minute).Unix()
}
