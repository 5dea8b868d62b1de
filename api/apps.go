package api

import (
	"context"
	"math"
	"strings"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

func appNotFound() error {
	return fault.New(fault.NotFound, "app_not_found", "there is no such app")
}

// appID reads an id from the path; what is not even of its form is unknown.
func appID(s string) (ident.App, error) {
	id, err := ident.ParseApp(s)
	if err != nil {
		return "", appNotFound()
	}
	return id, nil
}

// CreateApp makes a tenant with its first two keys.
func (n nouns) CreateApp(ctx context.Context, r contract.CreateAppRequestObject) (contract.CreateAppResponseObject, error) {
	app, err := newApp(*r.Body)
	if err != nil {
		return nil, err
	}
	secret, secretKey := newKey(app, tokens.SecretKey)
	publishable, publishableKey := newKey(app, tokens.PublishableKey)
	if err := n.deps.Apps.CreateApp(ctx, app, []tokens.Key{secret, publishable}); err != nil {
		return nil, err
	}
	wire := wireApp(app)
	return contract.CreateApp201JSONResponse{
		Id: wire.Id, Name: wire.Name, InboxOverflow: wire.InboxOverflow, Registration: wire.Registration, BroadcastRate: wire.BroadcastRate,
		EventTypes: wire.EventTypes, RateLimit: wire.RateLimit, CreatedAt: wire.CreatedAt,
		SecretKey: string(secretKey), PublishableKey: string(publishableKey),
	}, nil
}

// newApp makes a tenant of what was asked for; what was left out is as contract says.
func newApp(b contract.AppCreate) (tokens.App, error) {
	app := tokens.App{
		ID: ident.NewApp(), InboxOverflow: tokens.OverflowReject, Registration: tokens.RegistrationOpen,
		BroadcastRate: tokens.DefaultBroadcastRate, CreatedAt: stamp(time.Now()),
	}
	patch, err := appPatch(contract.AppUpdate{
		Name: &b.Name, InboxOverflow: b.InboxOverflow, Registration: b.Registration, BroadcastRate: b.BroadcastRate,
		EventTypes: b.EventTypes, RateLimit: b.RateLimit,
	})
	if err != nil {
		return app, err
	}
	app.Name = *patch.Name
	app.InboxOverflow = orElse(patch.InboxOverflow, app.InboxOverflow)
	app.Registration = orElse(patch.Registration, app.Registration)
	app.BroadcastRate = orElse(patch.BroadcastRate, app.BroadcastRate)
	app.EventTypes, app.Rate = or(patch.EventTypes), or(patch.Rate)
	return app, nil
}

// newKey makes one of an app's first keys.
func newKey(app tokens.App, kind tokens.KeyKind) (tokens.Key, tokens.Secret) {
	key := tokens.Key{ID: ident.NewKey(), App: app.ID, Kind: kind, Name: "first", CreatedAt: app.CreatedAt}
	if kind == tokens.SecretKey {
		key.Scopes = tokens.AllScopes()
	}
	secret := tokens.MintKey(kind, strings.TrimPrefix(string(key.ID), ident.KeyPrefix))
	key.Hash = tokens.HashOf(secret)
	return key, secret
}

func nameOfApp(s string) (string, error) {
	name := strings.TrimSpace(s)
	if name == "" {
		return "", invalidBody().At("/name", "must not be blank")
	}
	return name, storable("/name", name)
}

// ListApps lists tenants, oldest first.
func (n nouns) ListApps(ctx context.Context, r contract.ListAppsRequestObject) (contract.ListAppsResponseObject, error) {
	limit, err := limitOf(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	var after ident.App
	if r.Params.After != nil {
		if after, err = ident.ParseApp(*r.Params.After); err != nil {
			return nil, badCursor()
		}
	}
	apps, err := n.deps.Apps.Apps(ctx, after, limit+1)
	if err != nil {
		return nil, err
	}
	answer := contract.ListApps200JSONResponse{Apps: []contract.App{}, Cursor: r.Params.After, More: len(apps) > limit}
	for _, app := range apps[:min(limit, len(apps))] {
		answer.Apps = append(answer.Apps, wireApp(app))
		answer.Cursor = some(app.ID)
	}
	return answer, nil
}

// GetApp reads a tenant.
func (n nouns) GetApp(ctx context.Context, r contract.GetAppRequestObject) (contract.GetAppResponseObject, error) {
	id, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	app, err := n.deps.Apps.App(ctx, id)
	if err != nil {
		return nil, err
	}
	circuits, err := n.deps.Circuits.Circuits(ctx, id)
	if err != nil {
		return nil, err
	}
	wire := wireApp(app)
	wire.Circuits = new(wireCircuits(circuits, time.Now()))
	return contract.GetApp200JSONResponse(wire), nil
}

// UpdateApp changes a tenant.
func (n nouns) UpdateApp(ctx context.Context, r contract.UpdateAppRequestObject) (contract.UpdateAppResponseObject, error) {
	id, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	patch, err := appPatch(*r.Body)
	if err != nil {
		return nil, err
	}
	defer n.apps.forget() // after the commit, and after an error too
	app, err := n.deps.Apps.PatchApp(ctx, id, patch)
	if err != nil {
		return nil, err
	}
	return contract.UpdateApp200JSONResponse(wireApp(app)), nil
}

// appPatch reads a change to an app.
func appPatch(b contract.AppUpdate) (tokens.AppPatch, error) {
	patch := tokens.AppPatch{
		InboxOverflow: (*tokens.Overflow)(b.InboxOverflow), Registration: (*tokens.RegistrationMode)(b.Registration),
		BroadcastRate: b.BroadcastRate, EventTypes: b.EventTypes,
	}
	if b.Name != nil {
		name, err := nameOfApp(*b.Name)
		if err != nil {
			return patch, err
		}
		patch.Name = &name
	}
	if err := checkEventWords("event_types", or(b.EventTypes)); err != nil {
		return patch, err
	}
	if b.RateLimit != nil {
		limit, err := rateLimitOf(*b.RateLimit)
		if err != nil {
			return patch, err
		}
		patch.Rate = &limit
	}
	return patch, nil
}

// rateLimitOf reads a limit, in steps of a thousandth a second.
func rateLimitOf(b contract.RateLimitSetting) (tokens.RateLimit, error) {
	if b.PerSecond == 0 {
		return tokens.RateLimit{}, nil
	}
	limit := tokens.RateLimit{PerSecond: math.Round(float64(b.PerSecond)*1000) / 1000, Burst: or(b.Burst)}
	if limit.PerSecond == 0 {
		return limit, invalidBody().At("/rate_limit/per_second", "must be at least 0.001, or 0 for no limit")
	}
	if b.Burst == nil {
		limit.Burst = max(1, int(math.Ceil(2*limit.PerSecond)))
	}
	return limit, nil
}

func wireRateLimit(r tokens.RateLimit) *contract.RateLimitView {
	if r == (tokens.RateLimit{}) {
		return nil
	}
	return &contract.RateLimitView{PerSecond: float32(r.PerSecond), Burst: r.Burst}
}

// DeleteApp deletes a tenant and everything in it.
func (n nouns) DeleteApp(ctx context.Context, r contract.DeleteAppRequestObject) (contract.DeleteAppResponseObject, error) {
	id, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	// Even after an error: part of the app may be gone. Its parked polls find out when they look, and whoever keeps its
	// credentials open, or a circuit of it, lets go.
	defer func() {
		n.keys.forget()
		n.apps.forget()
		n.identities.forget()
		n.recheck.soon()
		for _, p := range []tokens.Provider{tokens.APNs, tokens.FCM} {
			n.hint(messages.Hint{Kind: messages.HintCredential, App: id, Provider: string(p)})
		}
	}()
	if err := n.deps.Apps.DeleteApp(ctx, id); err != nil {
		return nil, err
	}
	return contract.DeleteApp204Response{}, nil
}

func wireApp(app tokens.App) contract.App {
	wire := contract.App{
		Id: string(app.ID), Name: app.Name, InboxOverflow: string(app.InboxOverflow), Registration: string(app.Registration),
		BroadcastRate: app.BroadcastRate, RateLimit: wireRateLimit(app.Rate), CreatedAt: stamp(app.CreatedAt),
	}
	if wire.EventTypes = &app.EventTypes; app.EventTypes == nil {
		wire.EventTypes = &[]string{"*"}
	}
	return wire
}

func wireCircuits(list []tokens.Circuit, now time.Time) []contract.Circuit {
	wire := make([]contract.Circuit, 0, len(list))
	for _, c := range list {
		state := string(c.State)
		if c.State == tokens.CircuitOpen && !now.Before(c.RetryAt) {
			state = "half_open"
		}
		w := contract.Circuit{
			Provider: string(c.Provider), Environment: some(c.Environment), Onward: some(c.Onward), State: state, Cause: string(c.Cause),
			Reason: some(c.Reason), OpenedAt: stamp(c.OpenedAt),
		}
		if c.State == tokens.CircuitOpen {
			w.RetryAt = stampIf(c.RetryAt)
		}
		wire = append(wire, w)
	}
	return wire
}
