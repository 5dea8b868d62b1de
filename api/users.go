package api

import (
	"context"
	"time"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// userAndDevice reads the two names in the path.
func userAndDevice(user, device string) (ident.Device, error) {
	if err := tokens.CheckUser(user); err != nil {
		return "", err
	}
	return deviceID(device)
}

// BindUserDevice says that a device is a user's.
func (n nouns) BindUserDevice(ctx context.Context, r contract.BindUserDeviceRequestObject) (contract.BindUserDeviceResponseObject, error) {
	id, err := userAndDevice(r.User, r.DeviceId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	if err := n.deps.Users.BindUser(ctx, app, r.User, id, time.Now()); err != nil {
		return nil, err
	}
	// Events: what waited for the user before has ended.
	n.hint(messages.Hint{Kind: messages.HintToken, App: app, Device: id}, messages.Hint{Kind: messages.HintEvents, App: app})
	return contract.BindUserDevice204Response{}, nil
}

// UnbindUserDevice says that a device is no longer a user's.
func (n nouns) UnbindUserDevice(ctx context.Context, r contract.UnbindUserDeviceRequestObject) (contract.UnbindUserDeviceResponseObject, error) {
	id, err := userAndDevice(r.User, r.DeviceId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	if err := n.deps.Users.UnbindUser(ctx, app, r.User, id, time.Now()); err != nil {
		return nil, err
	}
	// Not HintAcked: the device's home would take it for a word of the device, and count its last wake as answered.
	n.hint(messages.Hint{Kind: messages.HintEvents, App: app})
	return contract.UnbindUserDevice204Response{}, nil
}

// GetUser reads what a user has.
func (n nouns) GetUser(ctx context.Context, r contract.GetUserRequestObject) (contract.GetUserResponseObject, error) {
	if err := tokens.CheckUser(r.User); err != nil {
		return nil, err
	}
	user, err := n.deps.Users.User(ctx, callerOf(ctx).app, r.User)
	if err != nil {
		return nil, err
	}
	wire := contract.GetUser200JSONResponse{Id: r.User, Devices: make([]contract.Device, 0, len(user.Devices)), Topics: listed(user.Topics)}
	for _, d := range user.Devices {
		wire.Devices = append(wire.Devices, wireDevice(d))
	}
	return wire, nil
}

// DeleteUser erases everything of a person.
func (n nouns) DeleteUser(ctx context.Context, r contract.DeleteUserRequestObject) (contract.DeleteUserResponseObject, error) {
	if err := tokens.CheckUser(r.User); err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	user, err := n.deps.Users.User(ctx, app, r.User)
	if err != nil {
		return nil, err
	}
	// Even after an error: part of it is erased. Polls of erased devices find out when they look.
	defer n.hint(goneOf(app, user.Devices)...)
	erased, err := n.deps.Users.EraseUser(ctx, app, r.User, time.Now())
	if err != nil {
		return nil, err
	}
	return contract.DeleteUser200JSONResponse{
		Devices: erased.Devices, Deliveries: erased.Deliveries, Messages: erased.Messages, Subscriptions: erased.Subscriptions,
	}, nil
}

// goneOf says that devices are gone, and that this is told of.
func goneOf(app ident.App, devices []tokens.Device) []messages.Hint {
	hints := []messages.Hint{{Kind: messages.HintEvents, App: app}}
	for _, d := range devices {
		hints = append(hints, messages.Hint{Kind: messages.HintGone, App: app, Device: d.ID})
	}
	return hints
}

// BindOwnUser logs a user in on the caller.
func (n nouns) BindOwnUser(ctx context.Context, r contract.BindOwnUserRequestObject) (contract.BindOwnUserResponseObject, error) {
	device := callerOf(ctx).device
	user, err := n.userOf(ctx, device.App, r.Body.UserToken)
	if err != nil {
		return nil, err
	}
	if err := n.deps.Users.BindUser(ctx, device.App, user, device.ID, time.Now()); err != nil {
		return nil, err
	}
	n.userMoved(device)
	return contract.BindOwnUser204Response{}, nil
}

// UnbindOwnUser logs out whoever is logged in on the caller.
func (n nouns) UnbindOwnUser(ctx context.Context, _ contract.UnbindOwnUserRequestObject) (contract.UnbindOwnUserResponseObject, error) {
	device := callerOf(ctx).device
	if err := n.deps.Users.UnbindUser(ctx, device.App, "", device.ID, time.Now()); err != nil {
		return nil, err
	}
	n.userMoved(device)
	return contract.UnbindOwnUser204Response{}, nil
}

// userMoved says that the device itself changed whose it is: its home looks what is left there.
func (a *API) userMoved(d tokens.Device) {
	a.hint(messages.Hint{Kind: messages.HintAcked, App: d.App, Device: d.ID})
}
