package api

// Operations of the contract that are not built yet: whoever builds one takes it out of here.

import (
	"context"

	"rouse/api/contract"
	"rouse/fault"
)

func notBuilt() error {
	return fault.New(fault.Unavailable, "not_built", "this operation is not built yet")
}

func (n nouns) RotateKey(context.Context, contract.RotateKeyRequestObject) (contract.RotateKeyResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) ListOwnTopics(context.Context, contract.ListOwnTopicsRequestObject) (contract.ListOwnTopicsResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UnsubscribeOwnTopic(context.Context, contract.UnsubscribeOwnTopicRequestObject) (contract.UnsubscribeOwnTopicResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) SubscribeOwnTopic(context.Context, contract.SubscribeOwnTopicRequestObject) (contract.SubscribeOwnTopicResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UnbindOwnUser(context.Context, contract.UnbindOwnUserRequestObject) (contract.UnbindOwnUserResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) BindOwnUser(context.Context, contract.BindOwnUserRequestObject) (contract.BindOwnUserResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) ListDevices(context.Context, contract.ListDevicesRequestObject) (contract.ListDevicesResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) DeleteDevice(context.Context, contract.DeleteDeviceRequestObject) (contract.DeleteDeviceResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) GetDevice(context.Context, contract.GetDeviceRequestObject) (contract.GetDeviceResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UpdateDevice(context.Context, contract.UpdateDeviceRequestObject) (contract.UpdateDeviceResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) WakeDevice(context.Context, contract.WakeDeviceRequestObject) (contract.WakeDeviceResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) ReportReceipts(context.Context, contract.ReportReceiptsRequestObject) (contract.ReportReceiptsResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) SendMessages(context.Context, contract.SendMessagesRequestObject) (contract.SendMessagesResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) ListTopics(context.Context, contract.ListTopicsRequestObject) (contract.ListTopicsResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) DeleteTopic(context.Context, contract.DeleteTopicRequestObject) (contract.DeleteTopicResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) GetTopic(context.Context, contract.GetTopicRequestObject) (contract.GetTopicResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UnsubscribeDevice(context.Context, contract.UnsubscribeDeviceRequestObject) (contract.UnsubscribeDeviceResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) SubscribeDevice(context.Context, contract.SubscribeDeviceRequestObject) (contract.SubscribeDeviceResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) SubscribeDevices(context.Context, contract.SubscribeDevicesRequestObject) (contract.SubscribeDevicesResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UnsubscribeDevices(context.Context, contract.UnsubscribeDevicesRequestObject) (contract.UnsubscribeDevicesResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UnsubscribeUser(context.Context, contract.UnsubscribeUserRequestObject) (contract.UnsubscribeUserResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) SubscribeUser(context.Context, contract.SubscribeUserRequestObject) (contract.SubscribeUserResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) DeleteUser(context.Context, contract.DeleteUserRequestObject) (contract.DeleteUserResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) GetUser(context.Context, contract.GetUserRequestObject) (contract.GetUserResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) ListWebhooks(context.Context, contract.ListWebhooksRequestObject) (contract.ListWebhooksResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) CreateWebhook(context.Context, contract.CreateWebhookRequestObject) (contract.CreateWebhookResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) DeleteWebhook(context.Context, contract.DeleteWebhookRequestObject) (contract.DeleteWebhookResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) GetWebhook(context.Context, contract.GetWebhookRequestObject) (contract.GetWebhookResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) UpdateWebhook(context.Context, contract.UpdateWebhookRequestObject) (contract.UpdateWebhookResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) RedeliverEvents(context.Context, contract.RedeliverEventsRequestObject) (contract.RedeliverEventsResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) RotateWebhookSecret(context.Context, contract.RotateWebhookSecretRequestObject) (contract.RotateWebhookSecretResponseObject, error) {
	return nil, notBuilt()
}

func (n nouns) TestWebhook(context.Context, contract.TestWebhookRequestObject) (contract.TestWebhookResponseObject, error) {
	return nil, notBuilt()
}
