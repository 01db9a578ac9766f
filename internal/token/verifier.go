package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

const (
	defaultMaxSize     = 16 << 10
	defaultMaxLifetime = 24 * time.Hour
)

// Config says which tokens a [Verifier] accepts.
type Config struct {
	// Issuer is compared byte for byte with iss. Required.
	Issuer string

	// Keys are the issuer's. Required.
	Keys *KeySet

	// Audiences, of which one must be in aud. Empty: aud is not looked at, and a
	// token made for any other service of the realm is accepted here.
	Audiences []string

	// AuthorizedParties are the clients a token may have been issued to (azp).
	// Empty: any.
	AuthorizedParties []string

	// Bound are the ways of being bound to a key of the sender that the caller
	// verifies, by [Token.Confirmation], for each token that is accepted. Tokens
	// bound in any other way are refused. Default: none.
	Bound Binding

	// Introspection is asked about lightweight and opaque tokens. Nil: they are
	// refused. Only for a single issuer.
	Introspection *Introspection

	// Algorithms that may sign: RS, PS and ES with 256, 384 and 512, and EdDSA,
	// also called Ed25519. Default: [jws.DefaultAlgorithms].
	Algorithms []string

	// Leeway is how far clocks may be apart, for exp, nbf and iat. Default: none.
	Leeway time.Duration

	// MaxLifetime bounds exp − iat. Default: 24 h.
	MaxLifetime time.Duration

	// MaxSize of a token, in bytes. Default: 16 KiB.
	MaxSize int

	// Now is the clock. Default: [time.Now].
	Now func() time.Time

	// Observer learns of key fetches this verifier causes. May be nil.
	Observer Observer
}

// Verifier verifies one issuer's access tokens. It is safe for concurrent use.
type Verifier struct {
	cfg Config
	limits
}

// New returns a verifier. It does no network I/O: keys are fetched when a token
// needs them.
func New(cfg Config) (*Verifier, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("issuer: missing")
	case cfg.Keys == nil:
		return nil, errors.New("keys: missing")
	case cfg.Keys.Issuer() != cfg.Issuer:
		return nil, fmt.Errorf("keys: are those of %q, not of %q", cfg.Keys.Issuer(), cfg.Issuer)
	case cfg.Introspection != nil && cfg.Introspection.cfg.Issuer != cfg.Issuer:
		return nil, fmt.Errorf("introspection: is that of %q, not of %q", cfg.Introspection.cfg.Issuer, cfg.Issuer)
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return newVerifier(cfg), nil
}

// complete checks what all verifiers need, and fills in the defaults.
func (cfg *Config) complete() error {
	switch {
	case cfg.Leeway < 0:
		return errors.New("leeway: negative")
	case cfg.MaxLifetime < 0:
		return errors.New("max lifetime: negative")
	case cfg.Bound&^(BindingDPoP|BindingMTLS) != 0:
		return errors.New("bound: neither DPoP nor mTLS")
	case cfg.MaxSize < 0:
		return errors.New("max size: negative")
	case slices.Contains(cfg.Audiences, ""):
		return errors.New("audiences: one is empty")
	case slices.Contains(cfg.AuthorizedParties, ""):
		return errors.New("authorized parties: one is empty")
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = jws.DefaultAlgorithms()
	}
	for _, name := range cfg.Algorithms {
		if _, ok := jws.Named(name); !ok {
			return fmt.Errorf("algorithms: %q is none that may sign; "+
				"RS, PS and ES with 256, 384 or 512, and EdDSA, are", name)
		}
	}
	cfg.MaxLifetime = cmp.Or(cfg.MaxLifetime, defaultMaxLifetime)
	cfg.MaxSize = cmp.Or(cfg.MaxSize, defaultMaxSize)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return nil
}

func newVerifier(cfg Config) *Verifier {
	return &Verifier{cfg: cfg, limits: limits{
		maxSize:    cfg.MaxSize,
		algorithms: jws.WithAliases(cfg.Algorithms),
		configured: cfg.Algorithms,
	}}
}

// Verify returns what raw says, if it is a token to be accepted now. The error is
// an [*Error], unless ctx ended while keys were awaited: then it is ctx.Err().
func (v *Verifier) Verify(ctx context.Context, raw string) (*Token, error) {
	tok, err := v.Authenticate(ctx, raw)
	if err != nil {
		return nil, err
	}
	if err := v.Check(ctx, tok); err != nil {
		return nil, err
	}
	return tok, nil
}

// Authenticate returns what raw says, if the issuer signed it as an access token.
// That holds for ever; whether the token is good now, and here, is for
// [Verifier.Check] to say. Its result may be shared and remembered.
func (v *Verifier) Authenticate(ctx context.Context, raw string) (*Token, error) {
	if v.cfg.Introspection != nil && isOpaque(raw) {
		return v.opaque(ctx, raw)
	}
	attempt, err := v.parse(raw)
	if err != nil {
		return nil, err
	}
	if issuer, ok := attempt.payload.text("iss"); !ok || issuer != v.cfg.Issuer {
		return nil, refuse(ReasonIssuer, issuerHint(issuer, ok, v.cfg.Issuer))
	}
	if err := v.screen(attempt); err != nil {
		return nil, err
	}
	return v.prove(ctx, attempt, v.asking())
}

// screen refuses what needs no key to be refused, its issuer apart.
func (v *Verifier) screen(a *attempt) error {
	if err := v.peek(&a.payload); err != nil {
		return err
	}
	if err := checkHeaderType(a.headerType); err != nil {
		return err
	}
	return v.checkNotExpired(a.payload.expiry, v.cfg.Now())
}

// prove verifies the signature and reads the claims, or asks for them.
func (v *Verifier) prove(ctx context.Context, a *attempt, ask asking) (*Token, error) {
	if err := v.verifySignature(ctx, a, ask); err != nil {
		return nil, err
	}
	light := v.cfg.Introspection != nil && a.payload.isLightweight(v.cfg.Audiences)
	tok, err := newToken(&a.payload, light)
	if err != nil {
		return nil, err
	}
	if err := a.payload.checkUnused(); err != nil {
		return nil, err
	}
	if tok.Issuer == v.cfg.Issuer {
		tok.Issuer = v.cfg.Issuer // one text for all tokens, which is soon compared with itself
	}
	tok.KeyID, tok.Algorithm, tok.key = a.keyID, a.algorithm, a.key
	if light {
		return v.inflate(ctx, a.raw, tok)
	}
	return tok, nil
}

func (v *Verifier) asking() asking { return asking{observer: v.cfg.Observer} }

// Check reports whether tok, authenticated before, is to be accepted now: within
// its time, signed with an accepted algorithm by a key that is still the issuer's,
// meant for one of the audiences, issued to one of the authorized parties, and bound
// to its sender, if at all, in a way that is verified. It is
// cheap, and has to be asked on each request. The token may have been authenticated
// by another verifier. What it is bound to is still for the caller to verify.
func (v *Verifier) Check(ctx context.Context, tok *Token) error {
	return v.check(ctx, tok, v.asking())
}

func (v *Verifier) check(ctx context.Context, tok *Token, ask asking) error {
	if tok.Issuer != v.cfg.Issuer { // remembered under another configuration
		return refuse(ReasonIssuer, "")
	}
	if tok.source != nil && tok.source != v.cfg.Introspection {
		return refuse(ReasonMissingClaim, "the token's claims are an answer to another configuration")
	}
	opaque := tok.source != nil && tok.key == nil
	if !opaque {
		if err := v.admitAlgorithm(tok.Algorithm); err != nil {
			return err
		}
	}
	if err := v.admitBinding(tok.Confirmation); err != nil {
		return err
	}
	if err := v.checkTimes(tok); err != nil {
		return err
	}
	if !opaque {
		if err := v.cfg.Keys.stillTrusted(ctx, tok.key, tok.Algorithm, ask); err != nil {
			return err
		}
	}
	return v.checkPolicy(tok)
}
