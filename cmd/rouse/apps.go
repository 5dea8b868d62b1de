package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"rouse/client"
	"rouse/tokens"
)

type appsCmd struct {
	Create appsCreateCmd `cmd:"" help:"Make an app. Prints its two keys, this once."`
	List   appsListCmd   `cmd:"" help:"List all apps."`
	Show   appsShowCmd   `cmd:"" help:"Show one app."`
	Set    appsSetCmd    `cmd:"" help:"Change an app's settings. What is left out stays."`
	Rename appsRenameCmd `cmd:"" help:"Give an app another name, as set --name does."`
	Delete appsDeleteCmd `cmd:"" help:"Delete an app, its devices and its messages."`
}

// appSettings are the flags of create and set.
type appSettings struct {
	InboxOverflow string   `placeholder:"WORD" help:"What a full inbox does with one more message: reject, or drop_oldest."`
	Registration  string   `placeholder:"WORD" help:"Who registers devices: open (whoever has the publishable key), token (with a user token), server (backends alone)."`
	BroadcastRate *int     `placeholder:"N" help:"How many devices a second its broadcasts and topics reach, all together; 2000 at first."`
	EventTypes    []string `placeholder:"TYPE" help:"Which events are written: types, a family as in message.*, * or all for all, none. At first, all."`
	RateLimit     string   `placeholder:"N[:BURST]" help:"How many calls a second it may make, on each node, and how many at once; off for no limit."`
}

// changes makes the request of the flags that were given.
func (s appSettings) changes() (client.AppUpdate, error) {
	rate, err := rateOf(s.RateLimit)
	body := client.AppUpdate{BroadcastRate: s.BroadcastRate, RateLimit: rate, EventTypes: s.events()}
	if s.InboxOverflow != "" {
		body.InboxOverflow = new(client.InboxOverflow(s.InboxOverflow))
	}
	if s.Registration != "" {
		body.Registration = new(client.RegistrationMode(s.Registration))
	}
	return body, err
}

// events is the list that the flag stands for, nil if it was left out.
func (s appSettings) events() *[]string {
	switch {
	case len(s.EventTypes) == 0:
		return nil
	case slices.Equal(s.EventTypes, []string{"none"}):
		return &[]string{}
	case slices.Equal(s.EventTypes, []string{"all"}):
		return &[]string{"*"}
	}
	return &s.EventTypes
}

type appsCreateCmd struct {
	adminAccess
	output
	appSettings
	Name string `arg:"" free:"" help:"The app's name, for people."`
}

// Run makes an app.
func (c *appsCreateCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	set, err := c.changes()
	if err != nil {
		return err
	}
	app, err := answer[client.AppCreated](api.CreateApp(ctx, client.AppCreate{
		Name: c.Name, InboxOverflow: set.InboxOverflow, Registration: set.Registration,
		BroadcastRate: set.BroadcastRate, EventTypes: set.EventTypes, RateLimit: set.RateLimit,
	}))
	if err != nil {
		return fmt.Errorf("creating the app: %w", err)
	}
	return c.print(term, app, func(w io.Writer) {
		fmt.Fprintf(w, "app\t%s\t%s\nsecret key\t%s\tfor your backend\npublishable key\t%s\tfor your app\n", app.Id, app.Name, app.SecretKey, app.PublishableKey)
		fmt.Fprintln(w, "The keys are not shown again.")
	})
}

type appsListCmd struct {
	adminAccess
	output
}

// Run lists the apps, oldest first.
func (c *appsListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	apps, err := allApps(ctx, api)
	if err != nil {
		return fmt.Errorf("listing apps: %w", err)
	}
	return c.print(term, apps, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tNAME\tCREATED")
		for _, app := range apps {
			fmt.Fprintf(w, "%s\t%s\t%s\n", app.Id, app.Name, at(app.CreatedAt))
		}
	})
}

// allApps reads every page of the list.
func allApps(ctx context.Context, api *client.Client) ([]client.App, error) {
	apps := []client.App{}
	params := &client.ListAppsParams{}
	for {
		page, err := answer[client.AppList](api.ListApps(ctx, params))
		if err != nil {
			return nil, err
		}
		apps = append(apps, page.Apps...)
		if !page.More {
			return apps, nil
		}
		params.After = page.Cursor
	}
}

// appNamed returns the id of an app that was given by its id or by its exact name.
func appNamed(ctx context.Context, api *client.Client, which string) (string, error) {
	if strings.HasPrefix(which, "app_") {
		return which, nil
	}
	apps, err := allApps(ctx, api)
	if err != nil {
		return "", fmt.Errorf("looking for the app %q: %w", which, err)
	}
	apps = slices.DeleteFunc(apps, func(app client.App) bool { return app.Name != which })
	switch len(apps) {
	case 0:
		return "", fmt.Errorf("there is no app with the id or the name %q; rouse apps list tells which there are", which)
	case 1:
		return apps[0].Id, nil
	}
	return "", mistake("%d apps are named %q; give the id of one, as rouse apps list tells it", len(apps), which)
}

type appsShowCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app: its id, app_..., or its name exactly."`
}

// Run shows one app.
func (c *appsShowCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	id, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	app, err := answer[client.App](api.GetApp(ctx, id))
	if err != nil {
		return fmt.Errorf("reading the app: %w", err)
	}
	return c.print(term, app, func(w io.Writer) {
		writeApp(w, app)
		writeCircuits(w, app)
	})
}

// writeCircuits tells what keeps pushes back, a line each.
func writeCircuits(w io.Writer, app client.App) {
	if app.Circuits == nil {
		return
	}
	list := *app.Circuits
	if len(list) == 0 {
		fmt.Fprintln(w, "circuits\tnone open: nothing is held back")
	}
	for _, c := range list {
		fmt.Fprintf(w, "circuit\t%s: %s\n", c.State, circuitWords(c))
	}
	var told []string
	for _, c := range list {
		if c.Cause != string(tokens.CauseCredential) {
			continue
		}
		reason := ""
		if c.Reason != nil {
			reason = *c.Reason
		}
		if hint := askWhy(app.Id, c.Provider, reason); !slices.Contains(told, hint) {
			told = append(told, hint)
			fmt.Fprintln(w, hint)
		}
	}
}

// circuitWords tells of a circuit whom it concerns, why it is open and until when.
func circuitWords(c client.Circuit) string {
	words := some(&c.Provider, c.Environment, c.Onward, &c.Cause, c.Reason)
	words = append(words, "since "+at(c.OpenedAt))
	if c.RetryAt != nil {
		words = append(words, "tried next "+at(*c.RetryAt))
	}
	return strings.Join(words, ", ")
}

// some drops what is missing or empty.
func some(words ...*string) []string {
	var there []string
	for _, word := range words {
		if word != nil && *word != "" {
			there = append(there, *word)
		}
	}
	return there
}

func writeApp(w io.Writer, app client.App) {
	fmt.Fprintf(w, "id\t%s\nname\t%s\ninbox overflow\t%s\nregistration\t%s\nbroadcast rate\t%d devices a second\n", app.Id, app.Name, app.InboxOverflow, app.Registration, app.BroadcastRate)
	fmt.Fprintf(w, "event types\t%s\nrate limit\t%s\ncreated\t%s\n", eventTypes(app.EventTypes), rateWords(app.RateLimit), at(app.CreatedAt))
}

// eventTypes shows the setting as its flag reads it.
func eventTypes(types *[]string) string {
	switch {
	case types == nil:
		return "*"
	case len(*types) == 0:
		return "none"
	}
	return strings.Join(*types, ",")
}

type appsSetCmd struct {
	adminAccess
	output
	appSettings
	App  string `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Name string `help:"Its new name."`
}

// Run changes an app's settings.
func (c *appsSetCmd) Run(ctx context.Context, term *terminal) error {
	body, err := c.changes()
	if err != nil {
		return err
	}
	body.Name = given(c.Name)
	if body == (client.AppUpdate{}) {
		return mistake("say what to change: --name, --inbox-overflow, --registration, --broadcast-rate, --event-types, --rate-limit")
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	id, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	app, err := answer[client.App](api.UpdateApp(ctx, id, body))
	if err != nil {
		return fmt.Errorf("changing the app: %w", err)
	}
	return c.print(term, app, func(w io.Writer) { writeApp(w, app) })
}

type appsRenameCmd struct {
	adminAccess
	output
	App  string `arg:"" help:"The app's id, app_..."`
	Name string `arg:"" free:"" help:"Its new name."`
}

// Run renames an app.
func (c *appsRenameCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := answer[client.App](api.UpdateApp(ctx, c.App, client.AppUpdate{Name: &c.Name}))
	if err != nil {
		return fmt.Errorf("renaming the app: %w", err)
	}
	return c.print(term, app, func(w io.Writer) { writeApp(w, app) })
}

type appsDeleteCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app's id, app_..."`
	Yes bool   `required:"" help:"Say that you mean it: everything in the app goes."`
}

// Run deletes an app and all in it.
func (c *appsDeleteCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.DeleteApp(ctx, c.App)); err != nil {
		return fmt.Errorf("deleting the app: %w", err)
	}
	return c.done(term, "deleted", c.App, c.App+" is gone")
}
