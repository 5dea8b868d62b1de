package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"rouse/client"
)

type credentialsCmd struct {
	Put    credentialsPutCmd    `cmd:"" help:"Give an app a credential. Putting it, even unchanged, wakes what waits."`
	List   credentialsListCmd   `cmd:"" help:"List an app's credentials, without their secrets."`
	Delete credentialsDeleteCmd `cmd:"" help:"Forget a credential."`
}

type credentialsPutCmd struct {
	APNs credentialsAPNsCmd `cmd:"" name:"apns" help:"A signing key (.p8) from the Apple developer account."`
	FCM  credentialsFCMCmd  `cmd:"" name:"fcm" help:"A service account's JSON from the Firebase console."`
}

type credentialsAPNsCmd struct {
	adminAccess
	output
	App         string `arg:"" help:"The app's id, app_..."`
	KeyFile     string `required:"" type:"existingfile" help:"The .p8 file."`
	KeyID       string `required:"" help:"The key's id, 10 characters."`
	TeamID      string `required:"" help:"The team's id, 10 characters."`
	Topic       string `required:"" help:"The app's bundle id."`
	Placeholder string `help:"What the phone shows until the app has fetched the message."`
}

// Run puts the credential for Apple.
func (c *credentialsAPNsCmd) Run(ctx context.Context, term *terminal) error {
	pem, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return fmt.Errorf("reading the signing key: %w", err)
	}
	text := string(pem)
	body := client.ApnsCredentialPut{TeamId: &c.TeamID, KeyId: &c.KeyID, PrivateKey: &text, Topic: c.Topic}
	if c.Placeholder != "" {
		body.Placeholder = &client.Placeholder{Body: &c.Placeholder}
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	credential, err := answer[client.Credential](api.PutApnsCredential(ctx, c.App, body))
	if err != nil {
		return fmt.Errorf("putting the credential: %w", err)
	}
	return c.print(term, credential, func(w io.Writer) { writeCredential(w, credential) })
}

type credentialsFCMCmd struct {
	adminAccess
	output
	App            string `arg:"" help:"The app's id, app_..."`
	ServiceAccount string `required:"" type:"existingfile" help:"The JSON file of the service account."`
}

// Run puts the credential for Google.
func (c *credentialsFCMCmd) Run(ctx context.Context, term *terminal) error {
	account, err := os.ReadFile(c.ServiceAccount)
	if err != nil {
		return fmt.Errorf("reading the service account: %w", err)
	}
	if !json.Valid(account) {
		return mistake("%s is not JSON; download the service account's key once more", c.ServiceAccount)
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	credential, err := answer[client.Credential](api.PutFcmCredential(ctx, c.App, client.FcmCredentialPut{ServiceAccount: account}))
	if err != nil {
		return fmt.Errorf("putting the credential: %w", err)
	}
	return c.print(term, credential, func(w io.Writer) { writeCredential(w, credential) })
}

type credentialsListCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app's id, app_..."`
}

// Run lists an app's credentials and whether the providers take them.
func (c *credentialsListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	list, err := answer[client.CredentialList](api.ListCredentials(ctx, c.App))
	if err != nil {
		return fmt.Errorf("listing credentials: %w", err)
	}
	return c.print(term, list.Credentials, func(w io.Writer) {
		for _, credential := range list.Credentials {
			writeCredential(w, credential)
		}
	})
}

func writeCredential(w io.Writer, c client.Credential) {
	works := "works, as far as is known"
	if c.Failing != nil {
		works = "refused: " + *c.Failing
	}
	fmt.Fprintf(w, "%s\t%s\ttopic %s\tproject %s\t%s\n", c.Provider, c.Fingerprint, orDash(c.Topic), orDash(c.ProjectId), works)
}

type credentialsDeleteCmd struct {
	adminAccess
	App      string `arg:"" help:"The app's id, app_..."`
	Provider string `arg:"" enum:"apns,fcm" help:"apns or fcm."`
}

// Run forgets a credential; the devices' inboxes stay.
func (c *credentialsDeleteCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	forget := api.DeleteApnsCredential
	if c.Provider == "fcm" {
		forget = api.DeleteFcmCredential
	}
	if _, err := answer[nothing](forget(ctx, c.App)); err != nil {
		return fmt.Errorf("deleting the credential: %w", err)
	}
	fmt.Fprintf(term.out, "%s credential of %s is gone\n", c.Provider, c.App)
	return nil
}
