package tokens_test

import (
	"strings"
	"testing"

	"rouse/fault"
	"rouse/tokens"
)

func TestParseToken(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0aF9", 16)
	for _, c := range []struct {
		name     string
		provider tokens.Provider
		raw      string
		want     tokens.Token
		ok       bool
	}{
		{"apple", tokens.APNs, hex, tokens.Token(strings.ToLower(hex)), true},
		{"apple, shortest", tokens.APNs, hex[:16], tokens.Token(strings.ToLower(hex[:16])), true},
		{"apple, longest", tokens.APNs, strings.Repeat("a", 200), tokens.Token(strings.Repeat("a", 200)), true},
		{"apple, too short", tokens.APNs, hex[:14], "", false},
		{"apple, too long", tokens.APNs, strings.Repeat("a", 202), "", false},
		{"apple, odd", tokens.APNs, hex[:17], "", false},
		{"apple, as iOS prints it", tokens.APNs, "<" + hex + ">", "", false},
		{"apple, a path", tokens.APNs, "../../" + hex, "", false},
		{"apple, a kelvin sign", tokens.APNs, "\u212a" + hex, "", false},
		{"google", tokens.FCM, "abc:APA91b_-0123456789", "abc:APA91b_-0123456789", true},
		{"google, too short", tokens.FCM, "short", "", false},
		{"google, too long", tokens.FCM, strings.Repeat("x", 4097), "", false},
		{"google, a space", tokens.FCM, "abc APA91b_-0123456789", "", false},
		{"google, a newline", tokens.FCM, "abc:APA91b_-0123456789\n", "", false},
		{"google, beyond ASCII", tokens.FCM, "abc:APA91b_-0123456789ö", "", false},
		{"nobody, none", tokens.NoProvider, "", "", true},
		{"nobody, one", tokens.NoProvider, hex, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := tokens.ParseToken(c.provider, c.raw)
			if got != c.want || (err == nil) != c.ok {
				t.Errorf("%q %v", string(got), err)
			}
			if err != nil && strings.Contains(err.Error(), c.raw) {
				t.Errorf("the error repeats the token: %v", err)
			}
		})
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("apns", strings.Repeat("0a", 32))
	f.Add("fcm", "abc:APA91b_-0123456789")
	f.Add("none", "")
	f.Fuzz(func(t *testing.T, provider, raw string) {
		token, err := tokens.ParseToken(tokens.Provider(provider), raw)
		if err != nil {
			if token != "" || len(raw) > 8 && strings.Contains(err.Error(), raw) {
				t.Fatalf("%q: %q %v", raw, string(token), err)
			}
			return
		}
		if again, err := tokens.ParseToken(tokens.Provider(provider), string(token)); err != nil || again != token {
			t.Fatalf("%q is not canonical", string(token))
		}
		// It goes into a URL path on one provider and into JSON on the other.
		if strings.ContainsAny(string(token), "/?# \r\n\x00") && provider == "apns" {
			t.Fatalf("%q", string(token))
		}
	})
}

func TestCheckRegistration(t *testing.T) {
	t.Parallel()
	good := tokens.Registration{Installation: "i", Platform: tokens.IOS, Provider: tokens.APNs, Token: tokens.Token(strings.Repeat("AB", 32))}
	got, err := tokens.CheckRegistration(good)
	if err != nil || got.Environment != tokens.Production || string(got.Token) != strings.Repeat("ab", 32) {
		t.Errorf("%+v %v", got, err)
	}
	all := tokens.Registration{Platform: "x", Provider: "y", Environment: "z", AppVersion: "\x00", Locale: "a b"}
	_, err = tokens.CheckRegistration(all)
	e := fault.From(err)
	var pointers []string
	for _, f := range e.Fields {
		pointers = append(pointers, f.Pointer)
	}
	if e.Kind != fault.Invalid || e.Code != "invalid_registration" || strings.Join(pointers, " ") != "/installation_id /platform /provider /environment /app_version /locale" {
		t.Errorf("%v %v", e, pointers)
	}
	without := good
	without.Token = ""
	if _, err := tokens.CheckRegistration(without); err != nil {
		t.Errorf("an app may get its token later: %v", err)
	}
	for _, p := range []tokens.Platform{tokens.Android, tokens.Web, tokens.Other} {
		wrong := good
		wrong.Platform = p
		if _, err := tokens.CheckRegistration(wrong); err == nil {
			t.Errorf("apns wakes %s", p)
		}
	}
}

func TestCheckPatch(t *testing.T) {
	t.Parallel()
	token, sandbox := tokens.Token(strings.Repeat("AB", 32)), tokens.Sandbox
	got, err := tokens.CheckPatch(tokens.APNs, tokens.Patch{Token: &token, Environment: &sandbox})
	if err != nil || string(*got.Token) != strings.Repeat("ab", 32) || *got.Environment != tokens.Sandbox {
		t.Errorf("%v", err)
	}
	if string(token) != strings.Repeat("AB", 32) {
		t.Error("the caller's patch was changed")
	}
	if _, err := tokens.CheckPatch(tokens.APNs, tokens.Patch{}); err != nil {
		t.Errorf("nothing to change: %v", err)
	}
	for name, c := range map[string]struct {
		provider tokens.Provider
		patch    tokens.Patch
	}{
		"environment alone":      {tokens.APNs, tokens.Patch{Environment: &sandbox}},
		"token of another form":  {tokens.FCM, tokens.Patch{Token: new(tokens.Token("ab"))}},
		"environment of google":  {tokens.FCM, tokens.Patch{Token: new(tokens.Token(strings.Repeat("a", 20))), Environment: &sandbox}},
		"token without provider": {tokens.NoProvider, tokens.Patch{Token: &token}},
	} {
		if _, err := tokens.CheckPatch(c.provider, c.patch); fault.KindOf(err) != fault.Invalid || len(fault.From(err).Fields) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckUser(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "anna@example.com", "ö", strings.Repeat("x", 256), "a b", "\u0645\u200d"} {
		if err := tokens.CheckUser(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", strings.Repeat("x", 257), "a\x00", "a\n", "\xff", "\x7f", "a\u0080", "\u009fa", "a\u202eb", "\u2066a", "\u200e"} {
		if err := tokens.CheckUser(bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
