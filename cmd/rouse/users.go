package main

import (
	"context"
	"fmt"
	"io"

	"rouse/client"
)

type usersCmd struct {
	Show   usersShowCmd   `cmd:"" help:"Show a user's devices and topics."`
	Bind   usersBindCmd   `cmd:"" help:"Say that a device belongs to a user, as a login does."`
	Unbind usersUnbindCmd `cmd:"" help:"Say that it no longer does, as a logout does: what waits there for the user is canceled."`
	Erase  usersEraseCmd  `cmd:"" help:"Erase everything of a person, devices included, and say how much that was."`
}

type usersShowCmd struct {
	appAccess
	output
	User string `arg:"" help:"The user, as your backend calls them."`
}

// Run shows a user; one nobody heard of has nothing.
func (c *usersShowCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	user, err := answer[client.User](api.GetUser(ctx, c.User))
	if err != nil {
		return fmt.Errorf("reading the user: %w", err)
	}
	return c.print(term, user, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\ntopics\t%s\ndevices\t%d\n", user.Id, wordsOrDash(user.Topics), len(user.Devices))
		if len(user.Devices) > 0 {
			fmt.Fprintln(w, "\nID\tPLATFORM\tPROVIDER\tTOKEN\tLAST CONTACT")
		}
		for _, d := range user.Devices {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Id, d.Platform, d.Provider, d.TokenState, atIf(d.LastContactAt))
		}
	})
}

type usersBindCmd struct {
	appAccess
	output
	User   string `arg:"" help:"The user, as your backend calls them."`
	Device string `arg:"" help:"The device's id, dev_..."`
}

// Run binds a device to a user.
func (c *usersBindCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.BindUserDevice(ctx, c.User, c.Device)); err != nil {
		return fmt.Errorf("binding the device: %w", err)
	}
	return c.done(term, "bound", c.Device, c.Device+" belongs to "+c.User)
}

type usersUnbindCmd struct {
	appAccess
	output
	User   string `arg:"" help:"The user, as your backend calls them."`
	Device string `arg:"" help:"The device's id, dev_..."`
}

// Run unbinds a device from a user.
func (c *usersUnbindCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.UnbindUserDevice(ctx, c.User, c.Device)); err != nil {
		return fmt.Errorf("unbinding the device: %w", err)
	}
	return c.done(term, "unbound", c.Device, c.Device+" does not belong to "+c.User)
}

type usersEraseCmd struct {
	appAccess
	output
	User string `arg:"" help:"The user, as your backend calls them."`
	Yes  bool   `required:"" help:"Say that you mean it: nothing brings it back."`
}

// Run erases a user. If it fails in between, doing it again goes on.
func (c *usersEraseCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	gone, err := answer[client.Erasure](api.DeleteUser(ctx, c.User))
	if err != nil {
		return fmt.Errorf("erasing the user (repeat it until it says what it erased): %w", err)
	}
	return c.print(term, gone, func(w io.Writer) {
		fmt.Fprintf(w, "devices\t%d\nmessages in inboxes\t%d\nrecords of sends\t%d\nsubscriptions\t%d\n", gone.Devices, gone.Deliveries, gone.Messages, gone.Subscriptions)
	})
}
