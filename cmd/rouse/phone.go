package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"rouse/client"
)

// phone is the app's side of Rouse: it has the device's own key and nothing else.
type phone struct {
	api    *client.Client
	url    string
	device string
	secret string
}

// enrolment is what an app tells when it registers.
type enrolment struct {
	url            string
	publishableKey string
	installation   string
	provider       string
	token          string
}

// enrol registers an installation with the publishable key and returns the phone.
func enrol(ctx context.Context, e enrolment) (*phone, error) {
	pk, err := newClient(e.url, e.publishableKey)
	if err != nil {
		return nil, err
	}
	platform := map[string]client.DeviceRegistrationPlatform{"apns": client.Ios, "fcm": client.Android, "none": client.Other}[e.provider]
	body := client.DeviceRegistration{InstallationId: e.installation, Platform: platform, Provider: client.DeviceRegistrationProvider(e.provider)}
	if e.token != "" {
		body.Token = &e.token
	}
	device, err := answer[client.RegisteredDevice](pk.RegisterDevice(ctx, body))
	if err != nil {
		return nil, fmt.Errorf("registering the phone: %w", err)
	}
	if device.Secret == nil {
		return nil, fmt.Errorf("registering the phone: the server gave no key for it")
	}
	return knownPhone(e.url, device.Id, *device.Secret)
}

// knownPhone is a phone that registered before.
func knownPhone(url, device, secret string) (*phone, error) {
	api, err := newClient(url, secret)
	if err != nil {
		return nil, err
	}
	return &phone{api: api, url: url, device: device, secret: secret}, nil
}

// page reads one page, acking up to ack first if it is not empty, and waiting up
// to wait seconds for something to come.
func (p *phone) page(ctx context.Context, ack string, limit, wait int) (client.InboxPage, error) {
	params := &client.GetInboxParams{Limit: &limit, Wait: &wait}
	if ack != "" {
		params.Ack = &ack
	}
	return answer[client.InboxPage](p.api.GetInbox(ctx, params))
}

// fetched is one message in the phone's hands.
type fetched struct {
	client.InboxMessage
	// at is when the page that held it had arrived.
	at time.Time
}

// empty reads and acks everything that waits, page by page, and hands each message to show; a
// message is acked only after show was called for it. It returns how many there were.
func (p *phone) empty(ctx context.Context, show func(fetched)) (int, error) {
	return p.emptyBy(ctx, maxPage, show)
}

// emptyBy is empty with pages of at most limit messages.
func (p *phone) emptyBy(ctx context.Context, limit int, show func(fetched)) (int, error) {
	n, ack := 0, ""
	for {
		page, err := p.page(ctx, ack, limit, 0)
		if err != nil {
			return n, err
		}
		at := time.Now()
		for _, m := range page.Messages {
			show(fetched{m, at})
		}
		n += len(page.Messages)
		if len(page.Messages) == 0 {
			return n, nil
		}
		ack = page.Cursor
	}
}

// maxPage is the most messages that a page may hold.
const maxPage = 100

// ackAll acks everything up to the cursor.
func (p *phone) ackAll(ctx context.Context, cursor string) (int, error) {
	acked, err := answer[client.Acked](p.api.AckMessages(ctx, client.Acks{UpTo: &cursor}))
	return acked.Acked, err
}

// refresh tells the server the token of now; it revives the device and wakes what waits.
func (p *phone) refresh(ctx context.Context, token string) error {
	_, err := answer[client.Device](p.api.UpdateOwnDevice(ctx, client.DeviceUpdate{Token: &token}))
	return err
}

// reportPush tells the server how a push that was sent with high priority arrived.
func (p *phone) reportPush(ctx context.Context, demoted bool) error {
	report := client.PushReport{Priority: client.PushReportPriorityHigh, OriginalPriority: client.PushReportOriginalPriorityHigh}
	if demoted {
		report.Priority = client.PushReportPriorityNormal
	}
	_, err := answer[nothing](p.api.ReportPush(ctx, report))
	return err
}

// receive hands every message that comes on the phone's long poll to show, until ctx ends
// or the server no longer knows the phone. trouble is told what is tried again.
func (p *phone) receive(ctx context.Context, show func(fetched), trouble func(error)) error {
	api, err := client.NewClientWithResponses(p.url, client.WithHTTPClient(&http.Client{Timeout: callLimit}), client.WithKey(p.secret))
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	r := &client.Receiver{Client: api, Limit: maxPage, Trouble: trouble}
	return r.Run(ctx, func(_ context.Context, page client.InboxPage) error {
		at := time.Now()
		for _, m := range page.Messages {
			show(fetched{m, at})
		}
		return nil
	})
}

// isGone reports whether the server no longer knows the phone.
func isGone(err error) bool {
	return hasCode(err, "device_unregistered") || hasStatus(err, http.StatusUnauthorized)
}
