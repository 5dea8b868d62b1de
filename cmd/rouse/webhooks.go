package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"rouse/client"
)

type webhooksCmd struct {
	Create    webhooksCreateCmd    `cmd:"" help:"Have events posted to a URL. Prints the secret that posts are signed with, this once."`
	List      webhooksListCmd      `cmd:"" help:"List webhooks and whether they take what they get."`
	Show      webhooksShowCmd      `cmd:"" help:"Show a webhook."`
	Set       webhooksSetCmd       `cmd:"" help:"Change a webhook, or switch it off or on. What is left out stays."`
	Delete    webhooksDeleteCmd    `cmd:"" help:"Delete a webhook."`
	Rotate    webhooksRotateCmd    `cmd:"" help:"Replace the secret; for a while both sign. Prints the new one, this once."`
	Test      webhooksTestCmd      `cmd:"" help:"Post a test event now. Exits with 1 if it is not taken."`
	Redeliver webhooksRedeliverCmd `cmd:"" help:"Post an event again, or all since a time."`
}

type webhooksCreateCmd struct {
	appAccess
	output
	Target      string   `arg:"" name:"target" help:"Where events are posted: https://..."`
	Events      []string `default:"*" placeholder:"TYPE" help:"Which: types, a family as in message.*, or * for all. Left out, all."`
	Description string   `help:"What it is for."`
}

// Run makes a webhook.
func (c *webhooksCreateCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	made, err := answer[client.WebhookCreated](api.CreateWebhook(ctx, client.WebhookCreate{Url: c.Target, Events: c.Events, Description: given(c.Description)}))
	if err != nil {
		return fmt.Errorf("creating the webhook: %w", err)
	}
	return c.print(term, made, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\nurl\t%s\nevents\t%s\nsecret\t%s\nThe secret is not shown again.\n", made.Id, made.Url, strings.Join(made.Events, ","), made.Secret)
		if len(c.Events) == 1 && c.Events[0] == "*" {
			fmt.Fprintln(w, "It gets all events; fewer with --events, as in --events 'message.*,device.token_dead'.")
		}
	})
}

type webhooksListCmd struct {
	appAccess
	output
}

// Run lists webhooks.
func (c *webhooksListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	all, err := answer[client.WebhookList](api.ListWebhooks(ctx))
	if err != nil {
		return fmt.Errorf("listing webhooks: %w", err)
	}
	return c.print(term, all.Webhooks, func(w io.Writer) {
		if len(all.Webhooks) == 0 {
			fmt.Fprintln(w, "no webhooks")
			return
		}
		fmt.Fprintln(w, "ID\tSTATE\tEVENTS\tRETRYING\tLAST SUCCESS\tURL")
		for _, h := range all.Webhooks {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", h.Id, webhookState(h), strings.Join(h.Events, ","), orZero(h.Retrying), atIf(h.LastSuccessAt), h.Url)
		}
	})
}

// webhookState says in a word or two how a webhook is.
func webhookState(h client.Webhook) string {
	switch {
	case !h.Enabled:
		return strings.Join(append([]string{"disabled"}, some(h.DisabledReason)...), ": ")
	case h.FailingSince != nil:
		return "failing"
	}
	return "enabled"
}

type webhooksShowCmd struct {
	appAccess
	output
	Webhook string `arg:"" help:"The webhook's id, whk_..."`
}

// Run shows a webhook.
func (c *webhooksShowCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	h, err := answer[client.Webhook](api.GetWebhook(ctx, c.Webhook))
	if err != nil {
		return fmt.Errorf("reading the webhook: %w", err)
	}
	return c.print(term, h, func(w io.Writer) { writeWebhook(w, h) })
}

func writeWebhook(w io.Writer, h client.Webhook) {
	fmt.Fprintf(w, "id\t%s\nurl\t%s\nevents\t%s\ndescription\t%s\nstate\t%s\ncreated\t%s\n", h.Id, h.Url, strings.Join(h.Events, ","), orDash(h.Description), webhookState(h), at(h.CreatedAt))
	if h.FailingSince != nil {
		fmt.Fprintf(w, "failing since\t%s\nnext attempt\t%s\n", at(*h.FailingSince), atIf(h.NextAttemptAt))
	}
	fmt.Fprintf(w, "last success\t%s\nlast error\t%s\nretrying\t%d\n", atIf(h.LastSuccessAt), orDash(h.LastError), orZero(h.Retrying))
	if !h.Enabled {
		fmt.Fprintf(w, "go on where it stopped: %s webhooks set %s --enable\n", self(), h.Id)
	}
}

type webhooksSetCmd struct {
	appAccess
	output
	Webhook     string   `arg:"" help:"The webhook's id, whk_..."`
	Target      string   `placeholder:"URL" help:"Where events are posted from now on."`
	Events      []string `placeholder:"TYPE" help:"Which, from now on: types, a family as in message.*, or * for all."`
	Description string   `help:"What it is for."`
	Enable      bool     `xor:"switch" help:"Switch it on; it goes on where it stopped."`
	Disable     bool     `xor:"switch" help:"Switch it off; events wait for it for 7 days."`
}

// Run changes a webhook.
func (c *webhooksSetCmd) Run(ctx context.Context, term *terminal) error {
	body := client.WebhookUpdate{Url: given(c.Target), Description: given(c.Description)}
	if len(c.Events) > 0 {
		body.Events = &c.Events
	}
	if c.Enable || c.Disable {
		body.Enabled = &c.Enable
	}
	if body == (client.WebhookUpdate{}) {
		return mistake("say what to change: --target, --events, --description, --enable, --disable")
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	h, err := answer[client.Webhook](api.UpdateWebhook(ctx, c.Webhook, body))
	if err != nil {
		return fmt.Errorf("changing the webhook: %w", err)
	}
	return c.print(term, h, func(w io.Writer) { writeWebhook(w, h) })
}

type webhooksDeleteCmd struct {
	appAccess
	output
	Webhook string `arg:"" help:"The webhook's id, whk_..."`
}

// Run deletes a webhook.
func (c *webhooksDeleteCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.DeleteWebhook(ctx, c.Webhook)); err != nil {
		return fmt.Errorf("deleting the webhook: %w", err)
	}
	return c.done(term, "deleted", c.Webhook, c.Webhook+" is gone")
}

type webhooksRotateCmd struct {
	appAccess
	output
	Webhook string         `arg:"" help:"The webhook's id, whk_..."`
	Overlap *time.Duration `placeholder:"TIME" help:"How long both secrets sign, up to 720h; 24h if left out."`
}

// Run replaces the secret of a webhook.
func (c *webhooksRotateCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	made, err := answer[client.WebhookSecret](api.RotateWebhookSecret(ctx, c.Webhook, client.WebhookRotate{Overlap: seconds(c.Overlap)}))
	if err != nil {
		return fmt.Errorf("rotating the secret: %w", err)
	}
	return c.print(term, made, func(w io.Writer) { fmt.Fprintf(w, "secret\t%s\nThe secret is not shown again.\n", made.Secret) })
}

type webhooksTestCmd struct {
	appAccess
	output
	Webhook string `arg:"" help:"The webhook's id, whk_..."`
}

// Run posts a test event and fails if it is not taken.
func (c *webhooksTestCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	r, err := answer[client.WebhookTested](api.TestWebhook(ctx, c.Webhook))
	if err != nil {
		return fmt.Errorf("testing the webhook: %w", err)
	}
	if err := c.print(term, r, func(w io.Writer) { writeTested(w, r) }); err != nil {
		return err
	}
	if !r.Ok {
		return fmt.Errorf("%s did not take the test event", c.Webhook)
	}
	return nil
}

func writeTested(w io.Writer, r client.WebhookTested) {
	words := []string{"not taken"}
	if r.Ok {
		words[0] = "taken"
	}
	if r.Status != nil {
		words = append(words, "status "+strconv.Itoa(*r.Status))
	}
	fmt.Fprintf(w, "%s, in %d ms\n", strings.Join(append(words, some(r.Error)...), ", "), r.DurationMs)
}

type webhooksRedeliverCmd struct {
	appAccess
	output
	Webhook string `arg:"" help:"The webhook's id, whk_..."`
	Event   string `xor:"which" placeholder:"ID" help:"One event, evt_..."`
	Since   string `xor:"which" placeholder:"TIME" help:"All since then: a time, or 2h for two hours ago. They are kept for 7 days."`
}

// Run has events posted again.
func (c *webhooksRedeliverCmd) Run(ctx context.Context, term *terminal) error {
	if c.Event == "" && c.Since == "" {
		return mistake("say what: --event ID, or --since TIME")
	}
	since, err := pastIf("--since", c.Since, time.Now())
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	h, err := answer[client.Webhook](api.RedeliverEvents(ctx, c.Webhook, client.WebhookRedeliver{EventId: given(c.Event), Since: since}))
	if err != nil {
		return fmt.Errorf("posting again: %w", err)
	}
	return c.print(term, h, func(w io.Writer) {
		if h.Enabled {
			fmt.Fprintln(w, "they will be posted")
		} else {
			fmt.Fprintln(w, "they will be posted once it is switched on")
		}
		writeWebhook(w, h)
	})
}
