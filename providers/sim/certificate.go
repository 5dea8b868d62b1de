package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// What Apple writes into a push certificate: the app in the subject's UID, and an
// extension for each environment that it is good for.
var (
	uidAttribute        = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	sandboxExtension    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	productionExtension = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	asn1Null            = []byte{5, 0}
)

// certificateTopics are the suffixes that the topic of a certificate's push may have.
var certificateTopics = []string{"", ".voip", ".complication"}

// APNsCertificate describes a client certificate to make.
type APNsCertificate struct {
	// Topic is the app's bundle id, in the certificate as the subject's UID.
	Topic string
	// Environment is Production or Sandbox; empty is good for both.
	Environment string
	// Expires is when it ends, in a year if zero; one in the past makes a certificate that has expired.
	Expires time.Time
	// Unknown has it signed by an authority that the Sim does not know.
	Unknown bool
	// Password protects the P12 file; it may be empty.
	Password string
}

// APNsIdentity is a client certificate with its key, in the two forms that people have it in.
type APNsIdentity struct {
	CertificatePEM, PrivateKeyPEM string
	// P12 is a file as Keychain Access exports it, with the authority's certificate inside.
	P12 []byte
}

// NewAPNsCertificate makes a client certificate of the app, good for a year and
// for both environments, and returns it and its key as PEM. A connection that
// presents it needs no provider token.
func (s *Sim) NewAPNsCertificate(topic string) (certPEM, keyPEM string) {
	made := s.NewAPNsIdentity(APNsCertificate{Topic: topic})
	return made.CertificatePEM, made.PrivateKeyPEM
}

// NewAPNsIdentity makes a client certificate to order.
func (s *Sim) NewAPNsIdentity(c APNsCertificate) APNsIdentity {
	made, err := s.newIdentity(c)
	if err != nil {
		panic("sim: " + err.Error()) // only where the system has no randomness
	}
	return made
}

func (s *Sim) newIdentity(c APNsCertificate) (APNsIdentity, error) {
	signer := s.authority
	if c.Unknown {
		var err error
		if signer, err = newAuthority(nil); err != nil {
			return APNsIdentity{}, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return APNsIdentity{}, fmt.Errorf("make a client key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, c.template(), signer.certificate, key.Public(), signer.key)
	if err != nil {
		return APNsIdentity{}, fmt.Errorf("sign a client certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return APNsIdentity{}, fmt.Errorf("read a client certificate: %w", err)
	}
	file, err := pkcs12.Modern.Encode(key, leaf, []*x509.Certificate{signer.certificate}, c.Password)
	if err != nil {
		return APNsIdentity{}, fmt.Errorf("write a .p12 file: %w", err)
	}
	return APNsIdentity{
		CertificatePEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKeyPEM:  privatePEM(key), P12: file,
	}, nil
}

// template is the certificate as Apple would write it.
func (c APNsCertificate) template() *x509.Certificate {
	now := time.Now()
	if c.Expires.IsZero() {
		c.Expires = now.Add(certificateLife)
	}
	begins := now.Add(-time.Hour)
	if !c.Expires.After(begins) {
		begins = c.Expires.Add(-certificateLife)
	}
	made := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: begins, NotAfter: c.Expires,
		Subject: pkix.Name{
			CommonName: "Apple Push Services: " + c.Topic,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: uidAttribute, Value: c.Topic}},
		},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for environment, id := range map[string]asn1.ObjectIdentifier{Sandbox: sandboxExtension, Production: productionExtension} {
		if c.Environment == "" || c.Environment == environment {
			made.ExtraExtensions = append(made.ExtraExtensions, pkix.Extension{Id: id, Value: asn1Null})
		}
	}
	return made
}

// identity is what a client certificate says of a connection; nil where none was presented.
type identity struct {
	topic        string
	environments []string
	bad          bool // expired, or signed by somebody else
}

// identify reads the certificate of a client. Anything can be presented: what is
// no good is refused request by request, with the reason that Apple has for it.
func (a *authority) identify(state tls.ConnectionState) *identity {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	leaf := state.PeerCertificates[0]
	who := &identity{}
	for _, name := range leaf.Subject.Names {
		if text, ok := name.Value.(string); ok && name.Type.Equal(uidAttribute) {
			who.topic = text
		}
	}
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(sandboxExtension):
			who.environments = append(who.environments, Sandbox)
		case e.Id.Equal(productionExtension):
			who.environments = append(who.environments, Production)
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: a.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	who.bad = err != nil || who.topic == ""
	return who
}

// check returns BadCertificate for a certificate that is no good, BadCertificateEnvironment
// for one of the other environment, "" for a good one and for none.
func (i *identity) check(environment string) string {
	switch {
	case i == nil:
		return ""
	case i.bad:
		return "BadCertificate"
	case !slices.Contains(i.environments, environment):
		return "BadCertificateEnvironment"
	}
	return ""
}

// allows reports whether the certificate may push to a topic.
func (i *identity) allows(topic string) bool {
	return slices.ContainsFunc(certificateTopics, func(suffix string) bool { return topic == i.topic+suffix })
}
