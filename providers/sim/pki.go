package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// certificateLife is how long the certificates of one run are good for.
const certificateLife = 365 * 24 * time.Hour

// authority signs the certificates of the fakes. Its key lives in memory only.
type authority struct {
	pem         []byte
	leaf        tls.Certificate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool // the certificate alone
}

// newAuthority makes a CA and one server certificate for localhost, the loopback
// addresses and the names given.
func newAuthority(names []string) (*authority, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("simulator: make a CA key: %w", err)
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Rouse simulator CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("simulator: sign the CA: %w", err)
	}
	signed, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, fmt.Errorf("simulator: read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(signed)
	a := &authority{pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), certificate: signed, key: caKey, pool: pool}
	a.leaf, err = a.issue(append([]string{"localhost", "127.0.0.1", "::1"}, names...), now.Add(certificateLife))
	return a, err
}

// issue makes a server certificate for these names and addresses.
func (a *authority) issue(names []string, ends time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: make a server key: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano() + 1), Subject: pkix.Name{CommonName: "Rouse simulator"},
		NotBefore: a.certificate.NotBefore.Add(-time.Hour), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.certificate, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: sign the server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}, nil
}

// wrong is a server certificate that clients must not take: one that has expired,
// one of another name, or one of an unknown authority.
func (a *authority) wrong(how string, names []string) (tls.Certificate, error) {
	switch how {
	case "expired":
		return a.issue(append([]string{"localhost", "127.0.0.1", "::1"}, names...), time.Now().Add(-time.Minute))
	case "name":
		return a.issue([]string{"elsewhere.invalid"}, time.Now().Add(certificateLife))
	}
	stranger, err := newAuthority(names)
	if err != nil {
		return tls.Certificate{}, err
	}
	return stranger.leaf, nil
}

// config is a server's TLS configuration offering these ALPN protocols.
func (a *authority) config(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{a.leaf}, NextProtos: protocols}
}
