package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/messages"
	"rouse/tokens"
)

// route is one operation: who may call it, and what answers. A route without a guard is open to all.
type route struct {
	method, path, operation string
	pass                    guard
	serve                   http.HandlerFunc
}

// table is every route there is. openapi.yaml says the same; a test walks both ways.
func (a *API) table() []route {
	w := a.generated()
	send, devices, read := onlyBackend(tokens.ScopeSend), onlyBackend(tokens.ScopeDevices), onlyBackend(tokens.ScopeRead)
	topics, webhooks := onlyBackend(tokens.ScopeTopics), onlyBackend(tokens.ScopeWebhooks)
	return []route{
		{"POST", "/v1/apps", "createApp", onlyAdmin, w.CreateApp},
		{"GET", "/v1/apps", "listApps", onlyAdmin, w.ListApps},
		{"GET", "/v1/apps/{app_id}", "getApp", onlyAdmin, w.GetApp},
		{"PATCH", "/v1/apps/{app_id}", "updateApp", onlyAdmin, w.UpdateApp},
		{"DELETE", "/v1/apps/{app_id}", "deleteApp", onlyAdmin, w.DeleteApp},
		{"POST", "/v1/apps/{app_id}/keys", "createKey", onlyAdmin, w.CreateKey},
		{"GET", "/v1/apps/{app_id}/keys", "listKeys", onlyAdmin, w.ListKeys},
		{"DELETE", "/v1/apps/{app_id}/keys/{key_id}", "deleteKey", onlyAdmin, w.DeleteKey},
		{"POST", "/v1/apps/{app_id}/keys/{key_id}/rotate", "rotateKey", onlyAdmin, w.RotateKey},
		{"GET", "/v1/apps/{app_id}/identity-keys", "listIdentityKeys", onlyAdmin, w.ListIdentityKeys},
		{"PUT", "/v1/apps/{app_id}/identity-keys/{kid}", "putIdentityKey", onlyAdmin, w.PutIdentityKey},
		{"DELETE", "/v1/apps/{app_id}/identity-keys/{kid}", "deleteIdentityKey", onlyAdmin, w.DeleteIdentityKey},
		{"GET", "/v1/apps/{app_id}/credentials", "listCredentials", onlyAdmin, w.ListCredentials},
		{"PUT", "/v1/apps/{app_id}/credentials/apns", "putApnsCredential", onlyAdmin, w.PutApnsCredential},
		{"PUT", "/v1/apps/{app_id}/credentials/fcm", "putFcmCredential", onlyAdmin, w.PutFcmCredential},
		{"DELETE", "/v1/apps/{app_id}/credentials/apns", "deleteApnsCredential", onlyAdmin, w.DeleteApnsCredential},
		{"DELETE", "/v1/apps/{app_id}/credentials/fcm", "deleteFcmCredential", onlyAdmin, w.DeleteFcmCredential},
		{"POST", "/v1/apps/{app_id}/credentials/apns/verify", "verifyApnsCredential", onlyAdmin, w.VerifyApnsCredential},
		{"POST", "/v1/apps/{app_id}/credentials/fcm/verify", "verifyFcmCredential", onlyAdmin, w.VerifyFcmCredential},
		{"POST", "/v1/devices", "registerDevice", mayRegister, a.limitRegistrations(w.RegisterDevice)},
		{"GET", "/v1/devices", "listDevices", devices, w.ListDevices},
		{"GET", "/v1/devices/{device_id}", "getDevice", devices, w.GetDevice},
		{"PATCH", "/v1/devices/{device_id}", "updateDevice", devices, w.UpdateDevice},
		{"DELETE", "/v1/devices/{device_id}", "deleteDevice", devices, w.DeleteDevice},
		{"POST", "/v1/devices/{device_id}/wake", "wakeDevice", devices, w.WakeDevice},
		{"GET", "/v1/device", "getOwnDevice", onlyDevice, w.GetOwnDevice},
		{"PATCH", "/v1/device", "updateOwnDevice", onlyDevice, w.UpdateOwnDevice},
		{"DELETE", "/v1/device", "deleteOwnDevice", onlyDevice, w.DeleteOwnDevice},
		{"PUT", "/v1/device/user", "bindOwnUser", onlyDevice, w.BindOwnUser},
		{"DELETE", "/v1/device/user", "unbindOwnUser", onlyDevice, w.UnbindOwnUser},
		{"GET", "/v1/device/topics", "listOwnTopics", onlyDevice, w.ListOwnTopics},
		{"PUT", "/v1/device/topics/{topic}", "subscribeOwnTopic", onlyDevice, w.SubscribeOwnTopic},
		{"DELETE", "/v1/device/topics/{topic}", "unsubscribeOwnTopic", onlyDevice, w.UnsubscribeOwnTopic},
		{"POST", "/v1/device/rotate-secret", "rotateOwnSecret", onlyDevice, w.RotateOwnSecret},
		{"POST", "/v1/device/push-reports", "reportPush", onlyDevice, w.ReportPush},
		{"GET", "/v1/users/{user}", "getUser", devices, w.GetUser},
		{"DELETE", "/v1/users/{user}", "deleteUser", devices, w.DeleteUser},
		{"PUT", "/v1/users/{user}/devices/{device_id}", "bindUserDevice", devices, w.BindUserDevice},
		{"DELETE", "/v1/users/{user}/devices/{device_id}", "unbindUserDevice", devices, w.UnbindUserDevice},
		{"GET", "/v1/topics", "listTopics", topics, w.ListTopics},
		{"GET", "/v1/topics/{topic}", "getTopic", topics, w.GetTopic},
		{"DELETE", "/v1/topics/{topic}", "deleteTopic", topics, w.DeleteTopic},
		{"PUT", "/v1/topics/{topic}/devices/{device_id}", "subscribeDevice", topics, w.SubscribeDevice},
		{"DELETE", "/v1/topics/{topic}/devices/{device_id}", "unsubscribeDevice", topics, w.UnsubscribeDevice},
		{"PUT", "/v1/topics/{topic}/users/{user}", "subscribeUser", topics, w.SubscribeUser},
		{"DELETE", "/v1/topics/{topic}/users/{user}", "unsubscribeUser", topics, w.UnsubscribeUser},
		{"POST", "/v1/topics/{topic}/subscriptions", "subscribeDevices", topics, w.SubscribeDevices},
		{"POST", "/v1/topics/{topic}/unsubscriptions", "unsubscribeDevices", topics, w.UnsubscribeDevices},
		{"POST", "/v1/messages", "sendMessage", send, w.SendMessage},
		{"POST", "/v1/messages/batch", "sendMessages", send, a.sendMessages},
		{"GET", "/v1/messages", "listMessages", read, w.ListMessages},
		{"GET", "/v1/messages/{message_id}", "getMessage", read, w.GetMessage},
		{"GET", "/v1/messages/{message_id}/deliveries", "listDeliveries", read, w.ListDeliveries},
		{"POST", "/v1/messages/{message_id}/cancel", "cancelMessage", send, w.CancelMessage},
		{"GET", "/v1/events", "listEvents", read, w.ListEvents},
		{"POST", "/v1/webhooks", "createWebhook", webhooks, w.CreateWebhook},
		{"GET", "/v1/webhooks", "listWebhooks", webhooks, w.ListWebhooks},
		{"GET", "/v1/webhooks/{webhook_id}", "getWebhook", webhooks, w.GetWebhook},
		{"PATCH", "/v1/webhooks/{webhook_id}", "updateWebhook", webhooks, w.UpdateWebhook},
		{"DELETE", "/v1/webhooks/{webhook_id}", "deleteWebhook", webhooks, w.DeleteWebhook},
		{"POST", "/v1/webhooks/{webhook_id}/rotate-secret", "rotateWebhookSecret", webhooks, w.RotateWebhookSecret},
		{"POST", "/v1/webhooks/{webhook_id}/test", "testWebhook", webhooks, w.TestWebhook},
		{"POST", "/v1/webhooks/{webhook_id}/redeliver", "redeliverEvents", webhooks, w.RedeliverEvents},
		{"GET", "/v1/inbox", "getInbox", onlyDevice, a.getInbox},
		{"GET", "/v1/inbox/{message_id}", "getInboxMessage", onlyDevice, w.GetInboxMessage},
		{"POST", "/v1/inbox/acks", "ackMessages", onlyDevice, w.AckMessages},
		{"POST", "/v1/inbox/receipts", "reportReceipts", onlyDevice, w.ReportReceipts},
		{"GET", "/openapi.yaml", "getOpenapiYaml", nil, a.serveDocument("application/yaml", func(d document) []byte { return d.yaml })},
		{"GET", "/openapi.json", "getOpenapiJson", nil, a.serveDocument("application/json", func(d document) []byte { return d.json })},
		{"GET", "/docs", "getDocs", nil, a.serveDocument("text/html; charset=utf-8", func(d document) []byte { return d.page })},
	}
}

// generated is the code between a route and its noun: it binds parameters and decodes bodies.
func (a *API) generated() *contract.ServerInterfaceWrapper {
	strict := contract.NewStrictHandlerWithOptions(nouns{a}, nil, contract.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  func(w http.ResponseWriter, r *http.Request, err error) { a.fail(w, r, undecodable(err)) },
		ResponseErrorHandlerFunc: a.fail,
	})
	return &contract.ServerInterfaceWrapper{
		Handler:          strict,
		ErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) { a.fail(w, r, badParameter(err)) },
	}
}

// routes mounts the table.
func (a *API) routes() *chi.Mux {
	mux := chi.NewRouter()
	for _, x := range a.table() {
		mux.Method(x.method, x.path, a.handle(x))
	}
	mux.NotFound(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, fault.New(fault.NotFound, "not_found", "there is no such path; see /docs"))
	})
	mux.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range methods {
			method = strings.ToUpper(method)
			if mux.Match(chi.NewRouteContext(), method, r.URL.RawPath) {
				allowed = append(allowed, method)
			}
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		a.fail(w, r, fault.New(fault.Invalid, "method_not_allowed", "this path takes %s", strings.Join(allowed, ", ")))
	})
	return mux
}

// handle puts the door and the check of the body before a route. Who may not call is told
// so before a byte of the body is read.
func (a *API) handle(x route) http.HandlerFunc {
	b := a.document.bodies[x.operation]
	return func(w http.ResponseWriter, r *http.Request) {
		exchange := exchangeOf(r.Context())
		exchange.operation = x.operation
		if err := a.holdAddress(w, r); err != nil {
			a.fail(w, r, err)
			return
		}
		if x.pass != nil {
			w.Header().Set("Cache-Control", "no-store")
			who, err := a.admitInTime(w, r, x)
			if err != nil {
				a.fail(w, r, err)
				return
			}
			exchange.caller = who
		}
		if x.method == http.MethodGet {
			if err := refuseBody(w, r); err != nil {
				a.fail(w, r, err)
				return
			}
		}
		if b != nil && x.operation != "sendMessages" { // which reads its own
			if err := b.take(w, r); err != nil {
				a.fail(w, r, err)
				return
			}
		}
		x.serve(w, r)
	}
}

// admitInTime is admit, but a poll that the store lets wait beyond its time is not admitted.
func (a *API) admitInTime(w http.ResponseWriter, r *http.Request, x route) (caller, error) {
	if x.operation != "getInbox" {
		return a.admit(w, r, x.pass)
	}
	end := pollEnd(r)
	exchangeOf(r.Context()).end = end
	ctx, cancel := context.WithDeadline(r.Context(), end)
	defer cancel()
	return a.admit(w, r.WithContext(ctx), x.pass)
}

// nouns answers the operations of the contract; one file a noun.
type nouns struct{ *API }

var _ contract.StrictServerInterface = nouns{}

// callerOf is who was admitted.
func callerOf(ctx context.Context) caller { return exchangeOf(ctx).caller }

// badParameter is a query or header parameter of the wrong form. Paths are always strings. The
// cause repeats the value, so it is left out.
func badParameter(err error) error {
	var form *contract.InvalidParamFormatError
	var many *contract.TooManyValuesForParamError
	switch {
	case errors.As(err, &many):
		return fault.New(fault.Malformed, "bad_header", "%s: give it once", many.ParamName)
	case errors.As(err, &form) && form.ParamName == "Idempotency-Key":
		return badIdempotencyKey(messages.MaxIdempotencyKey)
	case errors.As(err, &form):
		return fault.New(fault.Malformed, "bad_query", "%s: not of the form the contract says; give it once", form.ParamName)
	}
	return fault.New(fault.Malformed, "bad_query", "a parameter is not of the form the contract says")
}
