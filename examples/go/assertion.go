// Package upstream verifies the assertions that Caddy signs (keycloak_cache_auth, `assertion`).
package upstream

import (
	"context"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// User is who a request is from, as Caddy has asserted.
type User struct {
	Subject  string   `json:"sub"`
	Tenant   string   `json:"tenant"`
	MemberID string   `json:"member_id"`
	Roles    []string `json:"roles"`
}

// Errors of [Verifier.Verify]: 401 and 503.
var (
	ErrInvalid     = errors.New("not an assertion of our Caddy, not for us, or over")
	ErrUnavailable = errors.New("the keys of assertions cannot be had")
)

// Verifier has the settings of the Caddyfile, which are all required. It is safe for concurrent use.
type Verifier struct {
	Issuer, Audience, JWKSURL string

	keys keys
}

// Verify returns the user of an assertion.
func (v *Verifier) Verify(ctx context.Context, assertion string) (*User, error) {
	token, err := jwt.ParseSigned(assertion, []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256})
	if err != nil || v.Issuer == "" || token.Headers[0].ExtraHeaders[jose.HeaderType] != "kca-assertion+jwt" {
		return nil, ErrInvalid
	}
	key, err := v.keys.get(ctx, v.JWKSURL, token.Headers[0].KeyID)
	if err != nil {
		return nil, err
	}
	var claims jwt.Claims
	var user User
	if token.Claims(key, &claims, &user) != nil ||
		claims.Expiry == nil || claims.IssuedAt == nil || user.Subject == "" || user.Tenant == "" || user.MemberID == "" || user.Roles == nil ||
		claims.ValidateWithLeeway(jwt.Expected{Issuer: v.Issuer, AnyAudience: jwt.Audience{v.Audience}, Time: time.Now()}, 10*time.Second) != nil {
		return nil, ErrInvalid
	}
	return &user, nil
}
