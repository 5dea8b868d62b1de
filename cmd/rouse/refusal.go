package main

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"rouse/client"
)

// plainly is an error in other words than its own.
type plainly struct {
	error
	words string
}

func (p *plainly) Error() string { return p.words }
func (p *plainly) Unwrap() error { return p.error }

// putPlainly puts a server's refusal within err as a person would, and names flags and arguments instead of fields.
func (t *terminal) putPlainly(err error) error {
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code == "" {
		return err
	}
	return &plainly{err, strings.Replace(err.Error(), refused.Error(), t.refusal(&refused.Problem), 1)}
}

// refusal says why a server refused something, its code, and the id to quote to the operator.
func (t *terminal) refusal(p *client.Problem) string {
	if p == nil {
		return "the server did not say why"
	}
	words := strings.TrimSuffix(p.Detail, "; see errors")
	if name, rest, ok := strings.Cut(words, ": "); ok && p.Code == "bad_query" {
		words = t.given(name).name + ": " + rest
	}
	var fields []string
	if p.Errors != nil {
		for _, f := range *p.Errors {
			fields = append(fields, t.field(f))
		}
	}
	switch {
	case len(fields) > 0 && words != p.Detail:
		words = strings.Join(fields, "; ")
	case len(fields) > 0:
		words += "; " + strings.Join(fields, "; ")
	}
	return fmt.Sprintf("%s (%d %s) [%s]", words, p.Status, p.Code, p.RequestId)
}

// field says what is wrong with a part of a body.
func (t *terminal) field(f client.ProblemField) string {
	if f.Pointer == "" {
		return "it " + f.Detail
	}
	what := t.given(f.Pointer)
	return what.name + ": " + what.inWords(f.Detail)
}

// flagOf is the flag or argument for a field that is called otherwise there.
var flagOf = map[string]string{
	"to.device_id": "to", "to.user_id": "user", "user_id": "user", "device_id": "to", "to.topic": "topic", "send_at": "at", "created_after": "since", "created_before": "until",
	"notification.title": "title", "notification.body": "body", "data": "text", "url": "target", "token": "token-file", "secret": "secret-file",
	"rate_limit.per_second": "rate-limit", "rate_limit.burst": "rate-limit", "event_id": "event", "device_ids": "devices",
	"private_key": "key", "service_account": "service-account", "certificate_p12": "p12", "certificate_password": "p12-password-file",
}

// said is what a person calls a part of a request.
type said struct {
	name string
	// span says that a person gives a time where the server takes seconds.
	span bool
}

// given finds what a field of a body, by its pointer, or a parameter of a query was given as: a flag or an argument of the command, if it has one.
func (t *terminal) given(field string) said {
	words := strings.Split(strings.Trim(field, "/"), "/")
	for n := len(words); n > 0; n-- { // an entry of a list is given where the list is
		path := strings.Join(words[:n], ".")
		name, ok := flagOf[path]
		if !ok {
			name = strings.ReplaceAll(path, "_", "-")
		}
		if v := t.value(name); v != nil {
			kind := v.Target.Type()
			return said{v.ShortSummary(), kind == reflect.TypeFor[time.Duration]() || kind == reflect.TypeFor[*time.Duration]()}
		}
	}
	return said{name: strings.Join(words, ".")}
}

// value is the flag or argument of that name of the command that runs, nil if it has none.
func (t *terminal) value(name string) *kong.Value {
	if t.command == nil {
		return nil
	}
	for _, arg := range t.command.Positional {
		if arg.Name == name {
			return arg
		}
	}
	for _, flag := range t.command.Flags {
		if flag.Name == name {
			return flag.Value
		}
	}
	return nil
}

var (
	idForm = regexp.MustCompile(`^must match \^(\w+)_\[0-9a-v\]\{26\}\$$`)
	choice = regexp.MustCompile(`^must be one of (\S+(?: \S+)+)$`)
	bound  = regexp.MustCompile(`^must be at (least|most) (\d+)$`)
)

// idOf says whose id begins so.
var idOf = map[string]string{"dev": "a device", "evt": "an event"}

// inWords puts what the contract demands as a person would.
func (p said) inWords(demand string) string {
	if m := idForm.FindStringSubmatch(demand); m != nil && idOf[m[1]] != "" {
		return fmt.Sprintf("must be the id of %s, which is %s_ and 26 characters of 0-9 and a-v", idOf[m[1]], m[1])
	}
	if m := choice.FindStringSubmatch(demand); m != nil {
		words := strings.Fields(m[1])
		last := len(words) - 1
		return "must be " + strings.Join(words[:last], ", ") + " or " + words[last]
	}
	if m := bound.FindStringSubmatch(demand); m != nil && p.span {
		n, _ := strconv.ParseInt(m[2], 10, 64) // digits alone; what is too long becomes the most there is
		return "must be at " + m[1] + " " + spanWords(time.Duration(n)*time.Second)
	}
	return demand
}

// spanWords is a span as its flags read it, without what is zero at its end.
func spanWords(d time.Duration) string {
	words := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(words, zero) {
			words = words[:len(words)-2]
		}
	}
	return words
}
