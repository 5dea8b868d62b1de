package tokens_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"rouse/tokens"
)

func ring(t testing.TB, s string) *tokens.Ring {
	t.Helper()
	r, err := tokens.ParseRing(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSealedOpensInItsPlaceAlone(t *testing.T) {
	t.Parallel()
	r := ring(t, tokens.NewRingKey("a"))
	sealed := r.Seal("row 1", []byte("secret"))
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("it is not sealed")
	}
	if plain, err := r.Open("row 1", sealed); err != nil || string(plain) != "secret" {
		t.Errorf("%q %v", plain, err)
	}
	if _, err := r.Open("row 2", sealed); err != tokens.ErrSealed {
		t.Errorf("moved to another row it opens: %v", err)
	}
	if bytes.Equal(sealed, r.Seal("row 1", []byte("secret"))) {
		t.Error("the nonce repeats")
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := r.Open("row 1", damaged); err != tokens.ErrSealed {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := r.Open("row 1", sealed[:i]); err != tokens.ErrSealed {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestRingRotates(t *testing.T) {
	t.Parallel()
	a, b := tokens.NewRingKey("a"), tokens.NewRingKey("b")
	old := ring(t, a).Seal("x", []byte("1"))
	both := ring(t, b+", "+a)
	if plain, err := both.Open("x", old); err != nil || string(plain) != "1" {
		t.Errorf("%q %v", plain, err)
	}
	fresh := both.Seal("x", []byte("2"))
	if _, err := ring(t, a).Open("x", fresh); err != tokens.ErrSealed {
		t.Error("the first key does not seal")
	}
	if plain, err := ring(t, b).Open("x", fresh); err != nil || string(plain) != "2" {
		t.Errorf("%q %v", plain, err)
	}
}

func TestBadRings(t *testing.T) {
	t.Parallel()
	short := base64.StdEncoding.EncodeToString(make([]byte, 16))
	good := tokens.NewRingKey("a")
	for name, s := range map[string]string{
		"nothing": "", "no id": ":" + short, "no colon": short, "too short": "a:" + short, "not base64": "a:???", "long id": strings.Repeat("x", 33) + good[1:],
		"twice": good + "," + good, "empty entry": good + ",",
	} {
		_, err := tokens.ParseRing(s)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), short) || strings.Contains(err.Error(), good[2:]) {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
	if got := fmt.Sprint(ring(t, good).LogValue()); got != "[redacted]" {
		t.Errorf("got %q", got)
	}
}

func FuzzOpen(f *testing.F) {
	r := ring(f, tokens.NewRingKey("a"))
	f.Add("x", r.Seal("x", []byte("1")))
	f.Add("x", []byte{255})
	f.Fuzz(func(t *testing.T, where string, sealed []byte) {
		if _, err := r.Open(where, sealed); err != nil && err != tokens.ErrSealed {
			t.Fatal(err)
		}
	})
}
