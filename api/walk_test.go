package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
)

// A token of which one reader would see another user than the next is nobody's.
func TestUserTokensSayNothingTwice(t *testing.T) {
	t.Parallel()
	keys, s := uploaded(t), signers()["ed"]
	signed := func(header, claims string) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		signature, err := s.method.Sign(text, s.key)
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	header, claims := `{"alg":"EdDSA","kid":"ed"`, fmt.Sprintf(`{"aud":%q,"exp":%d,"sub":"anna"`, tokenApp, in(60e9))
	if user, err := keys.check(tokenApp, signed(header+"}", claims+"}"), tokenNow); err != nil || user != "anna" {
		t.Fatalf("%q, %v", user, err)
	}
	for _, token := range []string{
		signed(header+"}", claims+`,"sub":"bob"}`), signed(header+"}", claims+`,"s\u0075b":"anna"}`), signed(header+`,"kid":"ed"}`, claims+"}"),
	} {
		refusedFor(t, keys, token, "it names something twice")
	}
}

// FuzzSplit holds split to what encoding/json makes of a body.
func FuzzSplit(f *testing.F) {
	b := &body{fields: []string{"a", "b", "data"}, opaque: []string{"data"}, lists: map[string]int{"b": 3}}
	for _, seed := range []string{`{"a":1,"b":[{},[],"]"],"data":{"x":1,"x":2}}`, ` { "\u0061" : {"c":{}} , "z":-1e5 } `, `{"a":{"b":1,"b":2}}`, `{}`, `[1]`, `null`, `7`, `"\""`, `{"a":[{"x":1},{"x":1}],"":"\\"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		fields, err := b.split(raw)
		var want map[string]json.RawMessage
		if wrong := json.Unmarshal(raw, &want); wrong != nil || want == nil {
			if err == nil {
				t.Fatalf("took %q", raw)
			}
			return
		}
		if err != nil {
			return // something is there twice, or too much of it
		}
		if len(fields) != len(want) {
			t.Fatalf("%q: %d fields, want %d", raw, len(fields), len(want))
		}
		for name, value := range want {
			if !bytes.Equal(fields[name], value) {
				t.Fatalf("%q: %s is %q, want %q", raw, name, fields[name], value)
			}
		}
	})
}
