package token

import (
	"context"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

// verifySignature proves that the issuer signed the token.
func (v *Verifier) verifySignature(ctx context.Context, a *attempt, ask asking) error {
	k, err := v.cfg.Keys.key(ctx, a.keyID, a.algorithm, ask)
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
