package token

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// peek refuses a payload that is not worth asking for a key. What it reads is
// unproven: it may refuse, never accept.
func (v *Verifier) peek(p *payload) error {
	bound, err := p.confirmation()
	if err != nil {
		return err
	}
	if err := v.admitBinding(bound); err != nil {
		return err
	}
	kind, ok := p.text("typ")
	if !ok || !isAccessType(kind, bound) {
		return refuse(ReasonTokenType, tokenTypeHint(kind, ok))
	}
	expiry, err := p.requiredTime("exp")
	if err != nil {
		return err
	}
	p.kind, p.bound, p.expiry = kind, bound, expiry
	return nil
}

const (
	bearerType = "Bearer"
	dpopType   = "DPoP"
)

// isAccessType takes the payload's typ of Keycloak's access tokens. Those bound by
// mTLS are of type Bearer; one of type DPoP that is bound to no key is none.
func isAccessType(kind string, bound Confirmation) bool {
	return kind == bearerType || kind == dpopType && bound.KeyThumbprint != ""
}

func tokenTypeHint(kind string, isText bool) string {
	switch {
	case !isText:
		return "the token has no typ: not an access token of Keycloak, but perhaps signed user info"
	case kind == "ID":
		return "an ID token was sent; the client must send the access token"
	case kind == "Refresh" || kind == "Offline":
		return "a refresh token was sent; the client must send the access token"
	case kind == dpopType:
		return "the token's typ is \"DPoP\", but it is bound to no key (cnf.jkt)"
	default:
		return "the token's typ is " + quote(kind) + ", an access token's is \"Bearer\""
	}
}

// checkHeaderType takes the types Keycloak gives access tokens. ID tokens have
// the first one too: the payload's typ is what tells them apart.
func checkHeaderType(name string) error {
	switch strings.ToLower(name) { // RFC 7515 §4.1.9: media types have no case
	case "jwt", "at+jwt", "application/at+jwt":
		return nil
	}
	return refuse(ReasonHeaderType, "the header's typ is "+quote(name)+`, an access token's "JWT" or "at+jwt"`)
}

func (v *Verifier) checkNotExpired(expiry, now time.Time) error {
	// RFC 7519 §4.1.4: on exp itself it is over.
	if !now.Before(expiry.Add(v.cfg.Leeway)) {
		return refuse(ReasonExpired, "")
	}
	return nil
}

func (v *Verifier) checkTimes(tok *Token) error {
	now := v.cfg.Now()
	if err := v.checkNotExpired(tok.Expiry, now); err != nil {
		return err
	}
	latest := now.Add(v.cfg.Leeway)
	switch {
	case tok.NotBefore.After(latest):
		return refuse(ReasonNotYetValid, "nbf is in the future: compare the clocks")
	case tok.IssuedAt.After(latest):
		return refuse(ReasonIssuedInFuture, "iat is in the future: compare the clocks")
	case tok.Expiry.Sub(tok.IssuedAt) > v.cfg.MaxLifetime:
		return refuse(ReasonLifetime, fmt.Sprintf("the token lives longer than %s: shorten the realm's or "+
			"client's Access Token Lifespan", v.cfg.MaxLifetime))
	}
	return nil
}

func (v *Verifier) checkPolicy(tok *Token) error {
	if want := v.cfg.Audiences; len(want) > 0 && !slices.ContainsFunc(want, func(name string) bool {
		return slices.Contains(tok.Audience, name)
	}) {
		return refuse(ReasonAudience, audienceHint(tok.Audience, want))
	}
	if want := v.cfg.AuthorizedParties; len(want) > 0 && !slices.Contains(want, tok.AuthorizedParty) {
		return refuse(ReasonAuthorizedParty, fmt.Sprintf("the token was issued to client %s, allowed are %s",
			quote(tok.AuthorizedParty), quoteList(want)))
	}
	return nil
}

func audienceHint(got, want []string) string {
	remedy := fmt.Sprintf("give the client, or one of its client scopes, an Audience mapper that adds %s", quote(want[0]))
	if len(got) == 0 {
		return "the token has no aud (a lightweight token, or a client without full scope): " + remedy
	}
	return fmt.Sprintf("the token's aud is %s, wanted is one of %s: %s", quoteList(got), quoteList(want), remedy)
}
