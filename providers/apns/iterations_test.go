package apns

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"rouse/providers"
)

// TestP12Iterations asks for many iterations in each place of a file where one can, in the forms there are: each would keep a
// processor busy for as long as it likes.
func TestP12Iterations(t *testing.T) {
	t.Parallel()
	// Eight million, and as many bytes.
	said, asked := []byte{2, 3, 1, 0, 0}, []byte{2, 3, 0x7f, 0xff, 0xff}
	upload := pushCertificate(t, "com.example.app")
	block, _ := pem.Decode([]byte(upload.Certificate))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for name, encoder := range map[string]*pkcs12.Encoder{
		"2026": pkcs12.Modern2026, "2023": pkcs12.Modern2023, "3DES": pkcs12.LegacyDES, "RC2": pkcs12.LegacyRC2,
	} {
		file, err := encoder.WithIterations(1<<16).Encode(newKey(t, elliptic.P256()), leaf, nil, "correct")
		if err != nil {
			t.Fatal(err)
		}
		if n := iterations(file, 0); n != 3<<16 {
			t.Errorf("%s: %d iterations counted, want %d", name, n, 3<<16)
		}
		for at := bytes.Index(file, said); at >= 0; {
			bomb := bytes.Clone(file)
			copy(bomb[at:], asked)
			_, err := Check(providers.APNsUpload{P12: bomb, P12Password: "correct", Topic: "com.example.app"}, now)
			if pointers, says := problems(t, err); pointers != "/certificate_p12" || !strings.Contains(says, "iterations") {
				t.Errorf("%s, byte %d: points at %q and says %q", name, at, pointers, says)
			}
			next := bytes.Index(file[at+1:], said)
			if next < 0 {
				break
			}
			at += 1 + next
		}
	}
	// An endless nest is not followed to its end.
	if n := iterations(bytes.Repeat([]byte{0x30, 0x80}, 1<<16), 0); n != 0 {
		t.Errorf("%d iterations in a nest of nothing", n)
	}
}
