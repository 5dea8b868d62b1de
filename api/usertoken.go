package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

const (
	// maxUserToken is the longest user token, in bytes.
	maxUserToken = 8 << 10
	// tokenLeeway is how far the clock of a backend may be off.
	tokenLeeway = time.Minute
	// appsKept bounds how many apps' identity keys are kept at once.
	appsKept = 1000
)

// identities are an app's keys for user tokens by kid, ready for use.
type identities map[string]identity

// identity is a key and the one algorithm it is good for.
type identity struct {
	algorithm tokens.Algorithm
	// key is of the type that golang-jwt wants for the algorithm.
	key any
}

// lookupIdentities reads an app's keys.
func (a *API) lookupIdentities(ctx context.Context, app ident.App) (identities, error) {
	list, err := a.deps.IdentityKeys.IdentityKeys(ctx, app)
	if err != nil {
		return nil, err
	}
	keys := identities{}
	for _, k := range list {
		key, err := keyOf(k)
		if err != nil {
			return nil, fmt.Errorf("identity key %s of %s: %w", k.Kid, app, err)
		}
		keys[k.Kid] = identity{algorithm: k.Algorithm, key: key}
	}
	return keys, nil
}

// userOf returns the user that a token names, which the body holds as user_token. Invalid "invalid_user_token".
func (a *API) userOf(ctx context.Context, app ident.App, token string) (string, error) {
	now := time.Now()
	keys, err := a.identities.get(ctx, app, now)
	if err != nil {
		return "", err
	}
	return keys.check(app, token, now)
}

// check returns the user that a token names. The key that the token's kid names decides the algorithm; what the token says of it must
// be the same, and decides nothing. The error says which part is wrong and repeats nothing of the token.
func (keys identities) check(app ident.App, token string, now time.Time) (string, error) {
	if len(token) > maxUserToken {
		return "", badUserToken(fmt.Sprintf("it is over %d bytes", maxUserToken))
	}
	claims := jwt.MapClaims{} // by their exact names: a struct would take "SUB" for "sub"
	parser := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	if _, err := parser.ParseWithClaims(token, claims, keys.choose); err != nil {
		return "", refusedToken(err)
	}
	if saysTwice(token) {
		return "", badUserToken("it names something twice, and which of the two counts JSON does not say")
	}
	return readClaims(claims, app, now)
}

// saysTwice reports whether the header or the claims of a token that was parsed name something twice.
func saysTwice(token string) bool {
	return slices.ContainsFunc(strings.Split(token, ".")[:2], func(part string) bool {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || len(raw) == 0 {
			return true // it was parsed, so this cannot be
		}
		w := walk{raw: raw}
		return w.peek() == '{' && w.unique("") != nil
	})
}

// choose returns the key that a token has to be signed with.
func (keys identities) choose(t *jwt.Token) (any, error) {
	kid, ok := t.Header["kid"].(string)
	if !ok {
		return nil, badUserToken("kid: the header must name one of the app's identity keys")
	}
	chosen, ok := keys[kid]
	if !ok {
		return nil, badUserToken("kid: the app has no such identity key; a new one counts within 5 seconds")
	}
	if t.Method.Alg() != string(chosen.algorithm) {
		return nil, badUserToken("alg: the key that kid names is for " + string(chosen.algorithm) + " alone")
	}
	if _, ok := t.Header["crit"]; ok {
		return nil, badUserToken("crit: no extension is understood here; leave it out")
	}
	return chosen.key, nil
}

func badUserToken(details ...string) error {
	e := fault.New(fault.Invalid, "invalid_user_token", "the user_token is not acceptable; see errors")
	for _, detail := range details {
		e = e.At("/user_token", detail)
	}
	return e
}

// refusedToken turns what the parser found into what the client may know: the parser's own words quote the token.
func refusedToken(err error) error {
	var own *fault.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return badUserToken("signature: it was not made with the key that kid names")
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return badUserToken("alg: must be EdDSA, ES256, RS256 or HS256, that of the key")
	}
	return badUserToken("it is not a JWT: three parts of unpadded base64url, the first two JSON objects")
}

// readClaims checks what a token says whose signature is good.
func readClaims(claims jwt.MapClaims, app ident.App, now time.Time) (string, error) {
	user, _ := claims.GetSubject()
	wrong := append(badAudience(claims, app), badTimes(claims, now)...)
	// U+FFFD stands where the text was not UTF-8: two users must not become one.
	if tokens.CheckUser(user) != nil || strings.ContainsRune(user, utf8.RuneError) {
		wrong = append(wrong, "sub: must be the user's id, a string of "+tokens.UserForm)
	}
	if len(wrong) > 0 {
		return "", badUserToken(wrong...)
	}
	return user, nil
}

func badAudience(claims jwt.MapClaims, app ident.App) []string {
	list, err := claims.GetAudience()
	if err == nil {
		for _, audience := range list {
			if audience == string(app) {
				return nil
			}
		}
	}
	return []string{"aud: must be the id of the app, app_..."}
}

func badTimes(claims jwt.MapClaims, now time.Time) (wrong []string) {
	switch exp, err := claims.GetExpirationTime(); {
	case err != nil || exp == nil:
		wrong = append(wrong, "exp: must be the time at which the token ends, in seconds since 1970")
	case !now.Before(exp.Add(tokenLeeway)):
		wrong = append(wrong, "exp: the token has ended; have your backend sign a new one")
	case exp.After(now.Add(tokens.MaxUserTokenLife + tokenLeeway)):
		wrong = append(wrong, "exp: must be at most an hour ahead")
	}
	starts := []struct {
		claim string
		read  func() (*jwt.NumericDate, error)
	}{{"nbf", claims.GetNotBefore}, {"iat", claims.GetIssuedAt}}
	for _, start := range starts {
		switch at, err := start.read(); {
		case err != nil || at != nil && at.Unix() < 0:
			wrong = append(wrong, start.claim+": must be a time, in seconds since 1970")
		case at != nil && at.Unix() > now.Add(tokenLeeway).Unix(): // After takes what no Time can hold for long ago
			wrong = append(wrong, start.claim+": lies ahead; is a clock wrong?")
		}
	}
	return wrong
}
