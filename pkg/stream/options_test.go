package stream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/stream"
)

// authority signs certificates, as a Memorystore instance's own does.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.sign(a.cert, a.key)}))
	return a
}

func (a *authority) sign(cert *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// redis starts a server with a certificate of the authority's, and returns its URL.
func (a *authority) redis(commonName string, expired bool, addresses ...net.IP) string {
	a.t.Helper()
	key := newKey(a.t)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: commonName}, IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if expired {
		cert.NotAfter = time.Now().Add(-time.Minute)
	}
	server, err := miniredis.RunTLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{a.sign(cert, key)}, PrivateKey: key}}})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(server.Close)
	return "rediss://" + server.Addr()
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ping(t *testing.T, url, caCert string) error {
	t.Helper()
	options, err := stream.Options(url, caCert)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	return client.Ping(t.Context()).Err()
}

func TestAServerIsTrustedByItsAuthorityAndItsAddress(t *testing.T) {
	t.Parallel()
	loopback, elsewhere := net.IPv4(127, 0, 0, 1), net.IPv4(10, 1, 2, 3)
	for _, test := range []struct {
		name       string
		commonName string
		expired    bool
		addresses  []net.IP
		want       string // in the error; empty for none
	}{
		{"its address is an alternative name", "redis", false, []net.IP{elsewhere, loopback}, ""},
		{"its address is the common name of a certificate without alternatives", "127.0.0.1", false, nil, ""},
		{"another address is the common name", "10.1.2.3", false, nil, "127.0.0.1"},
		{"another address is the alternative name", "127.0.0.1", false, []net.IP{elsewhere}, "not 127.0.0.1"},
		{"the certificate is of yesterday", "127.0.0.1", true, nil, "expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			mine := newAuthority(t)
			err := ping(t, mine.redis(test.commonName, test.expired, test.addresses...), mine.pem)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Ping() = %v, want an error with %q in it, or none", err, test.want)
			}
		})
	}
}

func TestAServerOfAnotherAuthorityIsNotTrusted(t *testing.T) {
	t.Parallel()
	mine, other := newAuthority(t), newAuthority(t)
	for name, url := range map[string]string{
		"by its alternative name": other.redis("redis", false, net.IPv4(127, 0, 0, 1)),
		"by its common name":      other.redis("127.0.0.1", false),
	} {
		if err := ping(t, url, mine.pem); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: Ping() = %v, want its certificate refused", name, err)
		}
	}
}

func TestBothAuthoritiesOfARotationAreTrustedFromTextAndFromAFile(t *testing.T) {
	t.Parallel()
	old, next := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(old.pem+next.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{old.pem + next.pem, file} {
		for _, authority := range []*authority{old, next} {
			if err := ping(t, authority.redis("127.0.0.1", false), ca); err != nil {
				t.Errorf("Ping() = %v", err)
			}
		}
	}
}

func TestCertificatesThatCannotBeReadAreRefusedWithoutTheURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ url, ca string }{
		{"redis://:password@127.0.0.1:1", newAuthority(t).pem},
		{"rediss://:password@127.0.0.1:1", filepath.Join(t.TempDir(), "none.pem")},
		{"rediss://:password@127.0.0.1:1", "-----BEGIN CERTIFICATE-----"},
	} {
		if _, err := stream.Options(test.url, test.ca); err == nil || !strings.Contains(err.Error(), "REDIS_CA_CERT") || strings.Contains(err.Error(), "password") {
			t.Errorf("Options(…) = %v, want an error about REDIS_CA_CERT without the URL", err)
		}
	}
}
