package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"rouse/client"
)

// adminAccess is how a subcommand reaches a server as its administrator.
type adminAccess struct {
	URL      string `help:"Where Rouse is; left out, what rouse dev runs." placeholder:"URL" setting:"ROUSE_URL"`
	AdminKey string `help:"The administrator's key; left out, that of rouse dev." placeholder:"KEY" setting:"ROUSE_ADMIN_KEY"`
}

func (a adminAccess) client(term *terminal) (*client.Client, error) {
	return dial(term, a.URL, a.AdminKey, lender{"ROUSE_ADMIN_KEY", "--admin-key", func(p profile) string { return p.AdminKey }})
}

// appAccess is how a subcommand reaches a server as an app's backend.
type appAccess struct {
	URL string `help:"Where Rouse is; left out, what rouse dev runs." placeholder:"URL" setting:"ROUSE_URL"`
	Key string `help:"The app's secret key; left out, that of the demo app." placeholder:"KEY" setting:"ROUSE_SECRET_KEY"`
}

func (a appAccess) client(term *terminal) (*client.Client, error) {
	return dial(term, a.URL, a.Key, lender{"ROUSE_SECRET_KEY", "--key", func(p profile) string { return p.SecretKey }})
}

// isOf reports whether what was given, if anything was, is the server and the app of the profile.
func (a appAccess) isOf(p profile) bool {
	return (a.URL == "" || a.URL == p.URL) && (a.Key == "" || a.Key == p.SecretKey)
}

// lender is which key of the profile stands in for one that was left out.
type lender struct {
	// setting and flag are where the caller would have put a key.
	setting, flag string
	key           func(profile) string
}

// dial makes a client; what was left out comes from the profile of rouse dev, which term
// notes for the report of a refusal. A key of the profile never goes to a server that is not the profile's.
func dial(term *terminal, base, key string, from lender) (*client.Client, error) {
	if base == "" || key == "" {
		p, err := term.profile()
		var none *usageError
		switch {
		case errors.As(err, &none) && base == "":
			return nil, mistake("%w, or name a server and a key: ROUSE_URL (--url) and %s (%s)", err, from.setting, from.flag)
		case err != nil && none == nil:
			return nil, err
		case base == "":
			base = p.URL
		}
		if key == "" && base == p.URL {
			key, term.lent = from.key(p), from.setting
		}
	}
	if key == "" {
		return nil, mistake("a key for %s is needed: set %s, or give %s", base, from.setting, from.flag)
	}
	return newClient(base, key)
}

// callLimit outlasts the longest poll.
const callLimit = 75 * time.Second

// newClient makes a client that sends the key with every request.
func newClient(base, key string) (*client.Client, error) {
	if u, err := url.Parse(base); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, mistake("%q is no URL of a server, such as http://127.0.0.1:8080", base)
	}
	return client.NewClient(base, client.WithHTTPClient(&http.Client{Timeout: callLimit}), client.WithKey(key))
}

// maxAnswer is the most that a server may answer: a page holds at most 1 MiB of data.
const maxAnswer = 16 << 20

// answer reads what a client call gave: T for 2xx, else an error, *client.Error if
// the server answered something else. It takes the two results of the call as they come.
func answer[T any](res *http.Response, err error) (T, error) {
	var out T
	if err != nil {
		return out, unreached(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("the answer broke off: %w", err)
	}
	if err := client.Check(res, body); err != nil {
		return out, err
	}
	if len(body) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("the answer is not what Rouse answers: %w", err)
	}
	return out, nil
}

// unreached asks what a person would look at first, unless the caller gave up.
func unreached(err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("cannot reach the server: %w", err)
	}
	return fmt.Errorf("cannot reach the server (does `rouse serve` or `rouse dev` run?): %w", err)
}

// nothing is the body of a 204.
type nothing struct{}

// hasCode reports whether err is a server's refusal with the code.
func hasCode(err error, code string) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// output chooses between words and JSON.
type output struct {
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// print writes value as JSON if asked to, else lets words write it in columns.
func (o output) print(term *terminal, value any, words func(w io.Writer)) error {
	if o.Output == "json" {
		enc := json.NewEncoder(term.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(value)
	}
	w := columns(term.out)
	words(w)
	return w.Flush()
}

// done tells of what has no answer of its own: in JSON what was done and to whom, else the words.
func (o output) done(term *terminal, verb, whom, words string) error {
	return o.print(term, map[string]string{verb: whom}, func(w io.Writer) { fmt.Fprintln(w, words) })
}

// orDash shows a missing value.
func orDash(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return *s
}

// at shows a time in UTC to the second.
func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// hasStatus reports whether err is a server's refusal with the status.
func hasStatus(err error, status int) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Status == status
}
