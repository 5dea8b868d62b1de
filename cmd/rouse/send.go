package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"rouse/client"
)

type sendCmd struct {
	appAccess
	output
	Text        string        `arg:"" help:"What to send: JSON, or any text, which goes as {\"text\": ...}. - reads it from standard input."`
	To          string        `help:"A device, dev_... Left out, the phone of rouse dev that registered last." xor:"target"`
	User        string        `help:"A user instead: all devices bound to it." xor:"target"`
	Urgency     string        `enum:"very-low,low,normal,high" default:"high" help:"very-low, low, normal or high."`
	TTL         time.Duration `name:"ttl" default:"168h" help:"How long it lives, up to 720h. 0s reaches only who is polling now."`
	CollapseKey string        `help:"Takes the place of a pending message of the same key."`
	Count       int           `default:"1" help:"Send it so many times."`
}

// Run sends one message or several, one after the other.
func (c *sendCmd) Run(ctx context.Context, term *terminal) error {
	if c.Count < 1 {
		return mistake("--count is %d; it is 1 or more", c.Count)
	}
	body, err := c.body(term)
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	sent, err := c.send(ctx, term, api, body)
	if c.Output == "json" {
		// Also after a failure: what was accepted is the server's to deliver.
		return errors.Join(c.print(term, sent, nil), err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(term.out, "see what became of it: %s trace %s\n", self(), sent[len(sent)-1].Id)
	return nil
}

// send sends the message --count times and returns what was accepted, also when it fails. In
// words it tells of each as soon as it is accepted, so that nothing that breaks off hides one.
func (c *sendCmd) send(ctx context.Context, term *terminal, api *client.Client, body client.MessageSend) ([]client.MessageAccepted, error) {
	sent := []client.MessageAccepted{}
	for range c.Count {
		m, err := answer[client.MessageAccepted](api.SendMessage(ctx, &client.SendMessageParams{}, body))
		switch {
		case err != nil && len(sent) > 0:
			return sent, fmt.Errorf("sending, after %d went out: %w", len(sent), err)
		case err != nil:
			return sent, fmt.Errorf("sending: %w", err)
		}
		sent = append(sent, m)
		if c.Output != "json" {
			fmt.Fprintf(term.out, "%s  %s  %s\n", m.Id, m.Status, recipients(m.Recipients))
		}
	}
	return sent, nil
}

// body makes the request from the flags.
func (c *sendCmd) body(term *terminal) (client.MessageSend, error) {
	text := c.Text
	if text == "-" {
		all, err := io.ReadAll(term.in)
		if err != nil {
			return client.MessageSend{}, fmt.Errorf("reading standard input: %w", err)
		}
		text = string(all)
	}
	to, err := c.recipient(term)
	if err != nil {
		return client.MessageSend{}, err
	}
	ttl := int64(c.TTL / time.Second)
	urgency := client.MessageSendUrgency(c.Urgency)
	body := client.MessageSend{To: to, Data: asData(text), Ttl: &ttl, Urgency: &urgency}
	if c.CollapseKey != "" {
		body.CollapseKey = &c.CollapseKey
	}
	return body, nil
}

func (c *sendCmd) recipient(term *terminal) (client.Recipient, error) {
	switch {
	case c.To != "":
		return client.Recipient{DeviceId: &c.To}, nil
	case c.User != "":
		return client.Recipient{UserId: &c.User}, nil
	}
	p, err := term.profile()
	if (c.URL != "" || c.Key != "") && (err != nil || !c.isOf(p)) {
		return client.Recipient{}, mistake("give --to or --user: the phone that stands in for them is known to `rouse dev` alone, and this server or key is another (ROUSE_URL, ROUSE_SECRET_KEY, --url, --key)")
	}
	if err != nil {
		return client.Recipient{}, err
	}
	phone, err := p.lastPhone()
	if err != nil {
		return client.Recipient{}, err
	}
	return client.Recipient{DeviceId: &phone.Device}, nil
}

// asData takes JSON as it is and wraps anything else, so that a person can type words.
func asData(text string) json.RawMessage {
	if trimmed := strings.TrimSpace(text); json.Valid([]byte(trimmed)) {
		return json.RawMessage(trimmed)
	}
	wrapped, err := json.Marshal(map[string]string{"text": text})
	if err != nil { // a map of strings always marshals
		panic(err)
	}
	return wrapped
}
