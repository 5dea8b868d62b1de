package api

import (
	"context"
	"slices"
	"sync"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

func deviceNotFound() *fault.Error {
	return fault.New(fault.NotFound, "device_not_found", "there is no such device")
}

// deviceID reads an id from the path; what is not even of its form is unknown.
func deviceID(s string) (ident.Device, error) {
	id, err := ident.ParseDevice(s)
	if err != nil {
		return "", deviceNotFound()
	}
	return id, nil
}

// ListDevices lists an app's registered devices.
func (n nouns) ListDevices(ctx context.Context, r contract.ListDevicesRequestObject) (contract.ListDevicesResponseObject, error) {
	query, err := deviceQuery(callerOf(ctx).app, r.Params)
	if err != nil {
		return nil, err
	}
	list, err := n.deps.Fleet.Devices(ctx, query)
	if err != nil {
		return nil, err
	}
	answer := contract.ListDevices200JSONResponse{Devices: make([]contract.DeviceView, 0, len(list.Devices)), Cursor: r.Params.After, More: list.More}
	if list.Next != "" {
		answer.Cursor = some(list.Next)
	}
	for _, s := range list.Devices {
		answer.Devices = append(answer.Devices, wireStanding(s))
	}
	return answer, nil
}

// deviceQuery checks the parameters.
func deviceQuery(app ident.App, p contract.ListDevicesParams) (tokens.DeviceQuery, error) {
	q := tokens.DeviceQuery{
		App: app, User: or(p.UserId), Topic: or(p.Topic), Platform: tokens.Platform(or(p.Platform)),
		Provider: tokens.Provider(or(p.Provider)), TokenState: tokens.TokenState(or(p.TokenState)),
	}
	var err error
	if q.Limit, err = limitOf(p.Limit); err != nil {
		return q, err
	}
	if p.After != nil {
		if q.After, err = ident.ParseDevice(*p.After); err != nil {
			return q, badCursor()
		}
	}
	// An empty one is a mistake too: it would list everybody.
	switch {
	case p.UserId != nil && tokens.CheckUser(q.User) != nil:
		return q, badQuery("user_id: " + tokens.UserForm)
	case p.Topic != nil && messages.CheckTopic(q.Topic) != nil:
		return q, badQuery("topic: " + messages.TopicForm)
	case p.Platform != nil && !slices.Contains([]tokens.Platform{tokens.Android, tokens.IOS, tokens.MacOS, tokens.Web, tokens.Other}, q.Platform):
		return q, badQuery("platform: android, ios, macos, web or other")
	case p.Provider != nil && !slices.Contains([]tokens.Provider{tokens.FCM, tokens.APNs, tokens.NoProvider}, q.Provider):
		return q, badQuery("provider: fcm, apns or none")
	case p.TokenState != nil && !slices.Contains(tokenStates, q.TokenState):
		return q, badQuery("token_state: none, active, dead, suspect or superseded")
	}
	return q, nil
}

var tokenStates = []tokens.TokenState{tokens.TokenNone, tokens.TokenActive, tokens.TokenDead, tokens.TokenSuspect, tokens.TokenSuperseded}

// GetDevice reads one.
func (n nouns) GetDevice(ctx context.Context, r contract.GetDeviceRequestObject) (contract.GetDeviceResponseObject, error) {
	id, err := deviceID(r.DeviceId)
	if err != nil {
		return nil, err
	}
	view, err := n.view(ctx, id)
	if err != nil {
		return nil, err
	}
	return contract.GetDevice200JSONResponse(view), nil
}

// view is all there is to say of one device of the caller's app.
func (n nouns) view(ctx context.Context, id ident.Device) (contract.DeviceView, error) {
	standing, err := n.deps.Fleet.Standing(ctx, callerOf(ctx).app, id)
	if err != nil {
		return contract.DeviceView{}, err
	}
	topics, err := n.deps.Subscriptions.DeviceTopics(ctx, id)
	if err != nil {
		return contract.DeviceView{}, err
	}
	polling, all := n.present(id), listed(topics)
	wire := wireStanding(standing)
	wire.Polling, wire.Topics = &polling, &all
	return wire, nil
}

func wireStanding(s tokens.Standing) contract.DeviceView {
	d := wireDevice(s.Device)
	wire := contract.DeviceView{
		Id: d.Id, InstallationId: d.InstallationId, Platform: d.Platform, Provider: d.Provider, Environment: d.Environment,
		TokenState: d.TokenState, TokenReason: d.TokenReason, UserId: d.UserId, AppVersion: d.AppVersion, Locale: d.Locale,
		CreatedAt: d.CreatedAt, RegisteredAt: d.RegisteredAt, LastContactAt: d.LastContactAt, PushDemotedAt: d.PushDemotedAt,
		Pending: s.Pending, Reachable: s.Reachable,
	}
	wire.Unreachable = unreachable(s)
	return wire
}

func unreachable(s tokens.Standing) *contract.Unreachable {
	if s.Reachable {
		return nil
	}
	return &contract.Unreachable{Code: s.Code, Detail: s.Detail}
}

// UpdateDevice changes a device; a token is a fresh registration.
func (n nouns) UpdateDevice(ctx context.Context, r contract.UpdateDeviceRequestObject) (contract.UpdateDeviceResponseObject, error) {
	id, err := deviceID(r.DeviceId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	standing, err := n.deps.Fleet.Standing(ctx, app, id) // whether it is the app's
	if err != nil {
		return nil, err
	}
	b := r.Body
	patch, err := patchOf(standing.Device, contract.DeviceUpdate{
		Token: b.Token, Environment: (*contract.DeviceUpdateEnvironment)(b.Environment), AppVersion: b.AppVersion, Locale: b.Locale,
	})
	if err != nil {
		return nil, err
	}
	if patch.User = b.UserId; or(b.UserId) != "" {
		if err := tokens.CheckUser(*b.UserId); err != nil {
			return nil, fault.From(err).At("/user_id", tokens.UserForm+"; empty for nobody")
		}
	}
	device, err := n.deps.Devices.PatchDevice(ctx, id, patch, time.Now())
	if err != nil {
		return nil, notHere(err)
	}
	n.hintToken(device, patch.Token != nil)
	if patch.User != nil {
		n.hint(messages.Hint{Kind: messages.HintEvents, App: app}) // what waited for the user before has ended
	}
	view, err := n.view(ctx, id)
	if err != nil {
		return nil, err
	}
	return contract.UpdateDevice200JSONResponse(view), nil
}

// notHere is what a backend is told of a device that was unregistered.
func notHere(err error) error {
	if fault.KindOf(err) == fault.Gone {
		return deviceNotFound()
	}
	return err
}

// DeleteDevice unregisters a device.
func (n nouns) DeleteDevice(ctx context.Context, r contract.DeleteDeviceRequestObject) (contract.DeleteDeviceResponseObject, error) {
	id, err := deviceID(r.DeviceId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	if err := n.deps.Devices.Unregister(ctx, app, id, time.Now()); err != nil {
		return nil, err
	}
	n.hint(messages.Hint{Kind: messages.HintGone, App: app, Device: id})
	return contract.DeleteDevice204Response{}, nil
}

const (
	// wakePause is the least time between two wakes by hand of one device, on each node.
	wakePause = 10 * time.Second
	// wakeLimit bounds one, whatever the provider does.
	wakeLimit = 15 * time.Second
	// wokenKept bounds what is remembered of them, at about 100 bytes each.
	wokenKept = 10000
)

// WakeDevice pushes to a device and says what came of it.
func (n nouns) WakeDevice(ctx context.Context, r contract.WakeDeviceRequestObject) (contract.WakeDeviceResponseObject, error) {
	id, err := deviceID(r.DeviceId)
	if err != nil {
		return nil, err
	}
	standing, err := n.deps.Fleet.Standing(ctx, callerOf(ctx).app, id)
	if err != nil {
		return nil, err
	}
	if err := n.byHand.take(id, time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, wakeLimit)
	defer cancel()
	outcome, took, sent, err := n.deps.Waker.Wake(ctx, standing.Device)
	if err != nil {
		return nil, err
	}
	report := contract.WakeDevice200JSONResponse{Sent: sent, Unreachable: unreachable(standing)}
	report.Verdict, report.Reason = some(outcome.Verdict), some(outcome.Reason)
	if sent {
		milliseconds := took.Milliseconds()
		report.Provider, report.DurationMs = some(standing.Provider), &milliseconds
	}
	return report, nil
}

// wakes is who was woken by hand lately. The zero value is ready.
type wakes struct {
	mu   sync.Mutex
	last map[ident.Device]time.Time // guarded by mu
}

// take notes a wake, or fails with fault.TooMany if the last one was too short a time ago.
func (w *wakes) take(id ident.Device, now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, known := w.last[id]; known && now.Sub(last) < wakePause {
		return fault.New(fault.TooMany, "rate_limited", "a device is woken by hand at most once in %.0f seconds on each node", wakePause.Seconds()).After(wakePause - now.Sub(last))
	}
	if w.last == nil {
		w.last = map[ident.Device]time.Time{}
	}
	if len(w.last) >= wokenKept {
		for other, last := range w.last {
			if now.Sub(last) >= wakePause {
				delete(w.last, other)
			}
		}
	}
	if len(w.last) >= wokenKept {
		return fault.New(fault.TooMany, "rate_limited", "too many devices are woken by hand on this node; wake this one later").After(wakePause)
	}
	w.last[id] = now
	return nil
}
