package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"rouse/client"
	"rouse/tokens"
)

type identityKeysCmd struct {
	Put    identityKeysPutCmd    `cmd:"" help:"Give what user tokens are checked with: a public key, or a secret."`
	List   identityKeysListCmd   `cmd:"" help:"List such keys, without what is secret."`
	Delete identityKeysDeleteCmd `cmd:"" help:"Take one away: tokens signed with it are refused. Whoever is logged in stays so."`
}

type identityKeysPutCmd struct {
	adminAccess
	output
	App        string `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Kid        string `arg:"" help:"What tokens call the key, in the kid of their header: 1 to 64 of A-Za-z0-9._-"`
	PublicKey  string `xor:"form" type:"existingfile" placeholder:"FILE" help:"A public key in PEM, of Ed25519, P-256 or RSA; - reads it from standard input."`
	SecretFile string `xor:"form" type:"existingfile" placeholder:"FILE" help:"Instead, a secret of 32 bytes or more for HS256, without the line feed at its end; - reads it from standard input."`
}

// Run puts a key.
func (c *identityKeysPutCmd) Run(ctx context.Context, term *terminal) error {
	body, err := c.body(term)
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	key, err := answer[client.IdentityKey](api.PutIdentityKey(ctx, app, c.Kid, body))
	if err != nil {
		return fmt.Errorf("putting the identity key: %w", err)
	}
	return c.print(term, key, func(w io.Writer) { writeIdentityKeys(w, []client.IdentityKey{key}) })
}

// body makes the request of the one form that was given; a public key tells its algorithm itself.
func (c *identityKeysPutCmd) body(term *terminal) (client.IdentityKeyPut, error) {
	var body client.IdentityKeyPut
	switch {
	case c.SecretFile != "":
		secret, err := term.secretFile(c.SecretFile)
		if err == nil && !utf8.ValidString(secret) {
			err = mistake("%s is not text; take one such as openssl rand -base64 32 makes", orStdin(c.SecretFile))
		}
		body.Algorithm, body.Secret = client.IdentityKeyPutAlgorithm(tokens.HS256), &secret
		return body, err
	case c.PublicKey != "":
		text, err := term.secretFile(c.PublicKey)
		if err != nil {
			return body, err
		}
		algorithm, err := publicKeyIn(text)
		if err != nil {
			return body, mistake("%s: %w", orStdin(c.PublicKey), err)
		}
		body.Algorithm, body.PublicKey = client.IdentityKeyPutAlgorithm(algorithm), &text
		return body, nil
	}
	return body, mistake("say with what: --public-key FILE, or --secret-file FILE")
}

// publicKeyIn returns what tokens are signed with whose key this is.
func publicKeyIn(text string) (tokens.Algorithm, error) {
	block, _ := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return "", errors.New("no key in PEM (-----BEGIN PUBLIC KEY-----)")
	case strings.Contains(block.Type, "PRIVATE"):
		return "", errors.New("that is a private key, which stays with your backend; openssl pkey -in FILE -pubout makes the public one of it")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", errors.New("that is no public key in PEM (-----BEGIN PUBLIC KEY-----)")
	}
	return algorithmOf(key)
}

// algorithmOf is what a key signs user tokens by.
func algorithmOf(public crypto.PublicKey) (tokens.Algorithm, error) {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return tokens.EdDSA, nil
	case *rsa.PublicKey:
		return tokens.RS256, nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return tokens.ES256, nil
		}
	}
	return "", errors.New("user tokens are signed with keys of Ed25519, P-256 or RSA; this is of another kind")
}

func writeIdentityKeys(w io.Writer, keys []client.IdentityKey) {
	fmt.Fprintln(w, "KID\tALGORITHM\tFINGERPRINT\tCREATED")
	for _, key := range keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", key.Kid, key.Algorithm, key.Fingerprint, at(key.CreatedAt))
	}
}

type identityKeysListCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app: its id, app_..., or its name exactly."`
}

// Run lists what an app's user tokens are checked with.
func (c *identityKeysListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	keys, err := answer[client.IdentityKeyList](api.ListIdentityKeys(ctx, app))
	if err != nil {
		return fmt.Errorf("listing identity keys: %w", err)
	}
	return c.print(term, keys.IdentityKeys, func(w io.Writer) {
		if len(keys.IdentityKeys) == 0 {
			fmt.Fprintln(w, "no identity keys: only backends say whose a device is")
			return
		}
		writeIdentityKeys(w, keys.IdentityKeys)
	})
}

type identityKeysDeleteCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Kid string `arg:"" help:"What tokens call the key."`
}

// Run takes a key away.
func (c *identityKeysDeleteCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.DeleteIdentityKey(ctx, app, c.Kid)); err != nil {
		return fmt.Errorf("deleting the identity key: %w", err)
	}
	return c.done(term, "deleted", c.Kid, c.Kid+" is gone: tokens that name it are refused")
}

type userTokenCmd struct {
	output
	User       string        `arg:"" help:"The user, as your backend calls them."`
	App        string        `required:"" help:"The app's id, app_..."`
	Kid        string        `required:"" help:"What the key was called when it was put."`
	PrivateKey string        `xor:"form" type:"existingfile" placeholder:"FILE" help:"The private key in PEM whose public one was put; - reads it from standard input."`
	SecretFile string        `xor:"form" type:"existingfile" placeholder:"FILE" help:"Instead, the secret that was put; - reads it from standard input."`
	ExpiresIn  time.Duration `default:"10m" help:"How long it is good, up to 1h."`
}

// Run prints a user token and nothing else. It asks no server.
func (c *userTokenCmd) Run(term *terminal) error {
	if c.ExpiresIn <= 0 || c.ExpiresIn > tokens.MaxUserTokenLife {
		return mistake("--expires-in is %v; a user token is good for an hour at most", c.ExpiresIn)
	}
	method, key, err := c.signer(term)
	if err != nil {
		return err
	}
	now := time.Now()
	end := now.Add(c.ExpiresIn).Truncate(time.Second)
	token := jwt.NewWithClaims(method, jwt.MapClaims{"aud": c.App, "sub": c.User, "iat": now.Unix(), "exp": end.Unix()})
	token.Header["kid"] = c.Kid
	signed, err := token.SignedString(key)
	if err != nil {
		return fmt.Errorf("signing the token: %w", err)
	}
	return c.print(term, map[string]any{"user_token": signed, "expires_at": end.UTC()}, func(w io.Writer) { fmt.Fprintln(w, signed) })
}

// signer reads what signs.
func (c *userTokenCmd) signer(term *terminal) (jwt.SigningMethod, any, error) {
	switch {
	case c.SecretFile != "":
		secret, err := term.secretFile(c.SecretFile)
		return jwt.SigningMethodHS256, []byte(secret), err
	case c.PrivateKey != "":
		text, err := term.secretFile(c.PrivateKey)
		if err != nil {
			return nil, nil, err
		}
		key, algorithm, err := privateKeyIn(text)
		if err != nil {
			return nil, nil, mistake("%s: %w", orStdin(c.PrivateKey), err)
		}
		return jwt.GetSigningMethod(string(algorithm)), key, nil
	}
	return nil, nil, mistake("say with what: --private-key FILE, or --secret-file FILE")
}

// privateKeyIn reads a private key in whichever of the usual forms of PEM. Its errors repeat nothing of it.
func privateKeyIn(text string) (crypto.Signer, tokens.Algorithm, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, "", errors.New("no key in PEM (-----BEGIN PRIVATE KEY-----)")
	}
	var parsed any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	signer, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, "", errors.New("that is no private key in PEM without a password (-----BEGIN PRIVATE KEY-----)")
	}
	algorithm, err := algorithmOf(signer.Public())
	return signer, algorithm, err
}
