package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"rouse/client"
)

type devicesCmd struct {
	List   devicesListCmd   `cmd:"" help:"List devices, oldest registration first."`
	Show   devicesShowCmd   `cmd:"" help:"Show a device: what waits for it, what it is subscribed to, whether a push can reach it."`
	Set    devicesSetCmd    `cmd:"" help:"Change what is known of a device. What is left out stays."`
	Delete devicesDeleteCmd `cmd:"" help:"Unregister a device; what waits for it is dropped."`
	Wake   devicesWakeCmd   `cmd:"" help:"Push to a device now, to see what happens. Exits with 1 if the provider did not take it."`
}

type devicesListCmd struct {
	appAccess
	listing
	output
	User       string `help:"Those of a user."`
	Topic      string `help:"Those subscribed to a topic."`
	Platform   string `placeholder:"WORD" help:"android, ios, macos, web or other."`
	Provider   string `placeholder:"WORD" help:"fcm, apns or none."`
	TokenState string `placeholder:"WORD" help:"active, dead, suspect, superseded or none."`
}

// Run lists devices.
func (c *devicesListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	return list[client.DeviceView]{
		listing: c.listing, output: c.output, name: "devices", none: "no devices",
		head: "ID\tPLATFORM\tPROVIDER\tTOKEN\tUSER\tPENDING\tLAST CONTACT\tREACHABLE",
		ask: func(ctx context.Context, after *string, limit *int) (page[client.DeviceView], error) {
			l, err := answer[client.DeviceList](api.ListDevices(ctx, &client.ListDevicesParams{
				After: after, Limit: limit, UserId: given(c.User), Topic: given(c.Topic),
				Platform: given(c.Platform), Provider: given(c.Provider), TokenState: given(c.TokenState),
			}))
			return page[client.DeviceView]{l.Devices, l.Cursor, l.More}, during("listing devices", err)
		},
		line: func(w io.Writer, d client.DeviceView) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.Id, d.Platform, d.Provider, d.TokenState, orDash(d.UserId), d.Pending, atIf(d.LastContactAt), reachable(d))
		},
	}.print(ctx, term)
}

// reachable says in a word whether a push would be sent to a device, or why not.
func reachable(d client.DeviceView) string {
	switch {
	case d.Reachable:
		return "yes"
	case d.Unreachable != nil:
		return d.Unreachable.Code
	}
	return "no"
}

type devicesShowCmd struct {
	appAccess
	output
	Device string `arg:"" help:"The device's id, dev_..."`
}

// Run shows a device.
func (c *devicesShowCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	d, err := answer[client.DeviceView](api.GetDevice(ctx, c.Device))
	if err != nil {
		return fmt.Errorf("reading the device: %w", err)
	}
	return c.print(term, d, func(w io.Writer) { writeDevice(w, d) })
}

func writeDevice(w io.Writer, d client.DeviceView) {
	provider := strings.Join(some(&d.Provider, d.Environment), ", ")
	fmt.Fprintf(w, "id\t%s\ninstallation\t%s\nplatform\t%s\nprovider\t%s\ntoken\t%s\nuser\t%s\n", d.Id, d.InstallationId, d.Platform, provider, strings.Join(some(&d.TokenState, d.TokenReason), ", "), orDash(d.UserId))
	fmt.Fprintf(w, "app version\t%s\nlocale\t%s\ncreated\t%s\nregistered\t%s\nlast contact\t%s\n", orDash(d.AppVersion), orDash(d.Locale), at(d.CreatedAt), at(d.RegisteredAt), atIf(d.LastContactAt))
	if d.PushDemotedAt != nil {
		fmt.Fprintf(w, "push demoted\t%s\n", at(*d.PushDemotedAt))
	}
	if d.Topics != nil {
		fmt.Fprintf(w, "topics\t%s\n", wordsOrDash(*d.Topics))
	}
	if d.Polling != nil {
		fmt.Fprintf(w, "polling\t%s\n", yesNo(*d.Polling))
	}
	fmt.Fprintf(w, "pending\t%d\nreachable\t%s\n", d.Pending, reachable(d))
	if d.Unreachable != nil {
		fmt.Fprintln(w, d.Unreachable.Detail)
	}
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func wordsOrDash(words []string) string {
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ",")
}

type devicesSetCmd struct {
	appAccess
	output
	Device      string `arg:"" help:"The device's id, dev_..."`
	User        string `xor:"user" help:"Whose it is from now on."`
	NoUser      bool   `xor:"user" help:"It is nobody's from now on: what waits there for its user is canceled."`
	TokenFile   string `type:"existingfile" placeholder:"FILE" help:"The token that its provider gave it, as a fresh registration; - reads it from standard input."`
	Environment string `placeholder:"WORD" help:"Of the token, with Apple: production or sandbox."`
	AppVersion  string `help:"The version of the app there."`
	Locale      string `help:"Its language, a BCP 47 tag such as de-AT."`
}

// Run changes a device.
func (c *devicesSetCmd) Run(ctx context.Context, term *terminal) error {
	body := client.DeviceChange{UserId: given(c.User), AppVersion: given(c.AppVersion), Locale: given(c.Locale)}
	if c.NoUser {
		body.UserId = new("")
	}
	if c.Environment != "" {
		body.Environment = new(client.DeviceChangeEnvironment(c.Environment))
	}
	if c.TokenFile != "" {
		token, err := term.secretFile(c.TokenFile)
		if err != nil {
			return err
		}
		body.Token = &token
	}
	if body == (client.DeviceChange{}) {
		return mistake("say what to change: --user, --no-user, --token-file, --environment, --app-version, --locale")
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	d, err := answer[client.DeviceView](api.UpdateDevice(ctx, c.Device, body))
	if err != nil {
		return fmt.Errorf("changing the device: %w", err)
	}
	return c.print(term, d, func(w io.Writer) { writeDevice(w, d) })
}

type devicesDeleteCmd struct {
	appAccess
	output
	Device string `arg:"" help:"The device's id, dev_..."`
}

// Run unregisters a device.
func (c *devicesDeleteCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.DeleteDevice(ctx, c.Device)); err != nil {
		return fmt.Errorf("unregistering the device: %w", err)
	}
	return c.done(term, "deleted", c.Device, c.Device+" is unregistered")
}

type devicesWakeCmd struct {
	appAccess
	output
	Device string `arg:"" help:"The device's id, dev_..."`
}

// Run pushes to a device and fails if the push was not taken.
func (c *devicesWakeCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	r, err := answer[client.WakeReport](api.WakeDevice(ctx, c.Device))
	if err != nil {
		return fmt.Errorf("waking the device: %w", err)
	}
	if err := c.print(term, r, func(w io.Writer) { writeWake(w, r) }); err != nil {
		return err
	}
	if !r.Sent || r.Verdict != nil && *r.Verdict != "accepted" {
		return fmt.Errorf("no push reaches %s", c.Device)
	}
	return nil
}

func writeWake(w io.Writer, r client.WakeReport) {
	words := wakeWords(client.Moment{Provider: r.Provider, Verdict: r.Verdict, Reason: r.Reason, DurationMs: r.DurationMs})
	switch why := r.Unreachable; {
	case r.Sent && why != nil:
		fmt.Fprintf(w, "sent\t%s\nby itself nothing would be: %s\t%s\n", words, why.Code, why.Detail)
	case r.Sent:
		fmt.Fprintf(w, "sent\t%s\n", words)
	case why != nil:
		fmt.Fprintf(w, "not sent\t%s\n%s\n", why.Code, why.Detail)
	default:
		fmt.Fprintf(w, "not sent\t%s\n", words)
	}
}
