package introspect

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

// credentials prove who asks.
type credentials interface {
	add(form url.Values, header http.Header) error
}

func newCredentials(cfg Config) (credentials, error) {
	switch {
	case cfg.ClientID == "":
		return nil, errors.New("client id: missing")
	case cfg.ClientSecret == "" && cfg.PrivateKey == "":
		return nil, errors.New("client secret or private key: missing (a public client may not introspect)")
	case cfg.ClientSecret != "" && cfg.PrivateKey != "":
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
		return bodySecret{cfg.ClientID, cfg.ClientSecret}, nil
	}
	return basicSecret(cfg.ClientID, cfg.ClientSecret), nil
}

// basicAuth is client_secret_basic: the value of the Authorization field.
type basicAuth string

// basicSecret encodes id and secret as forms are before it puts them together (RFC
// 6749 §2.3.1), which other users of HTTP Basic do not.
func basicSecret(id, secret string) basicAuth {
	pair := url.QueryEscape(id) + ":" + url.QueryEscape(secret)
	return basicAuth("Basic " + base64.StdEncoding.EncodeToString([]byte(pair)))
}

func (b basicAuth) add(_ url.Values, header http.Header) error {
	header.Set("Authorization", string(b))
	return nil
}

// bodySecret is client_secret_post.
type bodySecret struct{ id, secret string }

func (b bodySecret) add(form url.Values, _ http.Header) error {
	form.Set("client_id", b.id)
	form.Set("client_secret", b.secret)
	return nil
}

// assertions is private_key_jwt (RFC 7523 §2.2 and §3).
type assertions struct {
	clientID, issuer string
	signer           jose.Signer
	now              func() time.Time
}

func newAssertions(cfg Config, key signingKey) (*assertions, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: key.algorithm, Key: jose.JSONWebKey{Key: key.key, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, errors.New("private key: cannot sign") // err is not known to be free of it
	}
	return &assertions{cfg.ClientID, cfg.Issuer, signer, cfg.Now}, nil
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

func (a *assertions) add(form url.Values, _ http.Header) error {
	now := a.now()
	signed, err := jwt.Signed(a.signer).Claims(assertion{
		Issuer: a.clientID, Subject: a.clientID, Audience: a.issuer, ID: rand.Text(),
		IssuedAt: now.Unix(), Expiry: now.Add(assertionLife).Unix(),
	}).Serialize()
	if err != nil {
		return errors.New("signing the client assertion failed") // as above
	}
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", signed)
	return nil
}
