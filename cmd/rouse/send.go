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
	Text           string        `arg:"" optional:"" free:"" help:"What to send: JSON, or any text, which goes as {\"text\": ...}. - reads it from standard input."`
	To             string        `help:"A device, dev_... Left out, the phone of rouse dev that registered last." xor:"target"`
	User           string        `help:"A user instead: all devices bound to it." xor:"target"`
	Topic          string        `help:"A topic instead: all devices subscribed to it." xor:"target"`
	Broadcast      bool          `help:"Everyone instead: all devices of the app." xor:"target"`
	Batch          string        `type:"existingfile" placeholder:"FILE" xor:"target" help:"Many messages out of a file, one a line as the API takes them ({\"to\": ..., \"data\": ...}), however many; - reads standard input. Exits with 1 if one is refused."`
	At             string        `placeholder:"TIME" help:"When, up to 30 days ahead: a time, or +2h for two hours from now."`
	Urgency        string        `enum:"very-low,low,normal,high" default:"high" help:"very-low, low, normal or high."`
	TTL            time.Duration `name:"ttl" default:"168h" help:"How long it lives, up to 720h. 0s reaches only who is polling now."`
	CollapseKey    string        `help:"Takes the place of a pending message of the same key."`
	CorrelationID  string        `help:"Yours; it comes back in lists and events."`
	Title          string        `help:"A title to show in the push itself, in clear for Apple or Google."`
	Body           string        `help:"Words to show in the push itself, in clear for Apple or Google."`
	IdempotencyKey string        `help:"The same key again sends nothing that was sent with it, for 24 hours."`
	Count          *int          `placeholder:"N" help:"Send it so many times. With -o json then an array."`
}

// Run sends one message or several, one after the other, or those of a file.
func (c *sendCmd) Run(ctx context.Context, term *terminal) error {
	if c.Batch != "" {
		return c.batch(ctx, term)
	}
	switch {
	case c.Text == "":
		return mistake("say what to send, or --batch FILE")
	case c.times() < 1:
		return mistake("--count is %d; it is 1 or more", c.times())
	case c.times() > 1 && c.IdempotencyKey != "":
		return mistake("--idempotency-key is for one message; --count is %d", c.times())
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
	switch {
	case c.Output == "json" && c.Count != nil:
		// Also after a failure: what was accepted is the server's to deliver.
		return errors.Join(c.print(term, sent, nil), err)
	case err != nil:
		return err
	case c.Output == "json":
		return c.print(term, sent[0], nil)
	}
	fmt.Fprintf(term.out, "see what became of it: %s trace %s\n", self(), sent[len(sent)-1].Id)
	return nil
}

// times is how often the message is to be sent.
func (c *sendCmd) times() int {
	if c.Count == nil {
		return 1
	}
	return *c.Count
}

// send sends the message --count times and returns what was accepted, also when it fails. In
// words it tells of each as soon as it is accepted, so that nothing that breaks off hides one.
func (c *sendCmd) send(ctx context.Context, term *terminal, api *client.Client, body client.MessageSend) ([]client.MessageAccepted, error) {
	sent := []client.MessageAccepted{}
	for range c.times() {
		m, err := answer[client.MessageAccepted](api.SendMessage(ctx, &client.SendMessageParams{IdempotencyKey: given(c.IdempotencyKey)}, body))
		switch {
		case err != nil && len(sent) > 0:
			return sent, fmt.Errorf("sending, after %d went out: %w", len(sent), err)
		case err != nil:
			return sent, fmt.Errorf("sending: %w", err)
		}
		sent = append(sent, m)
		if c.Output != "json" {
			fmt.Fprintf(term.out, "%s  %s  %s\n", m.Id, m.Status, whither(m))
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
	body := client.MessageSend{
		To: to, Data: asData(text), Ttl: seconds(&c.TTL), Urgency: new(client.MessageSendUrgency(c.Urgency)),
		CollapseKey: given(c.CollapseKey), CorrelationId: given(c.CorrelationID),
	}
	if c.Title != "" || c.Body != "" {
		body.Notification = &client.Notification{Title: given(c.Title), Body: given(c.Body)}
	}
	if c.At != "" {
		when, err := future("--at", c.At, time.Now())
		if err != nil {
			return body, err
		}
		body.SendAt = new(when.UTC())
	}
	return body, nil
}

// whither says whom a message went to, or when it will.
func whither(m client.MessageAccepted) string {
	switch {
	case m.SendAt != nil:
		return "at " + at(*m.SendAt)
	case m.Status == "fanning_out":
		return "page by page"
	}
	return recipients(m.Recipients)
}

func (c *sendCmd) recipient(term *terminal) (client.Recipient, error) {
	switch {
	case c.To != "":
		return client.Recipient{DeviceId: &c.To}, nil
	case c.User != "":
		return client.Recipient{UserId: &c.User}, nil
	case c.Topic != "":
		return client.Recipient{Topic: &c.Topic}, nil
	case c.Broadcast:
		return client.Recipient{Broadcast: new(client.True)}, nil
	}
	p, err := term.profile()
	if (c.URL != "" || c.Key != "") && (err != nil || !c.isOf(p)) {
		return client.Recipient{}, mistake("give --to or --user, --topic or --broadcast: the phone that stands in for them is known to `rouse dev` alone, and this server or key is another (ROUSE_URL, ROUSE_SECRET_KEY, --url, --key)")
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
