package sim_test

import (
	"slices"
	"strings"
	"testing"

	"rouse/providers/sim"
)

// TestFCMSaysWhatItCannotRead: field and description of each violation, in the
// manner of Google and not in that of the decoder.
func TestFCMSaysWhatItCannotRead(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, start(t, sim.Options{}))
	const head = "Invalid JSON payload received. "
	for body, want := range map[string][]string{
		`{"message":{"token":"x","datta":{}}}`: {"message|" + head + `Unknown name "datta" at 'message': there is no such field.`},
		`{"mesage":{}}`:                        {"|" + head + `Unknown name "mesage": there is no such field.`},
		`{"message":{"data":{"n":1},"Android":{},"android":{"tttl":"1s","directBootOk":"yes"}}}`: {
			"message|" + head + `Unknown name "Android" at 'message': there is no such field.`,
			"message.android.direct_boot_ok|Invalid value at 'message.android.direct_boot_ok': it must be true or false, not \"yes\"",
			"message.android|" + head + `Unknown name "tttl" at 'message.android': there is no such field.`,
			"message.data|Invalid value at 'message.data': it must be a string, not 1",
		},
		`{"message":[]}`: {"message|Invalid value at 'message': it must be an object, not []"},
		`{"message":`:    {"|" + head + "The body ends before the JSON value does."},
		``:               {"|" + head + "The body ends before the JSON value does."},
		`{"message":}`:   {"|" + head + "Unexpected character at byte 12."},
		`{} {}`:          {"|" + head + "Unexpected character at byte 4."},
		`[]`:             {"|" + head + "The root must be an object."},
		`null`:           {"|" + head + "The root must be an object."},
	} {
		got := g.send(body)
		f := got.failure(t)
		var told, lines []string
		for _, v := range f.Error.Details[0]["fieldViolations"].([]any) {
			field, _ := v.(map[string]any)["field"].(string)
			description := v.(map[string]any)["description"].(string)
			told, lines = append(told, field+"|"+description), append(lines, description)
		}
		if got.status != 400 || f.Error.Status != "INVALID_ARGUMENT" || !slices.Equal(told, want) || f.Error.Message != strings.Join(lines, "\n") {
			t.Errorf("%s: %d %s\nwant %q", body, got.status, got.body, want)
		}
	}
}
