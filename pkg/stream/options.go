package stream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options returns the options of a Redis client for url (redis:// or rediss://)
// that trusts caCert, the text of one or more PEM certificates or the path of a
// file with them; empty trusts the system's. No text that it returns holds the
// URL, since that holds the password.
//
// The client sends none of the commands that Memorystore blocks (FACTS, Redis):
// no CLIENT SETINFO, no CLIENT MAINT_NOTIFICATIONS. It doesn't repeat commands
// after a lost reply by itself: who called knows whether that is safe.
func Options(url, caCert string) (*redis.Options, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("REDIS_URL is not a Redis URL: want redis://[user:password@]host:port[/db], or rediss:// for TLS")
	}
	opts.DisableIdentity = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	opts.MaxRetries = -1
	opts.DialerRetries = 1
	opts.ContextTimeoutEnabled = true
	opts.DialTimeout = 5 * time.Second
	opts.ReadTimeout = 5 * time.Second
	opts.WriteTimeout = 5 * time.Second
	if caCert == "" {
		return opts, nil
	}
	if opts.TLSConfig == nil {
		return nil, errors.New("REDIS_CA_CERT is set but REDIS_URL does not begin with rediss://, so that nothing would be encrypted: use rediss:// or unset REDIS_CA_CERT")
	}
	roots, err := certificates(caCert)
	if err != nil {
		return nil, err
	}
	opts.TLSConfig.MinVersion = tls.VersionTLS12
	opts.TLSConfig.RootCAs = roots
	opts.TLSConfig.InsecureSkipVerify = true // verifyServer does it instead
	opts.TLSConfig.VerifyConnection = verifyServer(roots, opts.TLSConfig.ServerName)
	return opts, nil
}

// verifyServer verifies a server as package tls does, but for one thing: a certificate
// that has no alternative name at all is taken for the host that its common name is.
// Memorystore's certificates name the instance's address there, and nobody but the
// instance has one of its authority.
func verifyServer(roots *x509.CertPool, host string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		cert := state.PeerCertificates[0]
		intermediates := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			intermediates.AddCert(c)
		}
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
		if err == nil && (!namesNothing(cert) || cert.Subject.CommonName != host) {
			err = cert.VerifyHostname(host)
		}
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		return nil
	}
}

func namesNothing(cert *x509.Certificate) bool {
	return len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses)+len(cert.URIs) == 0
}

// certificates reads PEM certificates from a text, or from the file it names.
func certificates(textOrPath string) (*x509.CertPool, error) {
	text := []byte(textOrPath)
	if !strings.Contains(textOrPath, "-----BEGIN") {
		var err error
		if text, err = os.ReadFile(textOrPath); err != nil {
			return nil, fmt.Errorf("REDIS_CA_CERT is neither PEM text nor a file that can be read: %w", err)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("REDIS_CA_CERT holds no PEM certificate")
	}
	return pool, nil
}
