package keycloakcacheauth

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// tlsIdentity is whom this server trusts, and who it says it is, where it
// connects to over TLS. Its exported part tells one from another.
type tlsIdentity struct {
	TrustPool          json.RawMessage
	TrustedAuthorities [][]byte
	Certificate, Key   []byte

	tls *tls.Config
}

// newTLSIdentity reads what is configured: a trust pool, in the field
// TrustPoolRaw of the owner, and the files of a certificate and its key. All of
// it may be missing.
func newTLSIdentity(ctx caddy.Context, owner any, trustPool json.RawMessage, certificateFile, keyFile string) (tlsIdentity, error) {
	id := tlsIdentity{TrustPool: trustPool, tls: &tls.Config{MinVersion: tls.VersionTLS12}}
	if trustPool != nil {
		mod, err := ctx.LoadModule(owner, "TrustPoolRaw")
		if err != nil {
			return tlsIdentity{}, fmt.Errorf("trust_pool: %w", err)
		}
		authority, ok := mod.(caddytls.CA)
		if !ok {
			return tlsIdentity{}, fmt.Errorf("trust_pool: %T is no source of certificate authorities", mod)
		}
		id.tls.RootCAs = authority.CertPool()
		id.TrustedAuthorities = certificatesOf(authority)
	}
	if certificateFile != "" {
		var err error
		if id.Certificate, err = os.ReadFile(certificateFile); err != nil {
			return tlsIdentity{}, fmt.Errorf("client_certificate: %w", err)
		}
		if id.Key, err = os.ReadFile(keyFile); err != nil {
			return tlsIdentity{}, fmt.Errorf("client_certificate: %w", err)
		}
		pair, err := tls.X509KeyPair(id.Certificate, id.Key)
		if err != nil {
			return tlsIdentity{}, fmt.Errorf("client_certificate: %w", err)
		}
		id.tls.Certificates = []tls.Certificate{pair}
	}
	return id, nil
}

// certificatesOf returns what tells one pool of authorities from another, where
// the pool can say: a changed file under the same name then makes new clients.
func certificatesOf(authority caddytls.CA) [][]byte {
	provider, ok := authority.(caddytls.CertificateProvider)
	if !ok {
		return nil
	}
	var raw [][]byte
	for _, certificate := range provider.Certificates() {
		raw = append(raw, certificate.Raw)
	}
	return raw
}
