// Package oracle compares our verifier with a strict one made of another library, and
// with go-oidc's, over tokens that were changed at random.
//
// It is a module of its own, so that other libraries are nobody else's dependency. To
// run it, from the root of the repository:
//
//	go test -C test/oracle .
//	go test -C test/oracle . -args -mutations 200000 -seed 7
package oracle

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

const (
	issuer   = "https://kc.test/realms/acme"
	audience = "api"
	lifetime = 24 * time.Hour
)

// oracle is jwx with every check switched on that it has, and by hand those it cannot
// have: what an access token of Keycloak is.
type oracle struct {
	keys jwk.Set
	now  time.Time
}

// plain is go-oidc's verifier, as who uses it sets it up. It takes more than a resource
// server should; what it refuses nobody should take.
func plain(keys []crypto.PublicKey, now time.Time) *oidc.IDTokenVerifier {
	return oidc.NewVerifier(issuer, &oidc.StaticKeySet{PublicKeys: keys}, &oidc.Config{
		ClientID:             audience,
		SupportedSigningAlgs: []string{"RS256", "PS256", "ES256", "EdDSA"},
		Now:                  func() time.Time { return now },
	})
}

// agrees tells whether go-oidc takes a token that we do. It does not know the name that
// RFC 9864 gives to EdDSA.
func agrees(ctx context.Context, theirs *oidc.IDTokenVerifier, raw string, ours *token.Token) error {
	if ours.Algorithm == "Ed25519" {
		return nil
	}
	said, err := theirs.Verify(ctx, raw)
	switch {
	case err != nil:
		return err
	case said.Subject != ours.Subject || said.Issuer != ours.Issuer || !said.Expiry.Equal(ours.Expiry):
		return errors.New("go-oidc reads another iss, sub or exp")
	}
	return nil
}

func (o *oracle) verify(raw string) error {
	if strings.Count(raw, ".") != 2 || strings.HasPrefix(raw, "{") {
		return errors.New("not compact")
	}
	message, err := jws.Parse([]byte(raw), jws.WithCompact())
	if err != nil {
		return err
	}
	if len(message.Signatures()) != 1 {
		return errors.New("not one signature")
	}
	header := message.Signatures()[0].ProtectedHeaders()
	typ, _ := header.Type()
	if !slices.Contains([]string{"jwt", "at+jwt", "application/at+jwt"}, strings.ToLower(typ)) {
		return errors.New("header typ")
	}
	for _, name := range []string{"crit", "b64"} {
		if header.Has(name) {
			return errors.New("header " + name)
		}
	}
	alg, ok := header.Algorithm()
	if !ok || !slices.Contains([]string{"RS256", "PS256", "ES256", "EdDSA", "Ed25519"}, alg.String()) {
		return errors.New("alg")
	}
	tok, err := jwt.Parse([]byte(raw),
		jwt.WithKeySet(o.keys, jws.WithRequireKid(true)),
		jwt.WithPedantic(true),
		jwt.WithStrictStringClaims(true),
		jwt.WithValidate(true),
		jwt.WithClock(jwt.ClockFunc(func() time.Time { return o.now })),
		jwt.WithAcceptableSkew(0),
		jwt.WithIssuer(issuer),
		jwt.WithAudience(audience),
		jwt.WithRequiredClaim("exp"),
		jwt.WithRequiredClaim("iat"),
		jwt.WithClaimValue("typ", "Bearer"),
		jwt.WithMaxDelta(lifetime, "exp", "iat"),
	)
	if err != nil {
		return err
	}
	if sub, ok := tok.Subject(); !ok || strings.TrimSpace(sub) == "" || len(sub) > 255 {
		return errors.New("sub")
	}
	if tok.Has("cnf") {
		return errors.New("cnf")
	}
	return o.standard(message.Payload())
}

// standard reads the claims once more as most applications do. Where it and jwx see
// different users, whoever accepts the token has chosen one of them.
func (o *oracle) standard(payload []byte) error {
	var claims struct {
		Subject *string  `json:"sub"`
		Issuer  string   `json:"iss"`
		Type    string   `json:"typ"`
		Expiry  *float64 `json:"exp"`
		Party   string   `json:"azp"`
		Scope   string   `json:"scope"`
		Session string   `json:"sid"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	if claims.Subject == nil || claims.Issuer != issuer || claims.Type != "Bearer" || claims.Expiry == nil {
		return errors.New("the standard library reads other claims")
	}
	return nil
}
