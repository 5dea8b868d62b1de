package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"rouse/api/contract"
	"rouse/fault"
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
	enrol := tokens.Enrol{Registration: registration, As: who.kind, Device: who.device.ID, ID: ident.NewDevice(), Topics: or(r.Body.Topics), Now: time.Now()}
	if enrol.User, err = n.mayEnrol(ctx, who, r.Body); err != nil {
		return nil, err
	}
	secret := newDeviceKey(enrol.ID)
	enrol.Secret = tokens.HashOf(secret)
	device, created, err := n.deps.Devices.Register(ctx, enrol)
	if err != nil {
		return nil, err
	}
	if who.kind == tokens.SecretKey && !created {
		// A device's key holds the device's id, which was not known before: mint it again for this one.
		secret = newDeviceKey(device.ID)
		defer n.parker.Wake(device.ID) // a poll with the old key finds out now
		if err := n.deps.Devices.RotateSecret(ctx, device.ID, tokens.HashOf(secret), enrol.Now); err != nil {
			return nil, err
		}
	}
	n.hintToken(device, registration.Token != "")
	n.hint(messages.Hint{Kind: messages.HintEvents, App: device.App})
	wire := registered(device)
	if created || who.kind == tokens.SecretKey {
		wire.Secret = some(secret)
	}
	if created {
		return contract.RegisterDevice201JSONResponse{Body: wire}, nil
	}
	return contract.RegisterDevice200JSONResponse{Body: wire}, nil
}

// mayEnrol checks the parts of a registration that depend on the app, and returns whose the device will be; nil if no token says so.
func (n nouns) mayEnrol(ctx context.Context, who caller, b *contract.DeviceRegistration) (*string, error) {
	if who.kind == tokens.PublishableKey {
		if err := n.mayRegisterItself(ctx, who.app, b.UserToken != nil); err != nil {
			return nil, err
		}
	}
	for i, topic := range or(b.Topics) {
		if err := messages.CheckTopic(topic); err != nil {
			return nil, fault.From(err).At(fmt.Sprintf("/topics/%d", i), messages.TopicForm)
		}
	}
	if b.UserToken == nil {
		return nil, nil
	}
	user, err := n.userOf(ctx, who.app, *b.UserToken)
	return &user, err
}

// mayRegisterItself holds a device to the app's registration mode.
func (a *API) mayRegisterItself(ctx context.Context, id ident.App, withToken bool) error {
	app, err := a.apps.get(ctx, id, time.Now())
	switch {
	case err != nil:
		return err
	case app.Registration == tokens.RegistrationServer:
		return fault.New(fault.Forbidden, "registration_closed", "this app's devices are registered by its backend alone: have it register this installation with its secret key, and hand the device's key on")
	case app.Registration == tokens.RegistrationToken && !withToken:
		return fault.New(fault.Forbidden, "registration_closed", "this app's devices register with a user_token: have your backend sign one, and send it along")
	}
	return nil
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
	who := callerOf(ctx).device
	patch, err := patchOf(who, *r.Body)
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

// patchOf reads a change to a device.
func patchOf(d tokens.Device, b contract.DeviceUpdate) (tokens.Patch, error) {
	patch := tokens.Patch{AppVersion: b.AppVersion, Locale: b.Locale}
	if b.Token != nil {
		token := tokens.Token(*b.Token)
		patch.Token = &token
	}
	if b.Environment != nil {
		environment := tokens.Environment(*b.Environment)
		patch.Environment = &environment
	}
	return tokens.CheckPatch(d.Provider, patch)
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
			if err := a.holdRegistration(w, r); err != nil {
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
