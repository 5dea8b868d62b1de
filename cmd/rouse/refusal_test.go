package main

import (
	"testing"

	"github.com/alecthomas/kong"

	"rouse/client"
)

// TestRefusalsSpeakOfFlags: what the server says of fields and parameters is said of what the person gave.
func TestRefusalsSpeakOfFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args                   []string
		code, detail           string
		pointer, demand, wants string
	}{
		{[]string{"send", "x"}, "invalid_body", "the body does not fit; see errors", "/to/device_id", "must match ^dev_[0-9a-v]{26}$", "--to: must be the id of a device, which is dev_ and 26 characters of 0-9 and a-v (422 invalid_body) [req_1]"},
		{[]string{"send", "x"}, "invalid_body", "the body does not fit; see errors", "/ttl", "must be at most 2592000", "--ttl: must be at most 720h (422"},
		{[]string{"send", "x"}, "invalid_message", "the message is not acceptable; see errors", "/send_at", "at most 30 days ahead", "--at: at most 30 days ahead (422"},
		{[]string{"send", "x"}, "invalid_body", "the body does not fit; see errors", "", "must be of type object", "it must be of type object (422"},
		{[]string{"apps", "set", "a"}, "invalid_body", "the body does not fit; see errors", "/event_types/3", "is odd", "--event-types: is odd (422"},
		{[]string{"apps", "set", "a"}, "invalid_body", "the body does not fit; see errors", "/registration", "must be one of open token server", "--registration: must be open, token or server (422"},
		{[]string{"apps", "set", "a"}, "invalid_body", "the body does not fit; see errors", "/broadcast_rate", "must be at least 1", "--broadcast-rate: must be at least 1 (422"},
		{[]string{"webhooks", "create", "x"}, "invalid_webhook", "nothing can be posted to that URL", "/url", "must begin with https://", "nothing can be posted to that URL; <target>: must begin with https:// (422"},
		{[]string{"keys", "rotate", "a", "b"}, "invalid_body", "the body does not fit; see errors", "/overlap", "must be at most 90", "--overlap: must be at most 1m30s (422"},
		{[]string{"tail"}, "bad_query", "types: types of events", "", "", "--types: types of events (422"},
		{[]string{"tail"}, "bad_cursor", "that cursor: gone", "", "", "that cursor: gone (422"},
		{[]string{"messages", "list"}, "bad_query", "unknown_thing: so", "", "", "unknown_thing: so (422"},
		{nil, "invalid_body", "the body does not fit; see errors", "/to/topic", "is odd", "to.topic: is odd (422"},
	} {
		term := &terminal{}
		if c.args != nil {
			parser, err := kong.New(&commands{})
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := parser.Parse(c.args)
			if err != nil {
				t.Fatal(err)
			}
			term.command = parsed.Selected()
		}
		p := &client.Problem{Status: 422, Code: c.code, Detail: c.detail, RequestId: "req_1"}
		if c.demand != "" {
			p.Errors = &[]client.ProblemField{{Pointer: c.pointer, Detail: c.demand}}
		}
		err := term.putPlainly(during("sending", &client.Error{Problem: *p}))
		if hasCode(err, c.code) {
			says(t, err.Error(), "sending: "+c.wants)
		} else {
			t.Errorf("%v lost its code", err)
		}
	}
}

// TestWrongArgumentsPointToTheHelpOfTheirCommand.
func TestWrongArgumentsPointToTheHelpOfTheirCommand(t *testing.T) {
	t.Parallel()
	refuses(t, nil, exitUsage, "\nrouse messages cancel --help says", "messages", "cancel")
	refuses(t, nil, exitUsage, "\nrouse send --help says", "send", "--colour", "red")
	refuses(t, nil, exitUsage, "\nrouse --help says", "sned")
}
