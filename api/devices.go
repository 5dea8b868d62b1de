package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// RegisterDevice makes a device, or updates one.
func (n nouns) RegisterDevice(ctx context.Context, r contract.RegisterDeviceRequestObject) (contract.RegisterDeviceResponseObject, error) {
	who := callerOf(ctx)
	registration, err := tokens.CheckRegistration(tokens.Registration{
		App: who.app, Installation: r.Body.InstallationId,
		Platform: tokens.Platform(r.Body.Platform), Provider: tokens.Provider(r.Body.Provider),
		Environment: tokens.Environment(or(r.Body.Environment)), Token: tokens.Token(or(r.Body.Token)),
		AppVersion: or(r.Body.AppVersion), Locale: or(r.Body.Locale),
	})
	if err != nil {
		return nil, err
	}
	id, now := ident.NewDevice(), time.Now()
	secret := newDeviceKey(id)
	device, created, err := n.deps.Devices.Register(ctx, tokens.Enrol{
		Registration: registration, As: who.kind, Device: who.device.ID, ID: id, Secret: tokens.HashOf(secret), Now: now,
	})
	if err != nil {
		return nil, err
	}
	if who.kind == tokens.SecretKey && !created {
		// A device's key holds the device's id, which was not known before: mint it again for this one.
		secret = newDeviceKey(device.ID)
		defer n.parker.Wake(device.ID) // a poll with the old key finds out now
		if err := n.deps.Devices.RotateSecret(ctx, device.ID, tokens.HashOf(secret), now); err != nil {
			return nil, err
		}
	}
	n.hintToken(device, registration.Token != "")
	wire := registered(device)
	if created || who.kind == tokens.SecretKey {
		wire.Secret = some(secret)
	}
	if created {
		return contract.RegisterDevice201JSONResponse{Body: wire}, nil
	}
	return contract.RegisterDevice200JSONResponse{Body: wire}, nil
}

func newDeviceKey(id ident.Device) tokens.Secret {
	return tokens.MintKey(tokens.DeviceKey, strings.TrimPrefix(string(id), ident.DevicePrefix))
}

// hintToken says that a device can be woken anew.
func (a *API) hintToken(d tokens.Device, fresh bool) {
	if fresh {
		a.hint(messages.Hint{Kind: messages.HintToken, App: d.App, Device: d.ID})
	}
}

// GetOwnDevice reads the caller.
func (n nouns) GetOwnDevice(ctx context.Context, _ contract.GetOwnDeviceRequestObject) (contract.GetOwnDeviceResponseObject, error) {
	return contract.GetOwnDevice200JSONResponse(wireDevice(callerOf(ctx).device)), nil
}

// UpdateOwnDevice changes the caller; a token is a fresh registration.
func (n nouns) UpdateOwnDevice(ctx context.Context, r contract.UpdateOwnDeviceRequestObject) (contract.UpdateOwnDeviceResponseObject, error) {
	patch := tokens.Patch{AppVersion: r.Body.AppVersion, Locale: r.Body.Locale}
	if r.Body.Token != nil {
		token := tokens.Token(*r.Body.Token)
		patch.Token = &token
	}
	if r.Body.Environment != nil {
		environment := tokens.Environment(*r.Body.Environment)
		patch.Environment = &environment
	}
	who := callerOf(ctx).device
	patch, err := tokens.CheckPatch(who.Provider, patch)
	if err != nil {
		return nil, err
	}
	device, err := n.deps.Devices.PatchDevice(ctx, who.ID, patch, time.Now())
	if err != nil {
		return nil, err
	}
	n.hintToken(device, patch.Token != nil)
	return contract.UpdateOwnDevice200JSONResponse(wireDevice(device)), nil
}

// DeleteOwnDevice unregisters the caller.
func (n nouns) DeleteOwnDevice(ctx context.Context, _ contract.DeleteOwnDeviceRequestObject) (contract.DeleteOwnDeviceResponseObject, error) {
	device := callerOf(ctx).device
	if err := n.deps.Devices.Unregister(ctx, device.App, device.ID, time.Now()); err != nil {
		return nil, err
	}
	n.hint(messages.Hint{Kind: messages.HintGone, App: device.App, Device: device.ID})
	return contract.DeleteOwnDevice204Response{}, nil
}

// RotateOwnSecret gives the caller a new key; the old one works until the new one is used.
func (n nouns) RotateOwnSecret(ctx context.Context, _ contract.RotateOwnSecretRequestObject) (contract.RotateOwnSecretResponseObject, error) {
	id := callerOf(ctx).device.ID
	secret := newDeviceKey(id)
	if err := n.deps.Devices.RotateSecret(ctx, id, tokens.HashOf(secret), time.Now()); err != nil {
		return nil, err
	}
	return contract.RotateOwnSecret200JSONResponse{Secret: string(secret)}, nil
}

// demotionPause is how long after a report of a demoted push further ones teach nothing: they tell of the same demotion.
const demotionPause = time.Minute

// ReportPush notes how a push arrived at the device, if that teaches anything. The worker reads it with the next wake, so
// nobody needs a hint.
func (n nouns) ReportPush(ctx context.Context, r contract.ReportPushRequestObject) (contract.ReportPushResponseObject, error) {
	device, now := callerOf(ctx).device, time.Now()
	demoted := r.Body.Priority == contract.PushReportPriorityNormal
	if !teaches(device, *r.Body, now) {
		return contract.ReportPush204Response{}, nil
	}
	return contract.ReportPush204Response{}, n.deps.Devices.NotePush(ctx, device.ID, demoted, now)
}

// teaches reports whether a report changes what is known of the device. Only Google demotes, and only what was high.
func teaches(d tokens.Device, r contract.PushReport, now time.Time) bool {
	if d.Provider != tokens.FCM || r.OriginalPriority != contract.PushReportOriginalPriorityHigh {
		return false
	}
	switch r.Priority {
	case contract.PushReportPriorityNormal:
		return now.Sub(d.DemotedAt) >= demotionPause
	case contract.PushReportPriorityHigh:
		return d.Demotions > 0
	}
	return false
}

// limitRegistrations holds back an address that registers too much with a publishable key. The
// other two kinds of key are not shipped in an app.
func (a *API) limitRegistrations(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if callerOf(r.Context()).kind == tokens.PublishableKey {
			if err := a.register.take(w, a.clientOf(r), time.Now()); err != nil {
				a.fail(w, r, err)
				return
			}
		}
		next(w, r)
	}
}

func wireDevice(d tokens.Device) contract.Device {
	return contract.Device{
		Id: string(d.ID), InstallationId: d.Installation, Platform: string(d.Platform), Provider: string(d.Provider),
		Environment: some(d.Environment), TokenState: string(d.TokenState), TokenReason: some(d.TokenReason), UserId: some(d.User),
		AppVersion: some(d.AppVersion), Locale: some(d.Locale),
		CreatedAt: stamp(d.CreatedAt), RegisteredAt: stamp(d.RegisteredAt), LastContactAt: stampIf(d.LastContact),
		PushDemotedAt: demotedAt(d, time.Now()),
	}
}

func registered(d tokens.Device) contract.RegisteredDevice {
	w := wireDevice(d)
	return contract.RegisteredDevice{
		Id: w.Id, InstallationId: w.InstallationId, Platform: w.Platform, Provider: w.Provider, Environment: w.Environment,
		TokenState: w.TokenState, TokenReason: w.TokenReason, UserId: w.UserId, AppVersion: w.AppVersion, Locale: w.Locale,
		CreatedAt: w.CreatedAt, RegisteredAt: w.RegisteredAt, LastContactAt: w.LastContactAt, PushDemotedAt: w.PushDemotedAt,
	}
}

// demotedAt is when the device last reported a demoted push, if that still counts.
func demotedAt(d tokens.Device, now time.Time) *time.Time {
	if d.HighSpacing(now) == 0 {
		return nil
	}
	return stampIf(d.DemotedAt)
}
