package token

import (
	"context"
	"errors"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

// attemptKey is where the context of go-oidc's verifier holds our attempt.
type attemptKey struct{}

// signatures is the key set go-oidc's verifier is given. What it verifies comes
// with the context, since it has been parsed, more strictly, before; and there it
// leaves its errors, because go-oidc keeps only their text.
type signatures struct{}

var _ oidc.KeySet = signatures{}

var errNoAttempt = errors.New("no parsed token in the context")

// VerifySignature returns the payload of the token in the context, once its
// signature is proven.
func (signatures) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok || a.raw != raw {
		return nil, errNoAttempt
	}
	if a.err = a.verifySignature(ctx); a.err != nil {
		return nil, a.err
	}
	return a.payload.raw, nil
}

func (a *attempt) verifySignature(ctx context.Context) error {
	k, err := a.keys.key(ctx, a.keyID, a.algorithm, a.ask)
	if err != nil {
		return err
	}
	alg, ok := jws.Named(a.algorithm)
	if !ok || !alg.Verify(k.public, bytesOf(a.signed), a.signature) {
		return refuse(ReasonSignature, "")
	}
	a.key = k
	return nil
}
