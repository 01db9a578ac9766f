package token

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Logout is what an issuer said in a logout token: that a session has ended, or all of
// a user.
type Logout struct {
	Issuer string
	Tenant string // what {tenant} stands for in Issuer; "" if that is no realm of a template
	Index  int    // of the issuer, among those given to [NewIssuers]

	// Of Subject and SessionID, at least one is there. With SessionID, it is that
	// session which has ended.
	Subject   string // sub
	SessionID string // sid

	ID       string // jti; printable, 1 to 255 bytes
	IssuedAt time.Time
}

const (
	// logoutEvent is the event a logout token is about (OpenID Connect Back-Channel
	// Logout 1.0 §2.4).
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

	// maxLogoutAge bounds the age of logout tokens: issuers send them at once, and
	// try again for a while. Keycloak's expire after two minutes.
	maxLogoutAge = time.Hour
	// maxEndlessAge is the same for those without exp, which the first drafts had
	// not.
	maxEndlessAge = 2 * time.Minute
)

// VerifyLogout returns what raw says, if it is a logout token (OpenID Connect
// Back-Channel Logout 1.0 §2.6) of one of the issuers, signed with any algorithm its
// access tokens may be signed with, for one of the clients. It is never remembered, and
// not looked for among what is: who sends it again gets the same answer.
//
// The error is as [Issuers.Verify]'s. All that can be told without a key is told before
// one is asked for.
func (s *Issuers) VerifyLogout(ctx context.Context, raw string, clients []string) (Logout, error) {
	a, err := s.widest.parse(raw)
	if err != nil {
		return Logout{}, err
	}
	issuer, isText := a.payload.text("iss")
	index, tenant, err := s.choose(issuer, isText)
	if err != nil {
		return Logout{}, err
	}
	settings := s.all[index].base()
	if err := settings.admitSize(len(raw)); err != nil {
		return Logout{}, err
	}
	if err := settings.admitAlgorithm(a.algorithm); err != nil {
		return Logout{}, err
	}
	logout, err := settings.readLogout(a, clients)
	if err != nil {
		return Logout{}, err
	}
	one, err := s.all[index].open(issuer, tenant)
	if err != nil {
		return Logout{}, err
	}
	err = one.verifySignature(ctx, a, one.ask)
	if err == nil {
		err = a.payload.checkUnused()
	}
	if err := one.done(err); err != nil {
		return Logout{}, err
	}
	logout.Issuer, logout.Tenant, logout.Index = issuer, tenant, index
	return logout, nil
}

// readLogout reads what is still unproven, and refuses what is no logout token, by
// what no other token of the issuer is: its typ, its events, and no nonce.
func (v *Verifier) readLogout(a *attempt, clients []string) (Logout, error) {
	switch strings.ToLower(a.headerType) { // RFC 7515 §4.1.9: media types have no case
	case "logout+jwt", "application/logout+jwt":
	default:
		return Logout{}, refuse(ReasonHeaderType, "the header's typ is "+quote(a.headerType)+`, a logout token's "logout+jwt"`)
	}
	p := &a.payload
	if _, present := p.member("typ"); present { // Keycloak's own
		if kind, _ := p.text("typ"); kind != "Logout" {
			return Logout{}, refuse(ReasonTokenType, "the token's typ is "+quote(kind)+`, a logout token's "Logout"`)
		}
	}
	if err := p.checkLogoutEvent(); err != nil {
		return Logout{}, err
	}
	if err := p.checkLogoutAudience(clients); err != nil {
		return Logout{}, err
	}
	issued, err := v.checkLogoutTimes(p)
	if err != nil {
		return Logout{}, err
	}
	logout := Logout{IssuedAt: issued}
	for _, claim := range []struct {
		name string
		to   *string
	}{{"sub", &logout.Subject}, {"sid", &logout.SessionID}, {"jti", &logout.ID}} {
		if *claim.to, err = p.identifier(claim.name); err != nil {
			return Logout{}, err
		}
	}
	switch {
	case logout.Subject == "" && logout.SessionID == "":
		return Logout{}, refuse(ReasonMissingClaim, "the logout token has neither sub nor sid")
	case logout.ID == "":
		return Logout{}, refuse(ReasonMissingClaim, "the logout token has no jti")
	}
	return logout, nil
}

func (p *payload) checkLogoutEvent() error {
	if _, present := p.member("nonce"); present { // null included: §2.4 wants none there
		return refuse(ReasonTokenType, "the token has a nonce: it is an ID token rather than a logout token")
	}
	value, _ := p.member("events")
	events, err := parseObject(value)
	if err != nil {
		return refuse(ReasonTokenType, "the token has no object of events: it is no logout token")
	}
	event, _ := events.member(logoutEvent)
	if event.Kind() != '{' {
		return refuse(ReasonTokenType, "none of the token's events is a back-channel logout")
	}
	return nil
}

// checkLogoutAudience wants each audience to be one of ours. That one of them is would
// not do: OpenID Connect Core 1.0 §3.1.3.7 has tokens refused that are also for others
// whom we do not trust.
func (p *payload) checkLogoutAudience(clients []string) error {
	audience, err := p.audience()
	if err != nil {
		return err
	}
	if len(audience) == 0 || slices.ContainsFunc(audience, func(name string) bool { return !slices.Contains(clients, name) }) {
		return refuse(ReasonAudience, "the logout token's aud is "+quoteList(audience)+", wanted are none but "+
			quoteList(clients))
	}
	return nil
}

func (v *Verifier) checkLogoutTimes(p *payload) (issued time.Time, err error) {
	if issued, err = p.requiredTime("iat"); err != nil {
		return time.Time{}, err
	}
	now := v.cfg.Now()
	oldest := maxEndlessAge
	if _, present := p.member("exp"); present {
		expiry, err := p.requiredTime("exp")
		if err != nil {
			return time.Time{}, err
		}
		if err := v.checkNotExpired(expiry, now); err != nil {
			return time.Time{}, err
		}
		oldest = maxLogoutAge
	}
	if value, present := p.member("nbf"); present {
		begin, ok := date(value)
		switch {
		case !ok:
			return time.Time{}, wrongType("nbf", "a number of seconds")
		case begin.After(now.Add(v.cfg.Leeway)):
			return time.Time{}, refuse(ReasonNotYetValid, "nbf is in the future: compare the clocks")
		}
	}
	switch {
	case issued.After(now.Add(v.cfg.Leeway)):
		return time.Time{}, refuse(ReasonIssuedInFuture, "iat is in the future: compare the clocks")
	case now.Sub(issued) > oldest+v.cfg.Leeway:
		return time.Time{}, refuse(ReasonExpired, "the logout token was issued more than "+oldest.String()+" ago")
	}
	return issued, nil
}

// identifier reads a claim that is to be found again elsewhere, "" if it is absent.
func (p *payload) identifier(name string) (string, error) {
	if _, present := p.member(name); !present {
		return "", nil
	}
	text, ok := p.text(name)
	if !ok || len(text) > maxSubject || !printable(text) || strings.TrimSpace(text) == "" {
		return "", wrongType(name, "printable, of 1 to 255 bytes")
	}
	return text, nil
}
