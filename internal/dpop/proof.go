package dpop

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

// maxID bounds jti, in bytes. RFC 9449 §4.2 recommends a UUID.
const maxID = 255

// proof is a proof taken apart, of which nothing is proven yet.
type proof struct {
	signed    string // header and payload as they came: what the signature covers
	payload   []byte
	signature []byte
	algorithm jws.Algorithm
	key       key
}

// claims are what a proof says (RFC 9449 §4.2).
type claims struct {
	id        string
	method    string
	url       string
	issuedAt  time.Time
	tokenHash string
	nonce     string    // "" if there is none
	expiry    time.Time // zero if there is none
	notBefore time.Time // zero if there is none
}

var (
	headerMembers = []string{"typ", "alg", "jwk", "kid", "crit", "b64", "jku", "x5u", "x5c", "x5t"}
	claimNames    = []string{"jti", "htm", "htu", "iat", "ath", "nonce", "exp", "nbf"}
)

// parse takes raw apart, up to the key it says it was signed with.
func (v *Verifier) parse(raw string) (*proof, error) {
	if len(raw) > v.cfg.MaxSize { // first: everything after costs by the byte
		return nil, refuse(ReasonTooLarge, fmt.Sprintf("the proof has %d bytes, of which %d are taken",
			len(raw), v.cfg.MaxSize))
	}
	const notCompact = "not three parts of base64url joined by dots"
	if strings.Count(raw, ".") != 2 {
		return nil, refuse(ReasonMalformed, notCompact)
	}
	first, rest, _ := strings.Cut(raw, ".")
	second, third, _ := strings.Cut(rest, ".")
	header, okHeader := decode(first)
	payload, okPayload := decode(second)
	signature, okSignature := decode(third)
	if !okHeader || !okPayload || !okSignature {
		return nil, refuse(ReasonMalformed, notCompact)
	}
	p := &proof{signed: raw[:len(first)+1+len(second)], payload: payload, signature: signature}
	return p, v.parseHeader(p, header)
}

// decode reads base64url in the only spelling there is: no padding, no space, no
// spare bits.
func decode(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder would pass over
		return nil, false
	}
	read, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return read, err == nil
}

func (v *Verifier) parseHeader(p *proof, text []byte) error {
	header, err := parseObject(text, headerMembers)
	if err != nil {
		return refuse(ReasonMalformed, "the header is not one JSON object without repeated or look-alike names")
	}
	// A media type, of which letter case does not matter, nor whether application/ is
	// left out (RFC 7515 §4.1.9).
	name, _ := header.text("typ")
	if !strings.EqualFold(name, "dpop+jwt") && !strings.EqualFold(name, "application/dpop+jwt") {
		return refuse(ReasonType, "")
	}
	name, _ = header.text("alg")
	var known bool
	if p.algorithm, known = jws.Named(name); !known || !slices.Contains(v.algorithms, name) {
		return refuse(ReasonAlgorithm, fmt.Sprintf("alg is %s, accepted are %q", quote(name), v.cfg.Algorithms))
	}
	switch _, kidIsText := header.textIfAny("kid"); {
	case header.has("crit", "b64"): // RFC 7515 §4.1.11, RFC 7797: none is understood here
		return refuse(ReasonHeader, "the header has crit or b64")
	case header.has("jku", "x5u", "x5c", "x5t", "x5t#S256"): // jwk is the key, and nothing else may be
		return refuse(ReasonHeader, "the header names a key beside jwk")
	case !kidIsText:
		return refuse(ReasonHeader, "kid is not a string")
	}
	value, _ := header.member("jwk")
	p.key, err = parseKey(value, name, p.algorithm)
	return err
}

// parseClaims reads a payload whose signature has been verified.
func parseClaims(text []byte) (*claims, error) {
	members, err := parseObject(text, claimNames)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the claims are not one JSON object without repeated or look-alike names")
	}
	c := new(claims)
	for _, claim := range []struct {
		name     string
		to       *string
		required bool
	}{
		{"jti", &c.id, true},
		{"htm", &c.method, true},
		{"htu", &c.url, true},
		{"ath", &c.tokenHash, false}, // a reason of its own if missing
		{"nonce", &c.nonce, false},
	} {
		text, ok := members.textIfAny(claim.name)
		if !ok || claim.required && text == "" {
			return nil, refuse(ReasonClaim, claim.name+" is missing or not a string")
		}
		*claim.to = text
	}
	if len(c.id) > maxID {
		return nil, refuse(ReasonClaim, fmt.Sprintf("jti is longer than %d bytes", maxID))
	}
	var ok bool
	if c.issuedAt, ok = members.date("iat"); !ok {
		return nil, refuse(ReasonClaim, "iat is missing or not a number of seconds")
	}
	if c.expiry, ok = members.dateIfAny("exp"); !ok {
		return nil, refuse(ReasonClaim, "exp is not a number of seconds")
	}
	if c.notBefore, ok = members.dateIfAny("nbf"); !ok {
		return nil, refuse(ReasonClaim, "nbf is not a number of seconds")
	}
	return c, nil
}
