package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"rouse/client"
	"rouse/tokens"
)

type credentialsCmd struct {
	Put    credentialsPutCmd    `cmd:"" help:"Give an app a credential. Putting it, even unchanged, wakes what waits."`
	List   credentialsListCmd   `cmd:"" help:"List an app's credentials, without their secrets."`
	Verify credentialsVerifyCmd `cmd:"" help:"Ask Apple or Google whether it takes the stored credential. Exits with 1 if not."`
	Delete credentialsDeleteCmd `cmd:"" help:"Forget a credential."`
}

type credentialsPutCmd struct {
	APNs credentialsAPNsCmd `cmd:"" name:"apns" help:"A signing key (.p8) or a push certificate (PEM or .p12) from the Apple developer account."`
	FCM  credentialsFCMCmd  `cmd:"" name:"fcm" help:"A service account's JSON from the Firebase console."`
}

type credentialsAPNsCmd struct {
	adminAccess
	output
	App            string `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Key            string `xor:"form" type:"existingfile" aliases:"key-file" help:"A signing key: the file AuthKey_XXXXXXXXXX.p8. --key-file is the same."`
	KeyID          string `help:"The signing key's id, 10 characters. Left out, the one in the file's name."`
	TeamID         string `help:"The team's id, 10 characters. Goes with --key."`
	Certificate    string `xor:"form" and:"pair" type:"existingfile" help:"Instead of a signing key, a push certificate: a PEM file."`
	CertificateKey string `and:"pair" type:"existingfile" help:"The certificate's private key: a PEM file."`
	P12            string `name:"p12" xor:"form" type:"existingfile" help:"Instead of both, the .p12 file that holds certificate and key."`
	P12Password    string `name:"p12-password" placeholder:"WORDS" setting:"ROUSE_P12_PASSWORD" help:"What opens the .p12 file. Other users of this machine can read a command line: use the variable."`
	Topic          string `required:"" help:"The app's bundle id."`
	Placeholder    string `help:"What the phone shows until the app has fetched the message."`
}

// Run puts the credential for Apple.
func (c *credentialsAPNsCmd) Run(ctx context.Context, term *terminal) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	credential, err := answer[client.Credential](api.PutApnsCredential(ctx, app, body))
	if err != nil {
		return notPut(err, c.P12 != "" && c.P12Password == "")
	}
	return c.print(term, credential, func(w io.Writer) { writeCredential(w, credential) })
}

// notPut tells why a credential was refused, each mistake on a line of its own. locked says that a .p12 file was sent without a password.
func notPut(err error, locked bool) error {
	var e *client.Error
	if !errors.As(err, &e) || e.Errors == nil {
		return fmt.Errorf("putting the credential: %w", err)
	}
	all := fmt.Sprintf("putting the credential: %s (%d %s) [%s]", e.Detail, e.Status, e.Code, e.RequestId)
	for _, f := range *e.Errors {
		all += "\n  " + f.Pointer + " " + f.Detail
		if locked && f.Pointer == "/certificate_password" {
			all += "; give its password in ROUSE_P12_PASSWORD"
		}
	}
	return errors.New(all)
}

// body makes the request of the one form that was given.
func (c *credentialsAPNsCmd) body() (client.ApnsCredentialPut, error) {
	body := client.ApnsCredentialPut{Topic: c.Topic, Placeholder: placeholder(c.Placeholder)}
	var err error
	switch {
	case c.Key == "" && c.Certificate == "" && c.P12 == "":
		return body, mistake("say with what: --key AuthKey_XXXXXXXXXX.p8 --team-id ..., or --certificate and --certificate-key, or --p12")
	case c.Key == "" && (c.KeyID != "" || c.TeamID != ""):
		return body, mistake("--key-id and --team-id go with --key; a certificate has neither")
	case c.Key != "":
		if err = c.checkIDs(); err == nil {
			body.TeamId, body.KeyId = &c.TeamID, &c.KeyID
			body.PrivateKey, err = fileText(c.Key)
		}
	case c.Certificate != "":
		if body.Certificate, err = fileText(c.Certificate); err == nil {
			body.CertificateKey, err = fileText(c.CertificateKey)
		}
	default:
		var content *string
		if content, err = fileText(c.P12); err == nil {
			body.CertificateP12 = new(base64.StdEncoding.EncodeToString([]byte(*content)))
		}
		if c.P12Password != "" {
			body.CertificatePassword = &c.P12Password
		}
	}
	return body, err
}

var keyFileName = regexp.MustCompile(`^AuthKey_([A-Z0-9]{10})\.p8$`)

// checkIDs takes the key's id from the name that Apple gave the file, where it was left out.
func (c *credentialsAPNsCmd) checkIDs() error {
	named := ""
	if m := keyFileName.FindStringSubmatch(filepath.Base(c.Key)); m != nil {
		named = m[1]
	}
	if c.KeyID == "" {
		c.KeyID = named
	}
	const membership = "the team id is under Membership details in the Apple developer account"
	switch {
	case c.TeamID == "":
		return mistake("--team-id is needed: %s", membership)
	case c.TeamID == named && c.KeyID != named:
		return mistake("team id and key id were swapped: by the name of the file, %s is the key's id; say --key-id %s --team-id %s", named, c.TeamID, c.KeyID)
	case c.TeamID == named:
		return mistake("--team-id is the key's id, by the name of the file; %s", membership)
	case c.KeyID == "":
		return mistake("--key-id is needed: the file's name, which should be AuthKey_XXXXXXXXXX.p8, does not tell it")
	}
	return nil
}

// fileText reads a file of the caller's choice.
func fileText(path string) (*string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the credential: %w", err)
	}
	return new(string(content)), nil
}

// placeholder makes the contract's form of one text; nil for none.
func placeholder(text string) *client.Placeholder {
	if text == "" {
		return nil
	}
	return &client.Placeholder{Body: &text}
}

type credentialsFCMCmd struct {
	adminAccess
	output
	App            string `arg:"" help:"The app: its id, app_..., or its name exactly."`
	ServiceAccount string `required:"" type:"existingfile" help:"The JSON file of the service account."`
	Placeholder    string `help:"What Apple's devices behind Firebase show until the app has fetched the message."`
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
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	body := client.FcmCredentialPut{ServiceAccount: account, Placeholder: placeholder(c.Placeholder)}
	credential, err := answer[client.Credential](api.PutFcmCredential(ctx, app, body))
	if err != nil {
		return notPut(err, false)
	}
	return c.print(term, credential, func(w io.Writer) { writeCredential(w, credential) })
}

type credentialsListCmd struct {
	adminAccess
	output
	App string `arg:"" help:"The app: its id, app_..., or its name exactly."`
}

// Run lists an app's credentials and whether the providers take them.
func (c *credentialsListCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	list, err := answer[client.CredentialList](api.ListCredentials(ctx, app))
	if err != nil {
		return fmt.Errorf("listing credentials: %w", err)
	}
	return c.print(term, list.Credentials, func(w io.Writer) {
		if len(list.Credentials) == 0 {
			fmt.Fprintln(w, "no credentials: phones with a push provider are not woken")
		}
		for _, credential := range list.Credentials {
			writeCredential(w, credential)
		}
		for _, credential := range list.Credentials {
			if credential.Failing != nil {
				fmt.Fprintln(w, askWhy(app, credential.Provider, *credential.Failing))
			}
		}
	})
}

// askWhy says how to find out what is wrong with a credential.
func askWhy(app, provider, reason string) string {
	if reason == "no_credentials" {
		return fmt.Sprintf("give it one: %s credentials put %s %s", self(), provider, app)
	}
	return fmt.Sprintf("ask %s why: %s credentials verify %s %s", carriers[tokens.Provider(provider)], self(), app, provider)
}

func writeCredential(w io.Writer, c client.Credential) {
	now, works := time.Now(), "works, as far as is known"
	switch {
	case c.Failing != nil:
		works = "refused: " + *c.Failing
		if c.FailingSince != nil {
			works += ", since " + at(*c.FailingSince)
		}
	case c.CertificateExpiresAt != nil && now.After(*c.CertificateExpiresAt):
		works = "no longer good: put a new one"
	}
	whose := "topic " + orDash(c.Topic)
	if c.ProjectId != nil {
		whose = "project " + *c.ProjectId
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Provider, c.Fingerprint, whose, ends(c, now), works)
}

// ends tells until when a credential is good, and where, if not everywhere.
func ends(c client.Credential, now time.Time) string {
	end, where := c.CertificateExpiresAt, ""
	if c.CertificateEnvironment != nil {
		where = ", " + *c.CertificateEnvironment + " only"
	}
	switch {
	case end == nil:
		return "has no end" + where
	case now.After(*end):
		return "EXPIRED " + at(*end) + where
	}
	return "expires " + at(*end) + where
}

type credentialsVerifyCmd struct {
	adminAccess
	output
	App      string `arg:"" help:"The app: its id, app_..., or its name exactly."`
	Provider string `arg:"" enum:"apns,fcm" help:"apns or fcm."`
}

// Run asks the provider about the stored credential, and fails if it does not take it.
func (c *credentialsVerifyCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	ask := api.VerifyApnsCredential
	if c.Provider == "fcm" {
		ask = api.VerifyFcmCredential
	}
	app, err := appNamed(ctx, api, c.App)
	if err != nil {
		return err
	}
	found, err := answer[client.CredentialVerification](ask(ctx, app))
	if err != nil {
		return fmt.Errorf("verifying the credential: %w", err)
	}
	if err := c.print(term, found, func(w io.Writer) { writeFindings(w, found.Checks) }); err != nil {
		return err
	}
	if !found.Ok {
		return refusal(c.Provider, app, found.Checks)
	}
	return nil
}

// refusal sums up why a credential was not taken.
func refusal(provider, app string, checks []client.Finding) error {
	who := carriers[tokens.Provider(provider)]
	for _, f := range checks {
		if f.Status == "fail" && (f.Reason == nil || !unasked(*f.Reason)) {
			return fmt.Errorf("pushes cannot be sent with the %s credential of %s", provider, app)
		}
	}
	return fmt.Errorf("%s could not be asked about the %s credential of %s, which may be good", who, provider, app)
}

// noWord is reasons of a check that met trouble on the way, or the provider's own, and no word on the credential.
var noWord = []string{
	"connect_failed", "connect_timeout", "untrusted_certificate", "timeout", "token_timeout", "queue_timeout", "goaway", "connection_reset",
	"stream_refused", "stream_reset", "enhance_your_calm", "token_endpoint_unavailable",
	"InternalServerError", "ServiceUnavailable", "Shutdown", "INTERNAL", "UNAVAILABLE",
}

// unasked reports whether a reason says that the provider gave no word on the credential.
func unasked(reason string) bool {
	return slices.Contains(noWord, reason) || strings.HasPrefix(reason, "http_5")
}

// writeFindings tells of each check what was found, and below it what to do.
func writeFindings(w io.Writer, checks []client.Finding) {
	for _, f := range checks {
		reason := ""
		if f.Reason != nil && !strings.Contains(f.Cause, "("+*f.Reason+")") {
			reason = " (" + *f.Reason + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s%s\n", f.Status, f.Check, f.Cause, reason)
		if f.Cure != nil {
			fmt.Fprintf(w, "\t\t%s\n", *f.Cure)
		}
	}
}

type credentialsDeleteCmd struct {
	adminAccess
	output
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
	return c.done(term, "deleted", c.Provider, fmt.Sprintf("%s credential of %s is gone", c.Provider, c.App))
}
