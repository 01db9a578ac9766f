package token

import (
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

// maxSubject bounds sub and sid, in bytes (OpenID Connect Core 1.0 §2).
const maxSubject = 255

// Token is what an issuer said in an access token, proven by its signature. It is
// shared: nobody may change it or what it refers to.
type Token struct {
	Issuer          string // iss
	Subject         string // sub; printable, 1 to 255 bytes
	SessionID       string // sid; "" for service accounts
	ID              string // jti
	Type            string // typ: "Bearer", or "DPoP"
	AuthorizedParty string // azp: the client
	Audience        []string
	Scope           []string // of scope, split at spaces
	ACR             string

	Expiry    time.Time
	IssuedAt  time.Time
	NotBefore time.Time // zero if absent

	// For display. Of another type than expected, they are as if absent: a mapper
	// gone wrong must not lock people out.
	Username      string // preferred_username
	Email         string
	EmailVerified bool
	Name          string

	RealmRoles  []string            // realm_access.roles
	ClientRoles map[string][]string // resource_access.<client>.roles
	Groups      []string

	// Confirmation is what the token is bound to. Who accepts such tokens
	// ([Config.Bound]) has to see the proof with each request.
	Confirmation Confirmation

	// KeyID and Algorithm are those of the signature; "" for a token that is opaque,
	// of which all is known from introspection.
	KeyID     string
	Algorithm string

	key    *key           // nil if it is opaque
	source *Introspection // whose answer the claims are; nil if they are the token's own
	claims lazyClaims

	attached atomic.Value
}

// Attachable is how much memory a remembered token is taken to need for what is attached
// to it, in bytes.
const Attachable = 1024

// Attached returns what was attached to the token, or nil.
func (t *Token) Attached() any { return t.attached.Load() }

// Attach leaves something on the token for whoever comes by it next, in place of what
// [Token.Attached] returned before, and reports whether it did: somebody else may have
// been faster. All that is ever attached to a token has to be of one type, of at most
// [Attachable] bytes, and nothing that decides whether the token is good.
func (t *Token) Attach(before, now any) bool { return t.attached.CompareAndSwap(before, now) }

// Introspected reports whether the token's claims are the issuer's answer about it,
// not its own.
func (t *Token) Introspected() bool { return t.source != nil }

// newToken reads the claims of a payload that has proven to be the issuer's. One that
// is light may lack sub.
func newToken(p *payload, light bool) (*Token, error) {
	tok := &Token{Type: p.kind, Confirmation: p.bound, Expiry: p.expiry}
	tok.claims.text = p.raw
	tok.Issuer, _ = p.text("iss") // has been compared by now

	var err error
	if _, present := p.member("sub"); present || !light {
		if tok.Subject, err = p.subject(); err != nil {
			return nil, err
		}
	}
	if tok.IssuedAt, err = p.requiredTime("iat"); err != nil {
		return nil, err
	}
	if value, present := p.member("nbf"); present {
		var ok bool
		if tok.NotBefore, ok = date(value); !ok || tok.NotBefore.Unix() < 0 {
			return nil, wrongType("nbf", "a number of seconds since 1970")
		}
	}
	if tok.Audience, err = p.audience(); err != nil {
		return nil, err
	}
	var scope string
	for _, claim := range []struct {
		name string
		to   *string
	}{
		{"sid", &tok.SessionID},
		{"azp", &tok.AuthorizedParty},
		{"acr", &tok.ACR},
		{"scope", &scope},
	} {
		if *claim.to, err = p.optionalText(claim.name); err != nil {
			return nil, err
		}
	}
	if value, present := p.member("jti"); present {
		if value.Kind() != '"' {
			return nil, wrongType("jti", "a string")
		}
		tok.ID, _ = p.text("jti")
	}
	if tok.SessionID != "" && (!printable(tok.SessionID) || len(tok.SessionID) > maxSubject) {
		return nil, wrongType("sid", "printable, of at most 255 bytes")
	}
	tok.Scope = strings.Fields(scope)

	tok.Username, _ = p.text("preferred_username")
	tok.Email, _ = p.text("email")
	tok.Name, _ = p.text("name")
	verified, _ := p.member("email_verified")
	tok.EmailVerified = verified.Kind() == 't'
	p.readRoles(tok)
	return tok, nil
}

func (p *payload) subject() (string, error) {
	value, present := p.present("sub")
	if _, hasAudience := p.present("aud"); !present && !hasAudience {
		return "", refuse(ReasonMissingClaim, `the token has neither sub nor aud, so it is probably a lightweight `+
			`access token: switch off "Always use lightweight access token" in the client's advanced settings, `+
			`and client policies that do the same; if it is none, give the client the client scope "basic"`)
	}
	if !present {
		return "", refuse(ReasonMissingClaim, `the token has no sub: give the client the client scope "basic", `+
			`whose mapper adds it`)
	}
	subject, ok := p.text("sub")
	switch {
	case !ok || value.Kind() != '"':
		return "", wrongType("sub", "a string")
	case strings.TrimSpace(subject) == "":
		return "", refuse(ReasonMissingClaim, "the token's sub is empty")
	case len(subject) > maxSubject || !printable(subject):
		return "", wrongType("sub", "printable, of at most 255 bytes")
	}
	return subject, nil
}

func (p *payload) audience() ([]string, error) {
	value, present := p.present("aud")
	if !present {
		return nil, nil
	}
	if one, ok := p.text("aud"); ok {
		return []string{one}, nil
	}
	many, ok := list(value)
	if !ok {
		return nil, wrongType("aud", "a string or a list of strings")
	}
	return many, nil
}

func (p *payload) readRoles(tok *Token) {
	if value, present := p.present("groups"); present {
		tok.Groups, _ = list(value)
	}
	realm, _ := p.member("realm_access")
	tok.RealmRoles = roles(realm)
	value, _ := p.member("resource_access")
	clients, err := parseObject(value)
	if err != nil || len(clients) == 0 {
		return
	}
	tok.ClientRoles = make(map[string][]string, len(clients))
	for _, client := range clients {
		if names := roles(client.value); len(names) > 0 {
			tok.ClientRoles[string(client.name)] = names
		}
	}
}

// roles reads {"roles": ["…"]}.
func roles(value jsontext.Value) []string {
	access, err := parseObject(value)
	if err != nil {
		return nil
	}
	names, _ := access.member("roles")
	all, _ := list(names)
	return all
}

// present is member, for which null is absent.
func (p *payload) present(name string) (jsontext.Value, bool) {
	value, ok := p.member(name)
	return value, ok && value.Kind() != 'n'
}

func (p *payload) optionalText(name string) (string, error) {
	if _, present := p.present(name); !present {
		return "", nil
	}
	text, ok := p.text(name)
	if !ok {
		return "", wrongType(name, "a string")
	}
	return text, nil
}

// checkUnused refuses claims that mean nothing here, but stop other readers of the
// token, or send them elsewhere for more of it (OpenID Connect Core 1.0 §5.6.2).
func (p *payload) checkUnused() error {
	for _, name := range []string{"nonce", "at_hash"} {
		if _, err := p.optionalText(name); err != nil {
			return err
		}
	}
	for _, name := range []string{"_claim_names", "_claim_sources"} {
		if _, present := p.present(name); present {
			return refuse(ReasonClaimType, "there is "+name+": claims from other sources are not taken")
		}
	}
	return nil
}

func (p *payload) requiredTime(name string) (time.Time, error) {
	value, present := p.present(name)
	if !present {
		return time.Time{}, refuse(ReasonMissingClaim, "the token has no "+name)
	}
	at, ok := date(value)
	if !ok {
		return time.Time{}, wrongType(name, "a number of seconds")
	}
	return at, nil
}

func wrongType(name, want string) error {
	return refuse(ReasonClaimType, "the token's "+name+" is not "+want)
}

// printable reports whether text is not empty and holds only what can be seen,
// and ASCII's space: no control characters, no marks of direction, no byte order
// mark, no other spaces.
func printable(text string) bool {
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return text != ""
}
