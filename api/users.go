package api

import (
	"context"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// userAndDevice reads the two names in the path.
func userAndDevice(user, device string) (ident.Device, error) {
	if err := tokens.CheckUser(user); err != nil {
		return "", err
	}
	id, err := ident.ParseDevice(device)
	if err != nil {
		return "", fault.New(fault.NotFound, "device_not_found", "there is no such device")
	}
	return id, nil
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
	n.hint(messages.Hint{Kind: messages.HintToken, App: app, Device: id})
	return contract.BindUserDevice204Response{}, nil
}

// UnbindUserDevice says that a device is no longer a user's.
func (n nouns) UnbindUserDevice(ctx context.Context, r contract.UnbindUserDeviceRequestObject) (contract.UnbindUserDeviceResponseObject, error) {
	id, err := userAndDevice(r.User, r.DeviceId)
	if err != nil {
		return nil, err
	}
	if err := n.deps.Users.UnbindUser(ctx, callerOf(ctx).app, r.User, id, time.Now()); err != nil {
		return nil, err
	}
	return contract.UnbindUserDevice204Response{}, nil
}
