package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// guard decides who may make a call.
type guard func(c caller, k tokens.Key) error

// onlyAdmin lets the administrator pass.
func onlyAdmin(c caller, _ tokens.Key) error {
	if c.kind != tokens.AdminKey {
		return wrongKind("the administrator's key")
	}
	return nil
}

// onlyDevice lets a device pass.
func onlyDevice(c caller, _ tokens.Key) error {
	if c.kind != tokens.DeviceKey {
		return wrongKind("a device's own key, rouse_dev_...")
	}
	return nil
}

// onlyBackend lets a secret key with the scope pass.
func onlyBackend(scope tokens.Scope) guard {
	return func(c caller, k tokens.Key) error {
		if c.kind != tokens.SecretKey {
			return wrongKind("a backend's key, rouse_sk_...")
		}
		if !k.Allows(scope) {
			return fault.New(fault.Forbidden, "missing_scope", "this key lacks the scope %q", scope)
		}
		return nil
	}
}

// mayRegister lets apps, backends and devices pass.
func mayRegister(c caller, k tokens.Key) error {
	switch c.kind {
	case tokens.PublishableKey, tokens.DeviceKey:
		return nil
	case tokens.SecretKey:
		return onlyBackend(tokens.ScopeDevices)(c, k)
	}
	return wrongKind("an app's publishable key, a backend's key or the device's own")
}

func wrongKind(want string) error {
	return fault.New(fault.Forbidden, "wrong_key_kind", "this call takes %s", want)
}

// Failures at the door. Every one is the same status and says no more than the client could find out anyway.
var (
	errNoKey      = fault.New(fault.Unauthenticated, "unauthenticated", "send the header Authorization: Bearer KEY")
	errBadKey     = fault.New(fault.Unauthenticated, "bad_key", "that is not a key of this server: it may be cut short or misspelt")
	errUnknownKey = fault.New(fault.Unauthenticated, "unknown_key", "that key is not known here: it may have been revoked")
	errExpiredKey = fault.New(fault.Unauthenticated, "expired_key", "that key has expired; make a new one")
)

// admit proves who calls and lets them pass the guard.
func (a *API) admit(w http.ResponseWriter, r *http.Request, pass guard) (caller, error) {
	c, key, err := a.authenticate(r)
	if err == nil {
		if err := a.hold(w, r, c, key); err != nil {
			return c, err
		}
		return c, pass(c, key)
	}
	switch fault.KindOf(err) {
	case fault.Unauthenticated:
	case fault.Gone:
		// Its device is gone; but a call that no device may make is answered as any device's.
		if wrong := pass(caller{kind: tokens.DeviceKey}, tokens.Key{}); wrong != nil {
			return caller{}, wrong
		}
		return caller{}, err
	default:
		return caller{}, err
	}
	// Only failures count, and only failures are refused: behind one address there may be a whole carrier.
	if limited := a.holdFailure(w, r); limited != nil {
		return caller{}, limited
	}
	return caller{}, err
}

// authenticate proves who calls.
func (a *API) authenticate(r *http.Request) (caller, tokens.Key, error) {
	raw, ok := bearer(r)
	if !ok {
		return caller{}, tokens.Key{}, errNoKey
	}
	// The administrator's key may be any words, so it is tried before the spelling is judged.
	if a.deps.Admin != (tokens.Hash{}) && tokens.HashOf(tokens.Secret(raw)).Equal(a.deps.Admin) {
		return caller{kind: tokens.AdminKey}, tokens.Key{}, nil
	}
	parsed, err := tokens.ParseKey(raw)
	if err != nil {
		return caller{}, tokens.Key{}, errBadKey
	}
	switch parsed.Kind {
	case tokens.SecretKey, tokens.PublishableKey:
		return a.appKey(r.Context(), parsed)
	case tokens.DeviceKey:
		c, err := a.deviceKey(r.Context(), parsed)
		return c, tokens.Key{}, err
	}
	return caller{}, tokens.Key{}, errUnknownKey
}

func bearer(r *http.Request) (string, bool) {
	scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	key = strings.TrimSpace(key)
	return key, ok && strings.EqualFold(scheme, "Bearer") && key != ""
}

func (a *API) appKey(ctx context.Context, p tokens.ParsedKey) (caller, tokens.Key, error) {
	key, err := a.keys.get(ctx, ident.Key(ident.KeyPrefix+p.ID), time.Now())
	if err != nil {
		if fault.KindOf(err) == fault.Unauthenticated {
			err = errUnknownKey
		}
		return caller{}, tokens.Key{}, err
	}
	switch {
	case key.Kind != p.Kind || !key.Hash.Equal(p.Hash):
		return caller{}, tokens.Key{}, errUnknownKey
	case !key.Live(time.Now()):
		return caller{}, tokens.Key{}, errExpiredKey
	}
	a.deps.Callers.NoteKeyUse(key.ID, time.Now())
	return caller{kind: p.Kind, app: key.App, key: key.ID}, key, nil
}

func (a *API) deviceKey(ctx context.Context, p tokens.ParsedKey) (caller, error) {
	id := ident.Device(ident.DevicePrefix + p.ID)
	device, supersedes, err := a.holder(ctx, id, p.Hash)
	if err != nil {
		return caller{}, err
	}
	if supersedes {
		a.deps.Door.ConfirmSecret(id, p.Hash) // the device holds its new key: the old one may go
	}
	a.deps.Door.Contact(id, time.Now())
	return caller{kind: tokens.DeviceKey, app: device.App, device: device, proof: p.Hash}, nil
}

// holder returns the device whose key has the hash; supersedes says that this is its new key, and an old one still
// works. Only the holder of the key is told that the device is gone: the id alone is no secret.
func (a *API) holder(ctx context.Context, id ident.Device, proof tokens.Hash) (d tokens.Device, supersedes bool, err error) {
	d, current, previous, err := a.deps.Door.DeviceAuth(ctx, id)
	switch kind := fault.KindOf(err); {
	case err != nil && kind == fault.Unauthenticated:
		return tokens.Device{}, false, errUnknownKey
	case err != nil && kind != fault.Gone:
		return tokens.Device{}, false, err
	}
	isCurrent := current.Equal(proof)
	if !isCurrent && !previous.Equal(proof) {
		return tokens.Device{}, false, errUnknownKey
	}
	return d, isCurrent && previous != (tokens.Hash{}), err
}

// disowned makes an unknown key of a caller's own device or app that was deleted since its key was checked. Only the
// administrator and backends ask about devices and apps that are not themselves.
func disowned(who tokens.KeyKind, e *fault.Error) *fault.Error {
	ownApp := e.Code == "app_not_found" && who != tokens.AdminKey && who != ""
	ownDevice := e.Code == "device_not_found" && who == tokens.DeviceKey
	if e.Kind == fault.NotFound && (ownApp || ownDevice) {
		return errUnknownKey
	}
	return e
}
