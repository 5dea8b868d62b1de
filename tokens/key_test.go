package tokens_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

const someID = "06h0be35dpuar3je4p15tgeq7g"

func TestKeysAreReadAsTheyWereMade(t *testing.T) {
	t.Parallel()
	for _, kind := range []tokens.KeyKind{tokens.AdminKey, tokens.SecretKey, tokens.PublishableKey, tokens.DeviceKey} {
		key := tokens.MintKey(kind, someID)
		p, err := tokens.ParseKey(string(key))
		if err != nil || p.Kind != kind || p.ID != someID || !p.Hash.Equal(tokens.HashOf(key)) {
			t.Errorf("%s: %+v %v", kind, p, err)
		}
		if again := tokens.MintKey(kind, someID); again == key {
			t.Error("the same key twice")
		}
	}
}

// TestEveryTypoIsSeen changes every character of a key to another, cuts it everywhere, and swaps neighbours.
func TestEveryTypoIsSeen(t *testing.T) {
	t.Parallel()
	key := string(tokens.MintKey(tokens.SecretKey, someID))
	refuse := func(typo string) {
		if typo == key {
			return
		}
		if _, err := tokens.ParseKey(typo); err != tokens.ErrBadKey {
			t.Errorf("%q passes for a key", typo)
		}
	}
	for i := range key {
		for _, c := range "0av z-Z" {
			refuse(key[:i] + string(c) + key[i+1:])
		}
		refuse(key[:i])
		refuse(key[i:])
		if i > 0 {
			refuse(key[:i-1] + key[i:i+1] + key[i-1:i] + key[i+1:])
		}
	}
	refuse(key + "0")
	refuse(" " + key)
	refuse(strings.ToUpper(key))
}

func TestSecretsPrintRedacted(t *testing.T) {
	t.Parallel()
	key := tokens.MintKey(tokens.DeviceKey, someID)
	token := tokens.Token("0123456789abcdef")
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key, "token", token, "device", tokens.Device{Token: token})
	for _, s := range []string{log.String(), fmt.Sprint(key, token), fmt.Sprintf("%v %s %q %#v %+v", key, key, key, key, struct{ K tokens.Secret }{key}),
		fmt.Sprintf("%v %s %q %#v %+v", token, token, token, token, tokens.Device{Token: token})} {
		if strings.Contains(s, string(key)) || strings.Contains(s, string(token)) {
			t.Errorf("in clear: %s", s)
		}
	}
	if got := key.String(); got != "rouse_dev_[redacted]" {
		t.Errorf("got %q", got)
	}
	if tokens.Secret("some words").String() != "[redacted]" || tokens.Secret("").String() != "" || tokens.Token("").String() != "" {
		t.Error("words and nothing")
	}
}

func TestKeyScopesAndLife(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := tokens.Key{Scopes: []tokens.Scope{tokens.ScopeSend}}
	if !k.Allows(tokens.ScopeSend) || k.Allows(tokens.ScopeRead) || !k.Live(now) {
		t.Error("scopes or a key without an end")
	}
	k.ExpiresAt = now
	if k.Live(now) || !k.Live(now.Add(-time.Nanosecond)) {
		t.Error("a key ends at its end, not after it")
	}
	for _, s := range []tokens.Scope{tokens.ScopeSend, tokens.ScopeDevices, tokens.ScopeTopics, tokens.ScopeWebhooks, tokens.ScopeRead} {
		if !(tokens.Key{Scopes: tokens.AllScopes()}).Allows(s) {
			t.Errorf("all scopes lack %s", s)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, kind := range []tokens.KeyKind{tokens.AdminKey, tokens.SecretKey, tokens.PublishableKey, tokens.DeviceKey} {
		f.Add(string(tokens.MintKey(kind, someID)))
		f.Add(string(kind))
	}
	f.Add("")
	f.Add("rouse_sk_" + strings.Repeat("0", 65))
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := tokens.ParseKey(raw)
		if err != nil {
			if err != tokens.ErrBadKey || p != (tokens.ParsedKey{}) {
				t.Fatalf("%+v %v", p, err)
			}
			return
		}
		if !strings.HasPrefix(raw, string(p.Kind)) || !ident.IsSuffix(p.ID) || !strings.Contains(raw, p.ID) || !p.Hash.Equal(tokens.HashOf(tokens.Secret(raw))) {
			t.Fatalf("%q read as %+v", raw, p)
		}
	})
}
