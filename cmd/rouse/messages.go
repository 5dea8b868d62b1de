package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"rouse/client"
)

type messagesCmd struct {
	List       messagesListCmd       `cmd:"" help:"List messages, newest first."`
	Show       messagesShowCmd       `cmd:"" help:"Show a message and how many deliveries stand in each state."`
	Deliveries messagesDeliveriesCmd `cmd:"" help:"List a message's deliveries, by device."`
	Cancel     messagesCancelCmd     `cmd:"" help:"Take a message back from every inbox in which it is not acked yet; stop a broadcast, or one that is scheduled."`
}

type messagesListCmd struct {
	appAccess
	listing
	output
	To            string `help:"Those sent to a device itself, dev_..."`
	User          string `help:"Those sent to a user."`
	Topic         string `help:"Those sent to a topic."`
	CorrelationID string `help:"Those with this correlation id."`
	Status        string `placeholder:"WORD" help:"accepted, no_recipients, scheduled, fanning_out or canceled."`
	Since         string `placeholder:"TIME" help:"Those accepted since then: a time, or 2h for two hours ago."`
	Until         string `placeholder:"TIME" help:"Those accepted before: a time, or 2h for two hours ago."`
}

// Run lists messages.
func (c *messagesListCmd) Run(ctx context.Context, term *terminal) error {
	params, err := c.params(time.Now())
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	return list[client.Message]{
		listing: c.listing, output: c.output, name: "messages", none: "no messages",
		head: "ID\tSTATUS\tTO\tRECIPIENTS\tACKED\tCREATED",
		ask: func(ctx context.Context, after *string, limit *int) (page[client.Message], error) {
			params.After, params.Limit = after, limit
			l, err := answer[client.MessageList](api.ListMessages(ctx, &params))
			return page[client.Message]{l.Messages, l.Cursor, l.More}, during("listing messages", err)
		},
		line: func(w io.Writer, m client.Message) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", m.Id, m.Status, recipient(m.To), m.Recipients, m.Counters.Acked, at(m.CreatedAt))
		},
	}.print(ctx, term)
}

func (c *messagesListCmd) params(now time.Time) (client.ListMessagesParams, error) {
	params := client.ListMessagesParams{DeviceId: given(c.To), UserId: given(c.User), Topic: given(c.Topic), CorrelationId: given(c.CorrelationID), Status: given(c.Status)}
	var err error
	if params.CreatedAfter, err = pastIf("--since", c.Since, now); err != nil {
		return params, err
	}
	params.CreatedBefore, err = pastIf("--until", c.Until, now)
	return params, err
}

// recipient says to whom a message went.
func recipient(to client.MessageRecipient) string {
	switch {
	case to.DeviceId != nil:
		return *to.DeviceId
	case to.UserId != nil:
		return "user " + *to.UserId
	case to.Topic != nil:
		return "topic " + *to.Topic
	case to.Broadcast != nil:
		return "everyone"
	}
	return "-"
}

type messagesShowCmd struct {
	appAccess
	output
	Message string `arg:"" help:"The message's id, msg_..."`
}

// Run shows a message.
func (c *messagesShowCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	m, err := answer[client.Message](api.GetMessage(ctx, c.Message))
	if err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	return c.print(term, m, func(w io.Writer) { writeMessage(w, m) })
}

func writeMessage(w io.Writer, m client.Message) {
	fmt.Fprintf(w, "id\t%s\nstatus\t%s\nto\t%s\nurgency\t%s\ncollapse key\t%s\ncorrelation id\t%s\n", m.Id, m.Status, recipient(m.To), m.Urgency, orDash(m.CollapseKey), orDash(m.CorrelationId))
	fmt.Fprintf(w, "created\t%s\n", at(m.CreatedAt))
	if m.SendAt != nil {
		fmt.Fprintf(w, "send at\t%s\n", at(*m.SendAt))
	}
	fmt.Fprintf(w, "expires\t%s\nrecipients\t%d\n%s", at(m.ExpiresAt), m.Recipients, counterLines(m.Counters))
}

// counterLines shows where the deliveries stand: a line for each state that has one.
func counterLines(c client.Counters) string {
	var b strings.Builder
	for _, state := range countersOf(c) {
		if state.n > 0 {
			fmt.Fprintf(&b, "%s\t%d\n", state.name, state.n)
		}
	}
	return b.String()
}

type counter struct {
	name string
	n    int
}

// countersOf lists states and reports in the order in which they come.
func countersOf(c client.Counters) []counter {
	return []counter{
		{"queued", c.Queued}, {"woken", c.Woken}, {"fetched", c.Fetched}, {"acked", c.Acked}, {"expired", c.Expired}, {"replaced", c.Replaced}, {"canceled", c.Canceled}, {"dropped", c.Dropped},
		{"displayed", orZero(c.Displayed)}, {"opened", orZero(c.Opened)}, {"dismissed", orZero(c.Dismissed)},
	}
}

func orZero(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

type messagesDeliveriesCmd struct {
	appAccess
	listing
	output
	Message string `arg:"" help:"The message's id, msg_..."`
}

// Run lists deliveries.
func (c *messagesDeliveriesCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	return list[client.Delivery]{
		listing: c.listing, output: c.output, name: "deliveries", none: "no deliveries", head: "DEVICE\tSTATE\tLAST\tAT\tNOT WOKEN",
		ask: func(ctx context.Context, after *string, limit *int) (page[client.Delivery], error) {
			l, err := answer[client.DeliveryList](api.ListDeliveries(ctx, c.Message, &client.ListDeliveriesParams{After: after, Limit: limit}))
			return page[client.Delivery]{l.Deliveries, l.Cursor, l.More}, during("listing deliveries", err)
		},
		line: func(w io.Writer, d client.Delivery) {
			last, when, why := "-", "-", "-"
			if n := len(d.Timeline); n > 0 {
				last, when = strings.Join(some(&d.Timeline[n-1].Event, d.Timeline[n-1].Reason), ", "), at(d.Timeline[n-1].At)
			}
			if d.NotWoken != nil {
				why = d.NotWoken.Code
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.DeviceId, d.State, last, when, why)
		},
	}.print(ctx, term)
}

type messagesCancelCmd struct {
	appAccess
	output
	Message string `arg:"" help:"The message's id, msg_..."`
}

// Run takes a message back.
func (c *messagesCancelCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	m, err := answer[client.Message](api.CancelMessage(ctx, c.Message))
	if err != nil {
		return fmt.Errorf("canceling the message: %w", err)
	}
	return c.print(term, m, func(w io.Writer) { writeMessage(w, m) })
}
