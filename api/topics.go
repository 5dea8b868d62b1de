package api

import (
	"context"
	"net/http"
	"time"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// ListTopics lists an app's audiences.
func (n nouns) ListTopics(ctx context.Context, r contract.ListTopicsRequestObject) (contract.ListTopicsResponseObject, error) {
	limit, err := limitOf(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	if r.Params.After != nil && messages.CheckTopic(*r.Params.After) != nil {
		return nil, badCursor()
	}
	list, more, err := n.deps.Topics.Topics(ctx, callerOf(ctx).app, or(r.Params.After), limit)
	if err != nil {
		return nil, err
	}
	answer := contract.ListTopics200JSONResponse{Topics: make([]contract.Topic, 0, len(list)), Cursor: r.Params.After, More: more}
	for _, topic := range list {
		answer.Topics = append(answer.Topics, wireTopic(topic))
		answer.Cursor = some(topic.Name)
	}
	return answer, nil
}

// GetTopic reads one.
func (n nouns) GetTopic(ctx context.Context, r contract.GetTopicRequestObject) (contract.GetTopicResponseObject, error) {
	if err := messages.CheckTopic(r.Topic); err != nil {
		return nil, err
	}
	topic, err := n.deps.Topics.Topic(ctx, callerOf(ctx).app, r.Topic)
	if err != nil {
		return nil, err
	}
	return contract.GetTopic200JSONResponse(wireTopic(topic)), nil
}

// DeleteTopic deletes one with its subscriptions.
func (n nouns) DeleteTopic(ctx context.Context, r contract.DeleteTopicRequestObject) (contract.DeleteTopicResponseObject, error) {
	if err := messages.CheckTopic(r.Topic); err != nil {
		return nil, err
	}
	if err := n.deps.Topics.DeleteTopic(ctx, callerOf(ctx).app, r.Topic); err != nil {
		return nil, err
	}
	return contract.DeleteTopic204Response{}, nil
}

func wireTopic(t tokens.Topic) contract.Topic {
	return contract.Topic{Name: t.Name, Subscribers: t.Subscribers, CreatedAt: stampIf(t.CreatedAt)}
}

// SubscribeDevice subscribes one device.
func (n nouns) SubscribeDevice(ctx context.Context, r contract.SubscribeDeviceRequestObject) (contract.SubscribeDeviceResponseObject, error) {
	id, err := topicAndDevice(r.Topic, r.DeviceId)
	if err != nil {
		return nil, err
	}
	if err := n.subscribe(ctx, callerOf(ctx).app, r.Topic, id); err != nil {
		return nil, err
	}
	return contract.SubscribeDevice204Response{}, nil
}

// UnsubscribeDevice ends that.
func (n nouns) UnsubscribeDevice(ctx context.Context, r contract.UnsubscribeDeviceRequestObject) (contract.UnsubscribeDeviceResponseObject, error) {
	id, err := topicAndDevice(r.Topic, r.DeviceId)
	if err != nil {
		return nil, err
	}
	if err := n.unsubscribe(ctx, callerOf(ctx).app, r.Topic, id); err != nil {
		return nil, err
	}
	return contract.UnsubscribeDevice204Response{}, nil
}

// topicAndDevice reads the two names in the path.
func topicAndDevice(topic, device string) (ident.Device, error) {
	if err := messages.CheckTopic(topic); err != nil {
		return "", err
	}
	return deviceID(device)
}

// subscribe subscribes one device.
func (n nouns) subscribe(ctx context.Context, app ident.App, topic string, id ident.Device) error {
	return only(n.deps.Subscriptions.Subscribe(ctx, app, topic, []ident.Device{id}, time.Now()))
}

// unsubscribe ends that.
func (n nouns) unsubscribe(ctx context.Context, app ident.App, topic string, id ident.Device) error {
	return only(n.deps.Subscriptions.Unsubscribe(ctx, app, topic, []ident.Device{id}))
}

// only is the one result of a batch of one.
func only(each []error, err error) error {
	if err != nil || len(each) == 0 {
		return err
	}
	return each[0]
}

// SubscribeUser subscribes all devices of a user, later ones included.
func (n nouns) SubscribeUser(ctx context.Context, r contract.SubscribeUserRequestObject) (contract.SubscribeUserResponseObject, error) {
	if err := topicAndUser(r.Topic, r.User); err != nil {
		return nil, err
	}
	if err := n.deps.Subscriptions.SubscribeUser(ctx, callerOf(ctx).app, r.Topic, r.User, time.Now()); err != nil {
		return nil, err
	}
	return contract.SubscribeUser204Response{}, nil
}

// UnsubscribeUser ends that.
func (n nouns) UnsubscribeUser(ctx context.Context, r contract.UnsubscribeUserRequestObject) (contract.UnsubscribeUserResponseObject, error) {
	if err := topicAndUser(r.Topic, r.User); err != nil {
		return nil, err
	}
	if err := n.deps.Subscriptions.UnsubscribeUser(ctx, callerOf(ctx).app, r.Topic, r.User); err != nil {
		return nil, err
	}
	return contract.UnsubscribeUser204Response{}, nil
}

// topicAndUser checks the two names in the path.
func topicAndUser(topic, user string) error {
	if err := messages.CheckTopic(topic); err != nil {
		return err
	}
	return tokens.CheckUser(user)
}

// SubscribeDevices subscribes many devices, each with a result of its own.
func (n nouns) SubscribeDevices(ctx context.Context, r contract.SubscribeDevicesRequestObject) (contract.SubscribeDevicesResponseObject, error) {
	results, err := n.forEach(ctx, r.Topic, r.Body.DeviceIds, func(app ident.App, ids []ident.Device) ([]error, error) {
		return n.deps.Subscriptions.Subscribe(ctx, app, r.Topic, ids, time.Now())
	})
	return contract.SubscribeDevices200JSONResponse{Results: results}, err
}

// UnsubscribeDevices ends that.
func (n nouns) UnsubscribeDevices(ctx context.Context, r contract.UnsubscribeDevicesRequestObject) (contract.UnsubscribeDevicesResponseObject, error) {
	results, err := n.forEach(ctx, r.Topic, r.Body.DeviceIds, func(app ident.App, ids []ident.Device) ([]error, error) {
		return n.deps.Subscriptions.Unsubscribe(ctx, app, r.Topic, ids)
	})
	return contract.UnsubscribeDevices200JSONResponse{Results: results}, err
}

// forEach calls change with the devices among the names, each once, and has a result for every name, in their order.
func (n nouns) forEach(ctx context.Context, topic string, names []string, change func(ident.App, []ident.Device) ([]error, error)) ([]contract.SubscriptionResult, error) {
	if err := messages.CheckTopic(topic); err != nil {
		return nil, err
	}
	var ids []ident.Device
	place := map[string]int{}
	for _, name := range names {
		id, err := ident.ParseDevice(name)
		if _, twice := place[name]; err == nil && !twice {
			place[name] = len(ids)
			ids = append(ids, id)
		}
	}
	var each []error
	if len(ids) > 0 {
		var err error
		if each, err = change(callerOf(ctx).app, ids); err != nil {
			return nil, err
		}
	}
	results := make([]contract.SubscriptionResult, len(names))
	for i, name := range names {
		err := error(deviceNotFound())
		if at, known := place[name]; known {
			err = each[at]
		}
		results[i] = contract.SubscriptionResult{Index: i, DeviceId: name, Status: http.StatusNoContent}
		if err != nil {
			results[i].Status, results[i].Error = n.itemProblem(ctx, err)
		}
	}
	return results, nil
}

// ListOwnTopics lists what the caller is subscribed to.
func (n nouns) ListOwnTopics(ctx context.Context, _ contract.ListOwnTopicsRequestObject) (contract.ListOwnTopicsResponseObject, error) {
	topics, err := n.deps.Subscriptions.DeviceTopics(ctx, callerOf(ctx).device.ID)
	if err != nil {
		return nil, err
	}
	return contract.ListOwnTopics200JSONResponse{Topics: listed(topics)}, nil
}

// SubscribeOwnTopic subscribes the caller.
func (n nouns) SubscribeOwnTopic(ctx context.Context, r contract.SubscribeOwnTopicRequestObject) (contract.SubscribeOwnTopicResponseObject, error) {
	if err := messages.CheckTopic(r.Topic); err != nil {
		return nil, err
	}
	device := callerOf(ctx).device
	if err := n.subscribe(ctx, device.App, r.Topic, device.ID); err != nil {
		return nil, err
	}
	return contract.SubscribeOwnTopic204Response{}, nil
}

// UnsubscribeOwnTopic ends that.
func (n nouns) UnsubscribeOwnTopic(ctx context.Context, r contract.UnsubscribeOwnTopicRequestObject) (contract.UnsubscribeOwnTopicResponseObject, error) {
	if err := messages.CheckTopic(r.Topic); err != nil {
		return nil, err
	}
	device := callerOf(ctx).device
	if err := n.unsubscribe(ctx, device.App, r.Topic, device.ID); err != nil {
		return nil, err
	}
	return contract.UnsubscribeOwnTopic204Response{}, nil
}
