package apns

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"rouse/providers"
)

// pemPair is a certificate with its key, and where in the upload each came from.
type pemPair struct {
	certificate, key     string
	certificateAt, keyAt string
}

// pair returns the certificate of an upload as PEM; ok is false if there is none to look at.
func (c *checker) pair(u providers.APNsUpload) (p pemPair, ok bool) {
	if len(u.P12) == 0 {
		return pemPair{u.Certificate, u.CertificateKey, "/certificate", "/certificate_key"}, true
	}
	p = pemPair{certificateAt: "/certificate_p12", keyAt: "/certificate_p12"}
	var at, problem string
	p.certificate, p.key, at, problem = openP12(u.P12, u.P12Password)
	if problem != "" {
		c.wrong(at, "%s", problem)
	}
	return p, problem == ""
}

// maxBMP is the last character that the password of a .p12 file can hold.
const maxBMP = 0xFFFF

// openP12 turns a PKCS #12 file into PEM; problem says at which field what is wrong.
func openP12(file []byte, password string) (certificate, key, at, problem string) {
	const export = "; in Keychain Access choose the push certificate together with the private key below it, and export both as one .p12"
	if iterations(file, 0) > maxIterations {
		return "", "", "/certificate_p12", "opening the .p12 file would take too long: it asks for too many iterations" + export
	}
	private, leaf, chain, err := pkcs12.DecodeChain(file, password)
	if strings.ContainsFunc(password, func(r rune) bool { return r > maxBMP }) {
		err = pkcs12.ErrIncorrectPassword
	}
	var unknown pkcs12.NotImplementedError
	switch {
	case err == nil:
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return "", "", "/certificate_password", "the password does not open the .p12 file; send the one it was exported with"
	case errors.As(err, &unknown):
		return "", "", "/certificate_p12", "the .p12 file is locked in a way that is not supported; export it anew, or convert it with openssl pkcs12 and send certificate and certificate_key"
	// The library has no values for these two; a test holds it to its words.
	case strings.HasSuffix(err.Error(), "private key missing"):
		return "", "", "/certificate_p12", "the .p12 file holds no private key" + export
	case strings.HasSuffix(err.Error(), "certificate missing"):
		return "", "", "/certificate_p12", "the .p12 file holds no certificate" + export
	default:
		return "", "", "/certificate_p12", "that is not a .p12 file (PKCS #12), or it is damaged" + export
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", "/certificate_p12", "the private key in the .p12 file is of a sort that cannot be used" + export
	}
	var text strings.Builder
	for _, c := range append([]*x509.Certificate{leaf}, chain...) {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return text.String(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "", ""
}

// maxKeyBits bounds an RSA key: a signature takes time with the third power of its length, in each TLS handshake, and
// nothing can stop it half way.
const maxKeyBits = 8192

// certificate checks a pair for a topic and returns its first certificate, nil if there is none.
func (c *checker) certificate(p pemPair, topic string, now time.Time) *x509.Certificate {
	leaf := parseLeaf(p.certificate)
	if leaf == nil {
		c.wrong(p.certificateAt, "the certificate is not PEM that holds a certificate; export it from the keychain and convert it with openssl pkcs12 -nokeys")
	}
	if block, _ := pem.Decode([]byte(p.key)); block == nil {
		c.wrong(p.keyAt, "the certificate's key is not PEM; convert it with openssl pkcs12 -nocerts -nodes")
		return leaf
	}
	if leaf == nil {
		return nil
	}
	if public, ok := leaf.PublicKey.(*rsa.PublicKey); ok && public.N.BitLen() > maxKeyBits {
		c.wrong(p.certificateAt, "the certificate's key is too long to sign with: Apple's have 2048 bits; make a new one in the Apple developer account")
		return leaf
	}
	if _, err := tls.X509KeyPair([]byte(p.certificate), []byte(p.key)); err != nil {
		c.wrong(p.keyAt, "the key does not belong to the certificate, or cannot be read; export both together and leave the key without a passphrase")
	}
	if now.After(leaf.NotAfter) {
		c.wrong(p.certificateAt, "the certificate ran out on %s; make a new one in the Apple developer account", leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if now.Before(leaf.NotBefore) {
		c.wrong(p.certificateAt, "the certificate is not valid before %s; check the server's clock", leaf.NotBefore.UTC().Format(time.DateOnly))
	}
	c.subject(leaf, p.certificateAt, topic)
	return leaf
}

// subject checks the bundle id that Apple writes into push certificates, where there is one.
func (c *checker) subject(leaf *x509.Certificate, at, topic string) {
	switch uid := userID(leaf); {
	case uid == "" || uid == topic:
	case foreignSuffix(uid) != "":
		c.wrong(at, "the certificate is for topics that end in %s alone; make one of the sort Apple Push Notification service SSL (Sandbox & Production)", foreignSuffix(uid))
	default:
		c.wrong("/topic", "the certificate is for %s; use that as the topic, or a certificate for this app", printable(uid))
	}
}

// printable keeps a foreign string fit for an error message.
func printable(s string) string {
	if !bundleID.MatchString(s) || len(s) > maxTopic {
		return "another app"
	}
	return s
}

// Object identifiers in Apple's certificates.
var (
	oidUserID      = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	oidDevelopment = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidProduction  = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
)

// userID is the UID of the certificate's subject, the app's bundle id in a push certificate; empty if there is none.
func userID(leaf *x509.Certificate) string {
	for _, name := range leaf.Subject.Names {
		if uid, ok := name.Value.(string); ok && name.Type.Equal(oidUserID) {
			return uid
		}
	}
	return ""
}

// onlyIn names the one environment a certificate is made for, production or sandbox; empty for both, or if it does not say.
func onlyIn(leaf *x509.Certificate) string {
	var development, production bool
	for _, extension := range leaf.Extensions {
		development = development || extension.Id.Equal(oidDevelopment)
		production = production || extension.Id.Equal(oidProduction)
	}
	switch {
	case development && !production:
		return "sandbox"
	case production && !development:
		return "production"
	default:
		return ""
	}
}

// parseLeaf returns the first certificate of the PEM, nil if there is none.
func parseLeaf(text string) *x509.Certificate {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		return leaf
	}
}

// many reports whether an upload speaks of more than one credential.
func many(u providers.APNsUpload) bool {
	given := []bool{
		u.TeamID != "" || u.KeyID != "" || u.PrivateKey != "",
		u.Certificate != "" || u.CertificateKey != "",
		len(u.P12) > 0,
	}
	return len(slices.DeleteFunc(given, func(b bool) bool { return !b })) > 1
}
