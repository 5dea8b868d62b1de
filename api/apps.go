package api

import (
	"context"
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
	name, err := nameOfApp(r.Body.Name)
	if err != nil {
		return nil, err
	}
	app := tokens.App{ID: ident.NewApp(), Name: name, InboxOverflow: tokens.OverflowReject, CreatedAt: stamp(time.Now())}
	if r.Body.InboxOverflow != nil {
		app.InboxOverflow = tokens.Overflow(*r.Body.InboxOverflow)
	}
	secret, secretKey := newKey(app, tokens.SecretKey)
	publishable, publishableKey := newKey(app, tokens.PublishableKey)
	if err := n.deps.Apps.CreateApp(ctx, app, []tokens.Key{secret, publishable}); err != nil {
		return nil, err
	}
	return contract.CreateApp201JSONResponse{
		Id: string(app.ID), Name: app.Name, InboxOverflow: string(app.InboxOverflow), CreatedAt: app.CreatedAt,
		SecretKey: string(secretKey), PublishableKey: string(publishableKey),
	}, nil
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
	var patch tokens.AppPatch
	if r.Body.Name != nil {
		name, err := nameOfApp(*r.Body.Name)
		if err != nil {
			return nil, err
		}
		patch.Name = &name
	}
	if r.Body.InboxOverflow != nil {
		overflow := tokens.Overflow(*r.Body.InboxOverflow)
		patch.InboxOverflow = &overflow
	}
	app, err := n.deps.Apps.PatchApp(ctx, id, patch)
	if err != nil {
		return nil, err
	}
	return contract.UpdateApp200JSONResponse(wireApp(app)), nil
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
	return contract.App{Id: string(app.ID), Name: app.Name, InboxOverflow: string(app.InboxOverflow), CreatedAt: stamp(app.CreatedAt)}
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
