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

func (n nouns) SendMessages(context.Context, contract.SendMessagesRequestObject) (contract.SendMessagesResponseObject, error) {
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
