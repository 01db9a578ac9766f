// Package clientauth shows to Keycloak which client asks, at its token endpoint as
// well as at its introspection endpoint: by a secret or by an assertion that is signed
// with a private key.
package clientauth

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// assertionLife is what Keycloak lets assertions live by default. Its tolerance for
// clocks that differ is 15 s.
const assertionLife = 60 * time.Second

// assertionType is the client_assertion_type of RFC 7523 §2.2.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Config says which client it is, and how it proves that.
type Config struct {
	// ClientID is the confidential client. Required.
	ClientID string

	// Secret proves the client by client_secret_basic, or, with SecretInBody, by
	// client_secret_post. Either it or PrivateKey is required.
	Secret       string
	SecretInBody bool

	// PrivateKey proves the client by private_key_jwt (RFC 7523): the content of a
	// PEM file (PKCS #8, PKCS #1, SEC 1) or a JWK; RSA of at least 2048 bits, P-256,
	// P-384, P-521 or Ed25519.
	PrivateKey string

	// Algorithm signs the assertions. Default: the JWK's own, else RS256 for RSA (others:
	// RS384, RS512, PS256, PS384, PS512); it follows from the key otherwise.
	Algorithm string

	// KeyID is the assertions' kid. Default: the JWK's own, else none, with which
	// Keycloak takes the client's key of the algorithm.
	KeyID string

	// Audience is the assertions': the realm's issuer. Required with PrivateKey.
	Audience string

	// Now is the clock. Required with PrivateKey.
	Now func() time.Time
}

// Credentials prove who asks.
type Credentials interface {
	// Add puts the proof into the form and header of one request. Its error quotes
	// nothing of it.
	Add(form url.Values, header http.Header) error
}

// New returns the credentials that cfg asks for. Its errors quote nothing of them.
func New(cfg Config) (Credentials, error) {
	switch {
	case cfg.ClientID == "":
		return nil, errors.New("client id: missing")
	case cfg.Secret == "" && cfg.PrivateKey == "":
		return nil, errors.New("client secret or private key: missing (a public client may not ask)")
	case cfg.Secret != "" && cfg.PrivateKey != "":
		return nil, errors.New("client secret and private key: give one of them")
	case cfg.PrivateKey == "" && (cfg.Algorithm != "" || cfg.KeyID != ""):
		return nil, errors.New("algorithm and key id: belong to a private key")
	case cfg.PrivateKey != "" && cfg.SecretInBody:
		return nil, errors.New("client_secret_post: needs a client secret")
	case cfg.PrivateKey != "":
		key, err := parseKey(cfg.PrivateKey, cfg.Algorithm, cfg.KeyID)
		if err != nil {
			return nil, fmt.Errorf("private key: %w", err)
		}
		return newAssertions(cfg, key)
	case cfg.SecretInBody:
		return bodySecret{cfg.ClientID, cfg.Secret}, nil
	}
	return basicSecret(cfg.ClientID, cfg.Secret), nil
}

// basicAuth is client_secret_basic: the value of the Authorization field.
type basicAuth string

// basicSecret encodes id and secret as forms are before it puts them together (RFC
// 6749 §2.3.1), which other users of HTTP Basic do not.
func basicSecret(id, secret string) basicAuth {
	pair := url.QueryEscape(id) + ":" + url.QueryEscape(secret)
	return basicAuth("Basic " + base64.StdEncoding.EncodeToString([]byte(pair)))
}

// Add implements [Credentials].
func (b basicAuth) Add(_ url.Values, header http.Header) error {
	header.Set("Authorization", string(b))
	return nil
}

// bodySecret is client_secret_post.
type bodySecret struct{ id, secret string }

// Add implements [Credentials].
func (b bodySecret) Add(form url.Values, _ http.Header) error {
	form.Set("client_id", b.id)
	form.Set("client_secret", b.secret)
	return nil
}

// assertions is private_key_jwt (RFC 7523 §2.2 and §3).
type assertions struct {
	clientID, audience string
	signer             jose.Signer
	now                func() time.Time
}

func newAssertions(cfg Config, key signingKey) (*assertions, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: key.algorithm, Key: jose.JSONWebKey{Key: key.key, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, errors.New("private key: cannot sign") // err is not known to be free of it
	}
	return &assertions{cfg.ClientID, cfg.Audience, signer, cfg.Now}, nil
}

// assertion is the payload. Its audience is one string, the issuer: all versions of
// Keycloak take that, those since 26.2 no longer a list of several, and OpenID
// Connect Core (with the errata of 2025) allows nothing else.
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	ID       string `json:"jti"` // new each time: Keycloak takes none twice
	IssuedAt int64  `json:"iat"` // seconds since 1970
	Expiry   int64  `json:"exp"`
}

// Add implements [Credentials].
func (a *assertions) Add(form url.Values, _ http.Header) error {
	now := a.now()
	signed, err := jwt.Signed(a.signer).Claims(assertion{
		Issuer: a.clientID, Subject: a.clientID, Audience: a.audience, ID: rand.Text(),
		IssuedAt: now.Unix(), Expiry: now.Add(assertionLife).Unix(),
	}).Serialize()
	if err != nil {
		return errors.New("signing the client assertion failed") // as above
	}
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", signed)
	return nil
}
