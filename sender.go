package keycloakcacheauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/dpop"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// senderRule tells whether a token is shown by whom it was made for.
type senderRule struct {
	proofs   *dpop.Verifier // nil if proofs are not verified
	nonces   *dpop.Nonce    // nil if proofs need none
	origins  []string       // under which clients know this site; none for the request's own
	required bool           // tokens have to be bound to a key
}

// newSenderRule makes the configured rule ready. Proofs are remembered in the
// members' store, by all nodes that share it.
func newSenderRule(h *Handler, repl *caddy.Replacer) (senderRule, error) {
	var rule senderRule
	if !h.DPoP.isOn() {
		return rule, nil
	}
	rule.required = h.DPoP.Mode == dpopRequired
	var err error
	if rule.origins, err = expandAll(repl, h.DPoP.Origins); err != nil {
		return rule, fmt.Errorf("dpop: origin: %w", err)
	}
	if len(rule.origins) == 0 && h.Resource != "" {
		resource, err := repl.ReplaceOrErr(h.Resource, true, true)
		if err != nil {
			return rule, fmt.Errorf("resource: %w", err)
		}
		if u, err := url.Parse(resource); err == nil {
			rule.origins = []string{u.Scheme + "://" + u.Host}
		}
	}
	for _, origin := range rule.origins {
		if err := checkOrigin(origin); err != nil {
			return rule, fmt.Errorf("dpop: origin: %w", err)
		}
	}
	if h.DPoP.Nonce {
		if rule.nonces, err = newNonces(h.DPoP.NonceSecret, repl); err != nil {
			return rule, fmt.Errorf("dpop: nonce: %w", err)
		}
	}
	rule.proofs, err = dpop.New(dpop.Config{
		Algorithms: h.Algorithms,
		Window:     orDefault(h.DPoP.MaxAge, defaultProofAge),
		Leeway:     h.leeway(),
		MaxSize:    maxProofSize,
		Replay:     proofMemory{h.members},
		Nonce:      rule.nonces,
	})
	return rule, err
}

func newNonces(secret string, repl *caddy.Replacer) (*dpop.Nonce, error) {
	expanded, err := repl.ReplaceOrErr(secret, true, true)
	switch {
	case err != nil:
		return nil, err
	case expanded == "":
		expanded = rand.Text() + rand.Text()
	case len(expanded) < minNonceSecret:
		return nil, fmt.Errorf("the secret is shorter than %d bytes; make one with `openssl rand -base64 32`", minNonceSecret)
	}
	return dpop.NewNonce(dpop.NonceConfig{Secret: []byte(expanded)})
}

// verifies says which bound tokens may come so far that [senderRule.check] is
// asked about them.
func (s *senderRule) verifies() token.Binding {
	if s.proofs == nil {
		return token.BindingMTLS
	}
	return token.BindingMTLS | token.BindingDPoP
}

// check returns "" if the token may be used by whoever sent the request. One
// that is bound to nothing is used by whoever bears it; the others need the
// proof that they are bound to, under their own scheme (RFC 9449 section 7.2).
func (s *senderRule) check(header http.Header, r *http.Request, shown credential, bound token.Confirmation) (outcome, error) {
	if bound.CertificateThumbprint != "" {
		if refused := checkCertificate(r, bound.CertificateThumbprint); refused != "" {
			return refused, nil
		}
	}
	switch {
	case bound.KeyThumbprint == "" && (shown.dpop || s.required):
		return outcomeNotBound, nil
	case bound.KeyThumbprint == "":
		return "", nil
	case !shown.dpop:
		return outcomeBoundAsBearer, nil
	case len(shown.proofs) != 1: // section 4.3
		return outcomeInvalidProof, errors.New("the request has no DPoP header, or several")
	}
	method, urls := provenRequest(s.origins, r)
	err := s.proofs.Verify(r.Context(), dpop.Request{
		Proof:       shown.proofs[0],
		Method:      method,
		URLs:        urls,
		AccessToken: shown.token,
		Thumbprint:  bound.KeyThumbprint,
	})
	if s.nonces != nil { // also with a good one: the next proof will need the next (section 8.2)
		header.Set("DPoP-Nonce", s.nonces.Issue())
	}
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, dpop.ErrNonce):
		return outcomeNonceNeeded, err
	case dpop.ReasonOf(err) != "":
		return outcomeInvalidProof, err
	case r.Context().Err() != nil:
		return outcomeClientGone, err
	default:
		return outcomeReplayUnknown, err
	}
}

// checkCertificate tells why a token that is bound to a client certificate
// (RFC 8705 section 3) may not be used on this connection, "" if it may. Only
// what was shown to this very server counts: a header may say anything. The
// handshake has proven that the client holds the certificate's key.
func checkCertificate(r *http.Request, thumbprint string) outcome {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return outcomeCertificateMissing
	}
	digest := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	if base64.RawURLEncoding.EncodeToString(digest[:]) != thumbprint {
		return outcomeCertificateOther
	}
	return ""
}

// details is what challenges say of DPoP.
func (s *senderRule) details(shown credential) dpopDetails {
	if s.proofs == nil {
		return dpopDetails{}
	}
	return dpopDetails{
		algorithms: strings.Join(s.proofs.Algorithms(), " "),
		required:   s.required,
		used:       shown.dpop,
	}
}

// proofMemory remembers proofs where members are cached, so that none is good
// at a second node either.
type proofMemory struct{ members *finder }

// First implements [dpop.Replay]. Without Redis this node's memory decides
// alone: a proof could be replayed at another node, but no longer than it is
// young, and only by who sees both token and proof.
func (p proofMemory) First(ctx context.Context, thumbprint string, id [32]byte, life time.Duration) (bool, error) {
	first, err := p.members.stores.common.Claim(ctx, thumbprint, base64.RawURLEncoding.EncodeToString(id[:]), life, p.members.observer(store.Want{}))
	if errors.Is(err, store.ErrUnavailable) {
		err = nil
	}
	return first, err
}
