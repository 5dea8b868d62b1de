package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"rouse/client"
)

type topicsCmd struct {
	List        topicsListCmd        `cmd:"" help:"List topics by name."`
	Show        topicsShowCmd        `cmd:"" help:"Show a topic and how many devices it has."`
	Delete      topicsDeleteCmd      `cmd:"" help:"Delete a topic with its subscriptions; what was sent stays sent."`
	Subscribe   topicsSubscribeCmd   `cmd:"" help:"Subscribe devices, or users with all their devices. Exits with 1 if one could not be."`
	Unsubscribe topicsUnsubscribeCmd `cmd:"" help:"Unsubscribe devices or users. Exits with 1 if one could not be."`
}

type topicsListCmd struct {
	appAccess
	listing
	output
}

// Run lists topics.
func (c *topicsListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	return list[client.Topic]{
		listing: c.listing, output: c.output, name: "topics", none: "no topics: the first subscriber makes one", head: "NAME\tSUBSCRIBERS\tCREATED",
		ask: func(ctx context.Context, after *string, limit *int) (page[client.Topic], error) {
			l, err := answer[client.TopicList](api.ListTopics(ctx, &client.ListTopicsParams{After: after, Limit: limit}))
			return page[client.Topic]{l.Topics, l.Cursor, l.More}, during("listing topics", err)
		},
		line: writeTopic,
	}.print(ctx, term)
}

func writeTopic(w io.Writer, t client.Topic) {
	fmt.Fprintf(w, "%s\t%d\t%s\n", t.Name, t.Subscribers, atIf(t.CreatedAt))
}

type topicsShowCmd struct {
	appAccess
	output
	Topic string `arg:"" help:"The topic's name."`
}

// Run shows a topic.
func (c *topicsShowCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	topic, err := answer[client.Topic](api.GetTopic(ctx, c.Topic))
	if err != nil {
		return fmt.Errorf("reading the topic: %w", err)
	}
	return c.print(term, topic, func(w io.Writer) {
		fmt.Fprintf(w, "name\t%s\nsubscribers\t%d\ncreated\t%s\n", topic.Name, topic.Subscribers, atIf(topic.CreatedAt))
	})
}

type topicsDeleteCmd struct {
	appAccess
	output
	Topic string `arg:"" help:"The topic's name."`
	Yes   bool   `required:"" help:"Say that you mean it: all subscriptions go."`
}

// Run deletes a topic.
func (c *topicsDeleteCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.DeleteTopic(ctx, c.Topic)); err != nil {
		return fmt.Errorf("deleting the topic (repeat it until it succeeds): %w", err)
	}
	return c.done(term, "deleted", c.Topic, c.Topic+" is gone")
}

// audience is whom to subscribe or to unsubscribe.
type audience struct {
	Topic   string   `arg:"" help:"The topic's name: 1 to 128 of A-Za-z0-9._:-"`
	Devices []string `arg:"" optional:"" help:"Ids of devices, dev_..."`
	User    []string `sep:"none" segment:"" help:"A user with all devices, those that come later included. Several: again."`
	From    string   `type:"existingfile" placeholder:"FILE" help:"Ids of devices out of a file, one a line, however many; - reads standard input. With -o json then a line each."`
}

type topicsSubscribeCmd struct {
	appAccess
	output
	audience
}

// Run subscribes.
func (c *topicsSubscribeCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	e := enlist{
		output: c.output, audience: c.audience, term: term, past: "subscribed",
		devices: func(ctx context.Context, ids []string) (*http.Response, error) {
			return api.SubscribeDevices(ctx, c.Topic, client.DeviceIds{DeviceIds: ids})
		},
		user: func(ctx context.Context, user string) (*http.Response, error) {
			return api.SubscribeUser(ctx, c.Topic, user)
		},
	}
	return e.run(ctx)
}

type topicsUnsubscribeCmd struct {
	appAccess
	output
	audience
}

// Run unsubscribes.
func (c *topicsUnsubscribeCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	e := enlist{
		output: c.output, audience: c.audience, term: term, past: "unsubscribed",
		devices: func(ctx context.Context, ids []string) (*http.Response, error) {
			return api.UnsubscribeDevices(ctx, c.Topic, client.DeviceIds{DeviceIds: ids})
		},
		user: func(ctx context.Context, user string) (*http.Response, error) {
			return api.UnsubscribeUser(ctx, c.Topic, user)
		},
	}
	return e.run(ctx)
}

// enlist is subscribing or unsubscribing an audience.
type enlist struct {
	output
	audience
	term    *terminal
	past    string // what was done
	n       roll   // written while it runs
	devices func(ctx context.Context, ids []string) (*http.Response, error)
	user    func(ctx context.Context, user string) (*http.Response, error)
}

// enlisted is what became of one.
type enlisted struct {
	DeviceID string          `json:"device_id,omitempty"`
	UserID   string          `json:"user_id,omitempty"`
	Status   int             `json:"status"`
	Error    *client.Problem `json:"error,omitempty"`
}

// roll counts what became of many; of those that are unknown there was no answer.
type roll struct{ done, refused, unknown int }

// enlistAtOnce is how many devices go in one call.
const enlistAtOnce = 500

// run goes through the audience and fails if one of it was refused.
func (e *enlist) run(ctx context.Context) error {
	if len(e.Devices) == 0 && len(e.User) == 0 && e.From == "" {
		return mistake("say whom: ids of devices, --user USER, or --from FILE")
	}
	var all []enlisted
	tell := func(results []enlisted) error {
		e.count(results)
		if e.Output == "json" && e.From != "" {
			return lines(e.term.out, results)
		}
		all = append(all, results...)
		return nil
	}
	err := e.each(ctx, tell)
	n := e.n
	if e.Output != "json" {
		fmt.Fprintln(e.term.out, n.words(e.past))
	} else if e.From == "" {
		err = errors.Join(e.print(e.term, map[string]any{"results": append([]enlisted{}, all...)}, nil), err)
	}
	if err == nil && n.refused > 0 {
		err = fmt.Errorf("%d of %d could not be %s", n.refused, n.done+n.refused, e.past)
	}
	return err
}

func (n roll) words(past string) string {
	words := fmt.Sprintf("%d %s, %d refused", n.done, past, n.refused)
	if n.unknown > 0 {
		words += fmt.Sprintf(", of %d nobody knows", n.unknown)
	}
	return words
}

// count notes results; in words refusals are told at once, those with one reason together.
func (e *enlist) count(results []enlisted) {
	for len(results) > 0 {
		r, n := results[0], 1
		for n < len(results) && r.Error != nil && results[n].Error == r.Error {
			n++
		}
		results = results[n:]
		if r.Error == nil {
			e.n.done++
			continue
		}
		e.n.refused += n
		if e.Output != "json" {
			fmt.Fprintf(harmless{e.term.out}, "%s: %s\n", andOthers(r.DeviceID+r.UserID, n), e.term.refusal(r.Error))
		}
	}
}

// andOthers names the first of n.
func andOthers(first string, n int) string {
	switch n {
	case 1:
		return first
	case 2:
		return first + " and one more"
	}
	return fmt.Sprintf("%s and %d more", first, n-1)
}

// refusedAll is the refusal of a whole call that is about those it names, nil if there is none: a wrong key concerns more than them.
func refusedAll(err error) *client.Problem {
	var refused *client.Error
	if errors.As(err, &refused) && (refused.Status == http.StatusUnprocessableEntity || refused.Status == http.StatusNotFound) {
		return &refused.Problem
	}
	return nil
}

// each does it for users, then devices, then those of the file.
func (e *enlist) each(ctx context.Context, tell func([]enlisted) error) error {
	for _, user := range e.User {
		r := enlisted{UserID: user, Status: http.StatusNoContent}
		_, err := answer[nothing](e.user(ctx, user))
		if refused := refusedAll(err); refused != nil {
			r.Status, r.Error, err = refused.Status, refused, nil
		}
		if err != nil {
			return e.failed("user "+user, 1, err)
		}
		if err := tell([]enlisted{r}); err != nil {
			return err
		}
	}
	if err := e.chunks(ctx, e.Devices, tell); err != nil || e.From == "" {
		return err
	}
	return e.file(ctx, tell)
}

// file reads ids, a line each, and does it for as many as fit in a call.
func (e *enlist) file(ctx context.Context, tell func([]enlisted) error) error {
	in, err := e.term.open(e.From)
	if err != nil {
		return fmt.Errorf("reading the ids: %w", err)
	}
	defer func() { _ = in.Close() }()
	ids := make([]string, 0, enlistAtOnce)
	scan := bufio.NewScanner(in)
	for scan.Scan() {
		if id := strings.TrimSpace(scan.Text()); id != "" {
			ids = append(ids, id)
		}
		if len(ids) == enlistAtOnce {
			if err := e.chunks(ctx, ids, tell); err != nil {
				return err
			}
			ids = ids[:0]
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("reading the ids: %w", err)
	}
	return e.chunks(ctx, ids, tell)
}

// chunks does it for devices, call by call.
func (e *enlist) chunks(ctx context.Context, ids []string, tell func([]enlisted) error) error {
	for len(ids) > 0 {
		n := min(len(ids), enlistAtOnce)
		got, err := answer[client.SubscriptionResults](e.devices(ctx, ids[:n]))
		results := make([]enlisted, 0, n)
		if refused := refusedAll(err); refused != nil {
			for _, id := range ids[:n] {
				results = append(results, enlisted{DeviceID: id, Status: refused.Status, Error: refused})
			}
			err = nil
		}
		if err != nil {
			return e.failed(andOthers(ids[0], n), n, err)
		}
		for _, r := range got.Results {
			results = append(results, enlisted{DeviceID: r.DeviceId, Status: r.Status, Error: r.Error})
		}
		if err := tell(results); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// failed says whom a call that failed was about, and that nothing behind it was tried.
func (e *enlist) failed(whom string, n int, err error) error {
	var answered *client.Error
	if !errors.As(err, &answered) || answered.Temporary() {
		e.n.unknown += n
	}
	return fmt.Errorf("%s: %w; whoever comes behind was not tried", whom, err)
}
