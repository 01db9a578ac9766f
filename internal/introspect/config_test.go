package introspect

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	good := pemOf(t, mustP256(t))
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no client id":                    {func(c *Config) { c.ClientID = "" }, "client id"},
		"neither secret nor key":          {func(c *Config) { c.ClientSecret = "" }, "missing"},
		"secret and key":                  {func(c *Config) { c.PrivateKey = good }, "one of them"},
		"a key in the body":               {func(c *Config) { c.ClientSecret, c.PrivateKey, c.SecretInBody = "", good, true }, "client_secret_post"},
		"an algorithm without key":        {func(c *Config) { c.Algorithm = "RS256" }, "private key"},
		"a key id without key":            {func(c *Config) { c.KeyID = "a" }, "private key"},
		"a negative time-out":             {func(c *Config) { c.Timeout = -time.Second }, "negative"},
		"a negative number of calls":      {func(c *Config) { c.MaxConcurrent = -1 }, "negative"},
		"no issuer":                       {func(c *Config) { c.Issuer = "" }, "issuer"},
		"an issuer with a password":       {func(c *Config) { c.Issuer = "https://a:the-secret@b.example/" }, "issuer: a URL with user"},
		"an issuer with a query":          {func(c *Config) { c.Issuer = "https://b.example/?a" }, "query"},
		"an endpoint that is none":        {func(c *Config) { c.Endpoint = "https://the-secret\x7f" }, "endpoint: not a URL"},
		"an endpoint with fragment":       {func(c *Config) { c.Endpoint = "https://b.example/#a" }, "fragment"},
		"an endpoint of another scheme":   {func(c *Config) { c.Endpoint = "ftp://b.example/" }, "https or http"},
		"an endpoint without host":        {func(c *Config) { c.Endpoint = "https:///introspect" }, "without host"},
		"a back channel that is no URL":   {func(c *Config) { c.BackchannelURL = "://" }, "backchannel url"},
		"a back channel that has a query": {func(c *Config) { c.BackchannelURL = "https://b.example/?a" }, "query"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Issuer: "https://a.example/realms/acme", ClientID: "proxy", ClientSecret: "the-secret"}
			if _, err := New(cfg); err != nil {
				t.Fatal(err)
			}
			test.change(&cfg)
			_, err := New(cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "the-secret") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPrivateKeysThatAreRefused(t *testing.T) {
	rsaKey, p256, p521, edKey := newKeys(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(p256.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := func(name string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}))
	}
	otherPublic := append(append(ed25519.PrivateKey{}, edKey.Seed()...), ed25519.NewKeyFromSeed(make([]byte, 32))[32:]...)
	otherPoint := *p256
	otherPoint.PublicKey = mustP256(t).PublicKey
	for name, test := range map[string]struct{ content, algorithm, want string }{
		"nothing of a key":             {"the-secret", "", "neither"},
		"an RSA key of 1024 bits":      {pemOf(t, weak), "", "2048"},
		"a P-224 key":                  {pemOf(t, p224), "", "P-256"},
		"a public key":                 {block("PUBLIC KEY", public), "", "neither"},
		"an encrypted key":             {block("ENCRYPTED PRIVATE KEY", []byte("x")), "", "encrypted"},
		"a broken key":                 {block("PRIVATE KEY", []byte("the-secret")), "", "broken"},
		"an algorithm of another key":  {pemOf(t, p256), "RS256", "ES256"},
		"an algorithm of another size": {pemOf(t, p521), "ES256", "ES512"},
		"an HMAC":                      {pemOf(t, rsaKey), "HS256", "RS256"},
		"none":                         {pemOf(t, edKey), "none", "EdDSA"},
		"a symmetric JWK":              {`{"kty":"oct","k":"dGhlLXNlY3JldA"}`, "HS256", "not a valid JWK"},
		"a public JWK":                 {marshal(t, jose.JSONWebKey{Key: edKey.Public()}), "", "not a private key"},
		"a JWK set":                    {jwksOf(t, jose.JSONWebKey{Key: edKey}), "", "set"},
		"a JWK for encryption":         {marshal(t, jose.JSONWebKey{Key: rsaKey, Use: "enc"}), "", "use"},
		"a JWK with a repeated name":   {strings.Replace(marshal(t, jose.JSONWebKey{Key: edKey, KeyID: "a"}), "{", `{"kid":"b",`, 1), "", "unambiguous"},
		"a JWK that is not JSON":       {`{"the-secret"`, "", "JSON"},
		"a JWK of a strange type":      {`{"kty":"the-secret"}`, "", "valid"},
		"an Ed25519 JWK of two keys":   {marshal(t, jose.JSONWebKey{Key: otherPublic}), "", "another"},
		"a P-256 JWK of two keys":      {marshal(t, jose.JSONWebKey{Key: &otherPoint}), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{
				Issuer: "https://a.example/realms/acme", ClientID: "proxy", PrivateKey: test.content, Algorithm: test.algorithm,
			})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "private key: ") ||
				strings.Contains(err.Error(), "the-secret") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPrivateKeysInOlderForms(t *testing.T) {
	rsaKey, p256, _, _ := newKeys(t)
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"PKCS #1": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})),
		// as `openssl ecparam -genkey` writes it
		"SEC 1 after its parameters": "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
			string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(Config{Issuer: "https://a.example/", ClientID: "proxy", PrivateKey: content}); err != nil {
				t.Error(err)
			}
		})
	}
}

func mustP256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
