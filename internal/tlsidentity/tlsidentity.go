// Package tlsidentity is whom this server trusts, and who it says it is, where it
// connects to others over TLS.
package tlsidentity

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// Identity is made of the settings `trust_pool` and `client_certificate`. Its exported
// part tells one from another: as JSON it is fit for the key of a pool, and holds a
// secret.
type Identity struct {
	TrustPool        json.RawMessage
	Authorities      [][]byte // of the pool, where it can say: a changed file under the same name is another identity
	Certificate, Key []byte

	tls *tls.Config
}

// New reads what is configured: a trust pool, in the field TrustPoolRaw of the owner,
// whose text is trustPool; nil stands for the system's authorities. And the files of a
// certificate and its key, both or none.
func New(ctx caddy.Context, owner any, trustPool json.RawMessage, certificateFile, keyFile string) (Identity, error) {
	id := Identity{TrustPool: trustPool, tls: &tls.Config{MinVersion: tls.VersionTLS12}}
	if trustPool != nil {
		mod, err := ctx.LoadModule(owner, "TrustPoolRaw")
		if err != nil {
			return Identity{}, fmt.Errorf("trust_pool: %w", err)
		}
		authority, ok := mod.(caddytls.CA)
		if !ok {
			return Identity{}, fmt.Errorf("trust_pool: %T is no source of certificate authorities", mod)
		}
		id.tls.RootCAs = authority.CertPool()
		if provider, ok := authority.(caddytls.CertificateProvider); ok {
			for _, certificate := range provider.Certificates() {
				id.Authorities = append(id.Authorities, certificate.Raw)
			}
		}
	}
	if err := id.readCertificate(certificateFile, keyFile); err != nil {
		return Identity{}, fmt.Errorf("client_certificate: %w", err)
	}
	return id, nil
}

func (id *Identity) readCertificate(certificateFile, keyFile string) error {
	switch {
	case certificateFile == "" && keyFile == "":
		return nil
	case certificateFile == "" || keyFile == "":
		return errors.New("give two files, the certificate's and its key's")
	}
	var err error
	if id.Certificate, err = ReadFile(certificateFile); err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	if id.Key, err = ReadFile(keyFile); err != nil {
		return fmt.Errorf("its key: %w", err)
	}
	pair, err := tls.X509KeyPair(id.Certificate, id.Key)
	if err != nil {
		return err
	}
	id.tls.Certificates = []tls.Certificate{pair}
	return nil
}

// Config returns a configuration of the caller's own.
func (id Identity) Config() *tls.Config { return id.tls.Clone() }

// ReadFile reads a file whose path may come from a placeholder. The error does not
// repeat the path: it may be the secret itself, given where its path belongs.
func ReadFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("give the path of a file that can be read, not what it holds: %w", failed.Err)
	}
	return text, err
}
