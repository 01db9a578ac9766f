package keycloakcacheauth

import (
	"net/http"
	"strings"
)

// credential is what a request shows to be let in, as it came.
type credential struct {
	token  string
	source tokenSource // where the token was; zero without one
	dpop   bool        // the token came under the scheme DPoP …
	proofs []string    // … with these proofs, of which there has to be one
	// fault is why there is no token to verify, "" if there is one.
	fault outcome
}

// takeCredential returns the one token of the request's Authorization field
// (RFC 6750 section 2.1, RFC 9449 section 7.1; RFC 9110 section 11.6.2: the
// scheme's case does not matter, one or more spaces follow it).
//
// Another scheme is no credential for us. Several fields are refused rather
// than chosen from: what stands behind us might choose another one. Whether a
// token is made of the right characters is for [token.Issuers] to say, once for
// each: to look through it on each request would be the dearest part of most.
func takeCredential(header http.Header) credential {
	fields := header["Authorization"]
	switch len(fields) {
	case 0:
		return credential{fault: outcomeMissingToken}
	case 1:
	default:
		return credential{fault: outcomeMultipleCredentials}
	}

	if value, ours := credentialOf(fields[0], "Bearer"); ours {
		if value == "" {
			return credential{fault: outcomeMalformedAuthorization}
		}
		return credential{token: value}
	}
	if value, ours := credentialOf(fields[0], "DPoP"); ours {
		if value == "" {
			return credential{fault: outcomeMalformedAuthorization, dpop: true}
		}
		return credential{token: value, dpop: true, proofs: header[proofHeader]}
	}
	return credential{fault: outcomeMissingToken}
}

// credentialOf returns what follows a scheme and its spaces, and whether the
// field is of that scheme. It is "" if nothing does, or not after a space.
func credentialOf(field, scheme string) (value string, ours bool) {
	if len(field) < len(scheme) || !strings.EqualFold(field[:len(scheme)], scheme) {
		return "", false
	}
	rest := field[len(scheme):]
	if rest != "" && isTokenChar(rest[0]) {
		return "", false // a longer scheme name: Bearerish
	}
	value = strings.TrimLeft(rest, " ")
	if len(value) == len(rest) {
		return "", true
	}
	return value, true
}

// isTokenChar tells whether c may stand in a token of RFC 9110 section 5.6.2,
// such as the name of a scheme or of a header field.
func isTokenChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isPreflight tells whether the request is a CORS preflight
// (https://fetch.spec.whatwg.org/#cors-preflight-request), which never carries
// a credential.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions &&
		len(r.Header["Origin"]) > 0 && len(r.Header["Access-Control-Request-Method"]) > 0
}
