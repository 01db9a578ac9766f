package token

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"
)

// maxAnswer bounds an introspection's answer, in bytes: a token's claims, and some.
const maxAnswer = 256 << 10

// foldedAnswer are the names an answer has beside those of claims (RFC 7662 §2.2).
var foldedAnswer = folded("active", "token_type", "username")

var errNoAnswer = errors.New("the answer is none of RFC 7662")

// isOpaque reports whether raw is a bearer token (RFC 6750 §2.1) in which there is
// nothing to be read here. One with a dot is not: what looks like a JWT, or was one
// before somebody changed it, must prove itself and is never asked about.
func isOpaque(raw string) bool { return isBearer(raw) && !strings.Contains(raw, ".") }

// isLightweight reports whether a token lacks what it would be refused for, so that
// the issuer has to be asked for it: sub, and aud where audiences are configured.
func (p *payload) isLightweight(audiences []string) bool {
	_, hasSubject := p.member("sub")
	_, hasAudience := p.member("aud")
	return !hasSubject || !hasAudience && len(audiences) > 0
}

// asksAbout reports whether a token that others verified would be asked about here.
func (v *Verifier) asksAbout(tok *Token) bool {
	return v.cfg.Introspection != nil && tok.source == nil && len(v.cfg.Audiences) > 0 && len(tok.Audience) == 0
}

// opaque asks about a token that is no JWT.
func (v *Verifier) opaque(ctx context.Context, raw string) (*Token, error) {
	if err := v.admitSize(len(raw)); err != nil {
		return nil, err
	}
	return v.cfg.Introspection.ask(ctx, raw, nil)
}

// inflate asks about a lightweight token, whose signature is proven, once it is known
// to be worth the while.
func (v *Verifier) inflate(ctx context.Context, raw string, own *Token) (*Token, error) {
	if err := v.checkTimes(own); err != nil {
		return nil, err
	}
	return v.cfg.Introspection.ask(ctx, raw, own)
}

// read makes a token of an answer, as strictly as of a signed one. It has to be active,
// an access token of the issuer, and to agree with what the token says of itself (own,
// if it says anything).
func (in *Introspection) read(answer []byte, own *Token) (*Token, error) {
	if len(answer) > maxAnswer {
		return nil, introspectionUnavailable(errNoAnswer)
	}
	p, err := parsePayload(bytes.TrimSpace(answer))
	switch {
	case ReasonOf(err) == ReasonMalformed: // not the token's fault
		return nil, introspectionUnavailable(errNoAnswer)
	case err != nil:
		return nil, err
	}
	if genuine, found := p.lookAlike(foldedAnswer); found {
		return nil, refuse(ReasonAmbiguous, "the answer about the token has a second "+genuine+" in other letters")
	}
	if active, _ := p.member("active"); active.Kind() == 'f' {
		return nil, inactive()
	} else if active.Kind() != 't' {
		return nil, introspectionUnavailable(errNoAnswer)
	}
	if issuer, ok := p.text("iss"); !ok || issuer != in.cfg.Issuer {
		return nil, refuse(ReasonIssuer, issuerHint(issuer, ok, in.cfg.Issuer))
	}
	if p.bound, err = p.confirmation(); err != nil {
		return nil, err
	}
	if p.kind, err = p.answeredType(); err != nil {
		return nil, err
	}
	if p.expiry, err = p.requiredTime("exp"); err != nil {
		return nil, err
	}
	tok, err := newToken(&p, false)
	if err != nil {
		return nil, err
	}
	if own != nil {
		if err := tok.agree(own); err != nil {
			return nil, err
		}
	}
	tok.source = in
	return tok, nil
}

// answeredType returns which kind of access token an answer is about. Keycloak says
// active of ID and refresh tokens, too; typ tells, and where another issuer sends none,
// token_type (RFC 7662 §2.2).
func (p *payload) answeredType() (string, error) {
	kind, isText := p.text("typ")
	if _, present := p.member("typ"); present && (!isText || !isAccessType(kind, p.bound)) {
		return "", refuse(ReasonTokenType, tokenTypeHint(kind, isText))
	}
	if _, present := p.member("token_type"); !present && isText {
		return kind, nil
	}
	scheme, _ := p.text("token_type") // of which RFC 6749 §7.1 ignores the case
	switch {
	case strings.EqualFold(scheme, dpopType):
		scheme = dpopType
	case strings.EqualFold(scheme, bearerType):
		scheme = bearerType
	}
	switch {
	case !isAccessType(scheme, p.bound):
		return "", refuse(ReasonTokenType, "the answer about the token says neither by typ nor by token_type that it "+
			"is an access token")
	case kind == dpopType:
		return kind, nil
	}
	return scheme, nil
}

// agree refuses an answer that is not about the token that own was read from, and
// completes it by what only the token says. What is signed comes before what is said.
func (t *Token) agree(own *Token) error {
	for _, claim := range []struct {
		name string
		own  string
		to   *string
	}{
		{"sub", own.Subject, &t.Subject},
		{"jti", own.ID, &t.ID},
		{"sid", own.SessionID, &t.SessionID},
		{"azp", own.AuthorizedParty, &t.AuthorizedParty},
		{"jkt", own.Confirmation.KeyThumbprint, &t.Confirmation.KeyThumbprint},
		{"x5t#S256", own.Confirmation.CertificateThumbprint, &t.Confirmation.CertificateThumbprint},
	} {
		switch {
		case claim.own == "":
		case *claim.to == "":
			*claim.to = claim.own
		case *claim.to != claim.own:
			return disagree(claim.name)
		}
	}
	switch {
	case !t.Expiry.Equal(own.Expiry):
		return disagree("exp")
	case own.Type == dpopType:
		t.Type = dpopType // it has a jkt, whatever the answer calls it
	}
	t.IssuedAt, t.NotBefore = own.IssuedAt, later(t.NotBefore, own.NotBefore)
	t.KeyID, t.Algorithm, t.key = own.KeyID, own.Algorithm, own.key
	return nil
}

func disagree(name string) error {
	return refuse(ReasonAmbiguous, "the token and the issuer's answer about it differ in "+name)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
