package token

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// maxKeyID bounds kid, in bytes. Keycloak's are 43 long.
const maxKeyID = 256

// attempt is one token on its way through Authenticate.
type attempt struct {
	raw        string
	signed     string // header and payload as they came: what the signature covers
	signature  []byte
	algorithm  string
	keyID      string
	headerType string
	payload    payload

	key *key // that made the signature; nil until it is proven
}

// payload is what a token says. Until its attempt has a key, nobody vouches for it.
type payload struct {
	object
	raw []byte

	// What peek has read of it.
	kind   string // typ
	bound  Confirmation
	expiry time.Time
}

// limits are what a token has to keep to before it is known whose it is.
type limits struct {
	maxSize    int
	algorithms []string // with aliases
	configured []string // the same as configured, for hints
}

func (l *limits) admitSize(size int) error {
	if size > l.maxSize {
		return refuse(ReasonTooLarge, fmt.Sprintf("the token has %d bytes, of which %d are taken: "+
			"have Keycloak put fewer roles or attributes into it", size, l.maxSize))
	}
	return nil
}

func (l *limits) admitAlgorithm(name string) error {
	if !slices.Contains(l.algorithms, name) {
		return refuse(ReasonAlgorithm, fmt.Sprintf("the token's alg is %s, accepted are %s",
			quote(name), quoteList(l.configured)))
	}
	return nil
}

// parse takes raw apart. It asks nobody for anything.
func (l *limits) parse(raw string) (*attempt, error) {
	if err := l.admitSize(len(raw)); err != nil { // first: everything after costs by the byte
		return nil, err
	}
	header, payloadText, signature, err := decodeCompact(raw)
	if err != nil {
		return nil, &Error{Reason: ReasonMalformed, Err: err}
	}
	a := &attempt{raw: raw, signed: raw[:strings.LastIndexByte(raw, '.')], signature: signature}
	if err := l.parseHeader(a, header); err != nil {
		return nil, err
	}
	if a.payload, err = parsePayload(payloadText); err != nil {
		return nil, err
	}
	return a, nil
}

// encoded is base64url in the only spelling it has: no padding, no spare bits.
var encoded = base64.RawURLEncoding.Strict()

var errNotCompact = errors.New("not three parts of base64url joined by dots")

// decodeCompact takes the compact serialisation (RFC 7515 §7.1) of a signed token
// apart, in the only spelling it has: no padding, no space, no spare bits.
func decodeCompact(raw string) (header, payload, signature []byte, err error) {
	if strings.Count(raw, ".") != 2 {
		return nil, nil, nil, errNotCompact
	}
	first, rest, _ := strings.Cut(raw, ".")
	second, third, _ := strings.Cut(rest, ".")
	if strings.ContainsAny(raw, "\r\n") { // which the decoder would pass over
		return nil, nil, nil, errNotCompact
	}
	for _, part := range []struct {
		from string
		to   *[]byte
	}{{first, &header}, {second, &payload}, {third, &signature}} {
		if *part.to, err = encoded.DecodeString(part.from); err != nil {
			return nil, nil, nil, errNotCompact
		}
	}
	return header, payload, signature, nil
}

// foldedHeader are the parameters read here, or by others who read the token.
var foldedHeader = folded("alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "x5u", "cty", "enc", "zip", "nonce")

func (l *limits) parseHeader(a *attempt, text []byte) error {
	header, err := parseObject(text)
	if err != nil {
		return refuse(ReasonMalformed, "the header is not one JSON object without repeated names")
	}
	name, _ := header.text("alg")
	if err := l.admitAlgorithm(name); err != nil {
		return err
	}
	a.algorithm = name
	if genuine, found := header.lookAlike(foldedHeader); found {
		return refuse(ReasonMalformed, "the header has a second "+genuine+" in other letters")
	}
	for _, extension := range []string{"crit", "b64"} { // RFC 7515 §4.1.11, RFC 7797: none is understood here
		if _, present := header.member(extension); present {
			return refuse(ReasonMalformed, "the header has "+extension)
		}
	}
	for i := range header {
		if want := unusedKind(string(header[i].name)); want != 0 && header[i].value.Kind() != want {
			return refuse(ReasonMalformed, "the header's "+string(header[i].name)+" is not of its type")
		}
	}
	if _, present := header.member("jwk"); present { // no issuer's tokens have one, forged ones do
		return refuse(ReasonUnknownKey, "the header brings a key of its own (jwk), which is none of the issuer's")
	}
	if chain, present := header.member("x5c"); present && !areCertificates(chain) {
		return refuse(ReasonMalformed, "the header's x5c is not a list of certificates")
	}
	if !numbersFit(text) {
		return refuse(ReasonMalformed, "the header has a number that is out of the range of numbers")
	}
	a.headerType, _ = header.text("typ")
	return a.takeKeyID(header)
}

// areCertificates tells whether a header's x5c is what it should be (RFC 7515 §4.1.6).
// Nobody here looks at what they certify.
func areCertificates(chain jsontext.Value) bool {
	texts, ok := list(chain)
	return ok && !slices.ContainsFunc(texts, func(text string) bool {
		der, err := base64.StdEncoding.DecodeString(text)
		if err == nil {
			_, err = x509.ParseCertificate(der)
		}
		return err != nil
	})
}

// unusedKind returns the type of a parameter that RFC 7515 §4.1 or RFC 8555 §6.5.2 defines and nobody reads
// here, 0 for all others. Of another type it would stop other readers of the token.
func unusedKind(name string) jsontext.Kind {
	switch name {
	case "jku", "x5u", "x5t", "x5t#S256", "cty", "nonce":
		return '"'
	case "x5c":
		return '['
	case "jwk":
		return '{'
	}
	return 0
}

// takeKeyID requires a key id, so that no token makes us try key after key.
func (a *attempt) takeKeyID(header object) error {
	value, present := header.member("kid")
	if !present || value.Kind() == 'n' {
		return refuse(ReasonUnknownKey, "the header has no kid")
	}
	if value.Kind() != '"' || len(value) > 6*maxKeyID { // a byte may be escaped with six
		return refuse(ReasonMalformed, "the header's kid is not a string of at most 256 bytes")
	}
	a.keyID, _ = header.text("kid")
	switch {
	case len(a.keyID) > maxKeyID:
		return refuse(ReasonMalformed, "the header's kid is not a string of at most 256 bytes")
	case !printable(a.keyID): // "" too: no key is called that, so nobody needs to be asked
		return refuse(ReasonUnknownKey, "the header's kid is empty or not printable")
	}
	return nil
}

// foldedClaims are the claims in use, here or by who asks for requirements.
var foldedClaims = folded("iss", "sub", "aud", "azp", "exp", "nbf", "iat", "jti", "typ", "cnf", "sid", "acr",
	"scope", "client_id", "realm_access", "resource_access", "groups", "organization",
	"preferred_username", "email", "email_verified", "name", "events", "nonce", "at_hash",
	"_claim_names", "_claim_sources")

func parsePayload(text []byte) (payload, error) {
	claims, err := parseObject(text)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return payload{}, refuse(ReasonAmbiguous, "a name stands twice in one object of the claims")
	case err != nil:
		return payload{}, refuse(ReasonMalformed, "the claims are not one JSON object")
	}
	if !numbersFit(text) {
		return payload{}, refuse(ReasonClaimType, "there is a number that is out of the range of numbers")
	}
	if genuine, found := claims.lookAlike(foldedClaims); found {
		return payload{}, refuse(ReasonAmbiguous, "there is a claim that differs from "+genuine+
			" in letter case only: rename it in the mapper that makes it")
	}
	return payload{object: claims, raw: text}, nil
}
