package api

import (
	"context"
	"strings"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// CreateKey makes one more key for an app.
func (n nouns) CreateKey(ctx context.Context, r contract.CreateKeyRequestObject) (contract.CreateKeyResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	now := stamp(time.Now())
	key := tokens.Key{ID: ident.NewKey(), App: app, Kind: tokens.PublishableKey, Name: or(r.Body.Name), CreatedAt: now}
	if err := storable("/name", key.Name); err != nil {
		return nil, err
	}
	if r.Body.Kind == contract.Secret {
		key.Kind, key.Scopes = tokens.SecretKey, tokens.AllScopes()
	}
	if r.Body.Scopes != nil {
		if key.Kind != tokens.SecretKey {
			return nil, invalidBody().At("/scopes", "a publishable key has no scopes; leave them out")
		}
		key.Scopes = nil
		for _, scope := range *r.Body.Scopes {
			key.Scopes = append(key.Scopes, tokens.Scope(scope))
		}
	}
	if r.Body.ExpiresIn != nil {
		key.ExpiresAt = now.Add(time.Duration(*r.Body.ExpiresIn) * time.Second)
	}
	if r.Body.RateLimit != nil {
		if key.Rate, err = rateLimitOf(*r.Body.RateLimit); err != nil {
			return nil, err
		}
	}
	secret := mint(&key)
	if err := n.deps.Keys.AddKey(ctx, key); err != nil {
		return nil, err
	}
	return contract.CreateKey201JSONResponse(keyCreated(key, secret)), nil
}

// mint makes the key's secret, and notes its hash.
func mint(key *tokens.Key) tokens.Secret {
	secret := tokens.MintKey(key.Kind, strings.TrimPrefix(string(key.ID), ident.KeyPrefix))
	key.Hash = tokens.HashOf(secret)
	return secret
}

func keyCreated(key tokens.Key, secret tokens.Secret) contract.KeyCreated {
	wire := wireKey(key)
	return contract.KeyCreated{
		Id: wire.Id, Kind: wire.Kind, Name: wire.Name, Scopes: wire.Scopes, CreatedAt: wire.CreatedAt, ExpiresAt: wire.ExpiresAt,
		LastUsedAt: wire.LastUsedAt, RateLimit: wire.RateLimit, Key: string(secret),
	}
}

// defaultOverlap is how long a key works on after it was replaced.
const defaultOverlap = 24 * time.Hour

// RotateKey makes a key in the place of another, which works on for a while.
func (n nouns) RotateKey(ctx context.Context, r contract.RotateKeyRequestObject) (contract.RotateKeyResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	old, err := n.keyOf(ctx, app, r.KeyId)
	if err != nil {
		return nil, err
	}
	now := stamp(time.Now())
	until := now.Add(defaultOverlap)
	if r.Body.Overlap != nil {
		until = now.Add(time.Duration(*r.Body.Overlap) * time.Second)
	}
	next := tokens.Key{ID: ident.NewKey(), App: app, Kind: old.Kind, CreatedAt: now}
	if r.Body.ExpiresIn != nil {
		next.ExpiresAt = now.Add(time.Duration(*r.Body.ExpiresIn) * time.Second)
	}
	secret := mint(&next)
	defer n.keys.forget() // the old one's end has moved
	if next, err = n.deps.Keys.RotateKey(ctx, old.ID, next, until); err != nil {
		return nil, err
	}
	return contract.RotateKey201JSONResponse(keyCreated(next, secret)), nil
}

func keyNotFound() error { return fault.New(fault.NotFound, "key_not_found", "there is no such key") }

// keyOf returns the app's key: a new one begins with the word of the old one's kind.
func (a *API) keyOf(ctx context.Context, app ident.App, id string) (tokens.Key, error) {
	keys, err := a.deps.Keys.Keys(ctx, app)
	if err != nil {
		return tokens.Key{}, err
	}
	for _, key := range keys {
		if string(key.ID) == id {
			return key, nil
		}
	}
	return tokens.Key{}, keyNotFound()
}

// ListKeys lists an app's keys without what opens.
func (n nouns) ListKeys(ctx context.Context, r contract.ListKeysRequestObject) (contract.ListKeysResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	keys, err := n.deps.Keys.Keys(ctx, app)
	if err != nil {
		return nil, err
	}
	answer := contract.ListKeys200JSONResponse{Keys: []contract.Key{}}
	for _, key := range keys {
		answer.Keys = append(answer.Keys, wireKey(key))
	}
	return answer, nil
}

// DeleteKey revokes a key.
func (n nouns) DeleteKey(ctx context.Context, r contract.DeleteKeyRequestObject) (contract.DeleteKeyResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	id, err := ident.ParseKey(r.KeyId)
	if err != nil {
		return nil, keyNotFound()
	}
	// After the commit, so that a look-up in between cannot put it back; and after an error too, for it may be gone.
	defer n.keys.forget()
	if err := n.deps.Keys.DeleteKey(ctx, app, id); err != nil {
		return nil, err
	}
	return contract.DeleteKey204Response{}, nil
}

func wireKey(k tokens.Key) contract.Key {
	wire := contract.Key{
		Id: string(k.ID), Kind: "publishable", Name: some(k.Name), Scopes: []string{},
		CreatedAt: stamp(k.CreatedAt), ExpiresAt: stampIf(k.ExpiresAt), LastUsedAt: stampIf(k.LastUsedAt), RateLimit: wireRateLimit(k.Rate),
	}
	if k.Kind == tokens.SecretKey {
		wire.Kind = "secret"
	}
	for _, scope := range k.Scopes {
		wire.Scopes = append(wire.Scopes, string(scope))
	}
	return wire
}
