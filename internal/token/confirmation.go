package token

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/go-json-experiment/json/jsontext"
)

// Binding is a set of ways in which a token can be bound to a key of its sender, so
// that it is of no use to who has stolen the token alone.
type Binding uint8

// The ways there are.
const (
	// BindingDPoP: the sender proves with each request that it holds the key
	// (cnf.jkt, RFC 9449 §6.1).
	BindingDPoP Binding = 1 << iota
	// BindingMTLS: the sender has shown the certificate when it opened the
	// connection (cnf.x5t#S256, RFC 8705 §3.1).
	BindingMTLS
)

// Confirmation is what a token is bound to (cnf, RFC 7800 §3.1). Thumbprints are
// SHA-256 in base64url, 43 characters, in the only spelling they have: they may be
// compared as they are.
type Confirmation struct {
	KeyThumbprint         string // of a JWK (jkt, RFC 7638); "" if it is bound to none
	CertificateThumbprint string // of a certificate in DER (x5t#S256); "" likewise
}

// IsZero reports whether the token is bound to nothing: a plain bearer token.
func (c Confirmation) IsZero() bool { return c == Confirmation{} }

// needs returns the ways in which the sender has to prove itself.
func (c Confirmation) needs() (ways Binding) {
	if c.KeyThumbprint != "" {
		ways |= BindingDPoP
	}
	if c.CertificateThumbprint != "" {
		ways |= BindingMTLS
	}
	return ways
}

// admitBinding refuses tokens that are bound in a way nobody here verifies: one that
// is taken for a plain one all the same is open to whoever stole it (RFC 9449 §7.2).
func (v *Verifier) admitBinding(c Confirmation) error {
	if c.needs()&^v.cfg.Bound != 0 {
		return refuse(ReasonBound, "the token is bound to its sender's key (cnf), which is not verified: "+
			"the client must ask for an unbound one")
	}
	return nil
}

// confirmation reads cnf. Present is enough to be refused if it cannot be read, null
// included: a mapper may write anything into it.
func (p *payload) confirmation() (c Confirmation, err error) {
	value, present := p.member("cnf")
	if !present {
		return Confirmation{}, nil
	}
	unreadable := refuse(ReasonBound, "the token's cnf is none of those known: an object of jkt, x5t#S256 or both")
	methods, notObject := parseObject(value)
	if notObject != nil || len(methods) == 0 {
		return Confirmation{}, unreadable
	}
	for _, method := range methods {
		to := &c.KeyThumbprint
		switch string(method.name) {
		case "jkt":
		case "x5t#S256":
			to = &c.CertificateThumbprint
		case "kc-jkt-type":
			// Keycloak 26.7 says so of how jkt came about; no other way is known.
			if string(method.value) != `"DPoP"` {
				return Confirmation{}, unreadable
			}
			continue
		default: // another method may be one more condition
			return Confirmation{}, unreadable
		}
		var ok bool
		if *to, ok = thumbprint(method.value); !ok {
			return Confirmation{}, unreadable
		}
	}
	if c.IsZero() {
		return Confirmation{}, unreadable
	}
	return c, nil
}

// thumbprint reads the base64url of a SHA-256.
func thumbprint(value jsontext.Value) (string, bool) {
	if value.Kind() != '"' {
		return "", false
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	if err != nil || len(unquoted) != base64.RawURLEncoding.EncodedLen(sha256.Size) {
		return "", false
	}
	var digest [sha256.Size + 1]byte // the decoder wants room for whole groups
	n, err := base64.RawURLEncoding.Strict().Decode(digest[:], unquoted)
	return string(unquoted), err == nil && n == sha256.Size
}
