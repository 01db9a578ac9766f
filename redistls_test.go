package keycloakcacheauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
)

// authority signs certificates, and has files for all of them.
type authority struct {
	t           *testing.T
	dir         string
	file        string // its own certificate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.certificate = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.file, _, a.key = a.issue("authority", a.certificate, nil)
	return a
}

// leaf returns the files of a certificate for a name, and of its key.
func (a *authority) leaf(name string) (certificateFile, keyFile string) {
	a.t.Helper()
	certificateFile, keyFile, _ = a.issue(name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.key)
	return certificateFile, keyFile
}

// issue signs with a key of the authority, or with the new one if there is none.
func (a *authority) issue(name string, template *x509.Certificate, signer *ecdsa.PrivateKey) (certificateFile, keyFile string, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certificateFile, keyFile = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certificateFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return certificateFile, keyFile, key
}

func (a *authority) pool() []byte {
	return []byte(`{"provider":"file","pem_files":["` + filepath.ToSlash(a.file) + `"]}`)
}

// A Redis that shows another certificate than was asked for gets nothing, not
// even the name of a member, and one that does not know this server gives
// nothing: both are as if it were down, and requests keep their right answers.
func TestRedisOverTLSWithAPrivateAuthority(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	const name = "redis.internal" // the address is not in the certificate
	certificate, key := ours.leaf(name)
	client, clientKey := ours.leaf("caddy.internal")
	stranger, strangerKey := others.leaf("caddy.internal")
	server := servers.Redis(t, servers.RedisTLS(certificate, key, ours.file))

	tests := map[string]struct {
		change func(*Store)
		works  bool
	}{
		"authority, name and client certificate are right": {func(*Store) {}, true},
		"another authority":                   {func(s *Store) { s.TrustPoolRaw = others.pool() }, false},
		"the system's authorities":            {func(s *Store) { s.TrustPoolRaw = nil }, false},
		"no client certificate":               {func(s *Store) { s.ClientCertificateFile, s.ClientKeyFile = "", "" }, false},
		"a client certificate of a stranger":  {func(s *Store) { s.ClientCertificateFile, s.ClientKeyFile = stranger, strangerKey }, false},
		"another name":                        {func(s *Store) { s.ServerName = "redis.example.com" }, false},
		"no name, and the address is not one": {func(s *Store) { s.ServerName = "" }, false},
		"no TLS":                              {func(s *Store) { *s = Store{URL: "redis://" + server.TLSAddr} }, false},
	}
	for what, test := range tests {
		t.Run(what, func(t *testing.T) {
			server.Command(t, "FLUSHALL")
			settings := &Store{
				URL: "rediss://" + server.TLSAddr, TrustPoolRaw: ours.pool(), ServerName: name,
				ClientCertificateFile: client, ClientKeyFile: clientKey, Timeout: caddy.Duration(5 * time.Second),
			}
			test.change(settings)
			s := newSite(t)
			h, _ := load(t, s.config(func(h *Handler) { h.Stores = []*Store{settings} }))
			cached := h.members.stores.common
			cached.begin()
			waitFor(t, "the store knows how it is with Redis", func() bool {
				stats := cached.Stats()
				return stats.Redis == store.Down || stats.Log.State == store.LogFollowed
			})

			if a := send(t, h, bearer(s.token("alice"), "t1")); a.status != 0 || a.request.Get("X-Member-Id") != "m-alice-1" {
				t.Errorf("the request got %d, %v", a.status, a.err)
			}
			_, err := cached.Flush(t.Context(), store.Scope{Tenant: "t2"}, nil)
			keys := server.Command(t, "KEYS", "*")
			if test.works {
				if err != nil || !strings.Contains(keys, "kca:3:t1:m:") || cached.Stats().Redis != store.Up {
					t.Errorf("it is not used: %q, %v, %v", keys, cached.Stats().Redis, err)
				}
				return
			}
			if !errors.Is(err, store.ErrUnavailable) || keys != "" || cached.Stats().Redis != store.Down {
				t.Errorf("it was used: %q, %v, %v", keys, cached.Stats().Redis, err)
			}
		})
	}
}
