package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"rouse/client"
	"rouse/ident"
	"rouse/tokens"
)

type keysCmd struct {
	Create   keysCreateCmd   `cmd:"" help:"Make a key of an app. Prints it, this once."`
	List     keysListCmd     `cmd:"" help:"List an app's keys."`
	Rotate   keysRotateCmd   `cmd:"" help:"Replace a key with one like it; the old one works on for a while. Prints the new one, this once."`
	Delete   keysRevokeCmd   `cmd:"" aliases:"revoke" help:"Revoke a key; revoke is the same."`
	Generate keysGenerateCmd `cmd:"" help:"Make up an administrator's key or a master key for the settings of rouse serve. Needs no server."`
}

type keysCreateCmd struct {
	adminAccess
	output
	App       string        `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Kind      string        `enum:"secret,publishable" default:"secret" help:"secret (for a backend) or publishable (for the app)."`
	Name      string        `help:"What it is for."`
	Scopes    []string      `help:"What a secret key may do: send, devices, topics, webhooks, read. Left out, all."`
	ExpiresIn time.Duration `help:"When it ends, such as 720h. Left out, never."`
	RateLimit string        `placeholder:"N[:BURST]" help:"How many calls a second it takes, on each node, and how many at once. Left out, no limit of its own."`
}

// Run makes a key.
func (c *keysCreateCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	rate, err := rateOf(c.RateLimit)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	body := client.KeyCreate{Kind: client.KeyCreateKind(c.Kind), Name: given(c.Name), RateLimit: rate}
	if len(c.Scopes) > 0 {
		scopes := make([]client.KeyScope, len(c.Scopes))
		for i, scope := range c.Scopes {
			scopes[i] = client.KeyScope(scope)
		}
		body.Scopes = &scopes
	}
	if c.ExpiresIn > 0 {
		seconds := int64(c.ExpiresIn / time.Second)
		body.ExpiresIn = &seconds
	}
	key, err := answer[client.KeyCreated](api.CreateKey(ctx, app, body))
	if err != nil {
		return fmt.Errorf("making the key: %w", err)
	}
	return c.print(term, key, func(w io.Writer) { writeNewKey(w, key) })
}

func writeNewKey(w io.Writer, key client.KeyCreated) {
	fmt.Fprintf(w, "id\t%s\nkey\t%s\nThe key is not shown again.\n", key.Id, key.Key)
}

type keysListCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app: its id, app_..., or its name exactly."`
}

// Run lists an app's keys, without the keys themselves.
func (c *keysListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	list, err := answer[client.KeyList](api.ListKeys(ctx, app))
	if err != nil {
		return fmt.Errorf("listing keys: %w", err)
	}
	return c.print(term, list.Keys, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tKIND\tNAME\tSCOPES\tCREATED\tEXPIRES\tLAST USED\tRATE LIMIT")
		for _, key := range list.Keys {
			expires := "never"
			if key.ExpiresAt != nil {
				expires = at(*key.ExpiresAt)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key.Id, key.Kind, orDash(key.Name), wordsOrDash(key.Scopes), at(key.CreatedAt), expires, atIf(key.LastUsedAt), rateWords(key.RateLimit))
		}
	})
}

type keysRotateCmd struct {
	adminAccess
	output
	App       string         `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Key       string         `arg:"" help:"The key's id, key_..."`
	Overlap   *time.Duration `placeholder:"TIME" help:"How long the old key works on, up to 2160h; 24h if left out, 0s ends it at once."`
	ExpiresIn *time.Duration `placeholder:"TIME" help:"When the new one ends, such as 720h. Left out, never, even if the old one had an end."`
}

// Run replaces a key.
func (c *keysRotateCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	key, err := answer[client.KeyCreated](api.RotateKey(ctx, app, c.Key, client.KeyRotate{Overlap: seconds(c.Overlap), ExpiresIn: seconds(c.ExpiresIn)}))
	if err != nil {
		return fmt.Errorf("rotating the key: %w", err)
	}
	return c.print(term, key, func(w io.Writer) { writeNewKey(w, key) })
}

type keysRevokeCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app's id, app_..."`
	Key string `arg:"" help:"The key's id, key_..."`
}

// Run revokes a key.
func (c *keysRevokeCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](api.DeleteKey(ctx, c.App, c.Key)); err != nil {
		return fmt.Errorf("revoking the key: %w", err)
	}
	return c.done(term, "deleted", c.Key, c.Key+" works no more")
}

type keysGenerateCmd struct {
	output
	What string `arg:"" enum:"admin,master" help:"admin (for ROUSE_ADMIN_KEY) or master (for ROUSE_MASTER_KEYS)."`
}

// Run prints a fresh key and nothing else, for use in scripts.
func (c *keysGenerateCmd) Run(term *terminal) error {
	key := mintAdminKey()
	if c.What == "master" {
		key = tokens.NewRingKey("k" + time.Now().UTC().Format("20060102"))
	}
	return c.print(term, map[string]string{"key": key}, func(w io.Writer) { fmt.Fprintln(w, key) })
}

// mintAdminKey makes an administrator's key of the usual form.
func mintAdminKey() string {
	id := strings.TrimPrefix(string(ident.NewKey()), ident.KeyPrefix)
	return string(tokens.MintKey(tokens.AdminKey, id))
}
