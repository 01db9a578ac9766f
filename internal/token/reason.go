package token

import (
	"errors"
	"strconv"
	"strings"
)

// Reason says why a token was refused. The set is closed, so that it can be a
// metric label and a field of a log line.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	// ReasonTooLarge: longer than [Config.MaxSize].
	ReasonTooLarge Reason = "token_too_large"
	// ReasonCharacters: no bearer token at all (RFC 6750 §2.1), whoever made it.
	ReasonCharacters Reason = "malformed_authorization"
	// ReasonMalformed: not a compact JWS of two JSON objects (RFC 7515 §7.1),
	// or one that asks for an extension (crit, b64).
	ReasonMalformed Reason = "token_malformed"
	// ReasonAlgorithm: signed with an algorithm that is not configured.
	ReasonAlgorithm Reason = "alg_not_allowed"
	// ReasonAmbiguous: a claim stands there twice, or once more in other letters.
	ReasonAmbiguous Reason = "claim_ambiguous"
	// ReasonIssuer: iss is not, byte for byte, the configured issuer.
	ReasonIssuer Reason = "issuer_mismatch"
	// ReasonBound: bound to a key of its sender (cnf) in a way that is not verified here.
	ReasonBound Reason = "cnf_unsupported"
	// ReasonTokenType: the payload's typ is not Bearer: an ID, refresh or logout token.
	ReasonTokenType Reason = "wrong_token_type"
	// ReasonHeaderType: the header's typ is not that of an access token.
	ReasonHeaderType Reason = "bad_typ"
	// ReasonExpired: exp, and the leeway after it, have passed.
	ReasonExpired Reason = "expired"
	// ReasonUnknownKey: the issuer, asked, has no signing key of that id.
	ReasonUnknownKey Reason = "unknown_key"
	// ReasonKeysUnavailable: the issuer's keys cannot be had. Not the token's fault.
	ReasonKeysUnavailable Reason = "keys_unavailable"
	// ReasonSignature: the signature does not fit, or the key not the algorithm.
	ReasonSignature Reason = "bad_signature"
	// ReasonIntrospection: the issuer cannot be asked about the token. Not its fault.
	ReasonIntrospection Reason = "introspection_unavailable"
	// ReasonInactive: the issuer, asked about the token, says that it is not active.
	ReasonInactive Reason = "token_inactive"
	// ReasonMissingClaim: sub, exp or iat is absent, null or empty.
	ReasonMissingClaim Reason = "missing_claim"
	// ReasonClaimType: a claim is not of its type, or out of its range.
	ReasonClaimType Reason = "claim_type"
	// ReasonNotYetValid: nbf is still to come.
	ReasonNotYetValid Reason = "not_yet_valid"
	// ReasonIssuedInFuture: iat is still to come.
	ReasonIssuedInFuture Reason = "issued_in_future"
	// ReasonLifetime: exp − iat is more than [Config.MaxLifetime].
	ReasonLifetime Reason = "lifetime_too_long"
	// ReasonAudience: none of the configured audiences is in aud.
	ReasonAudience Reason = "audience_mismatch"
	// ReasonAuthorizedParty: azp is none of the configured clients.
	ReasonAuthorizedParty Reason = "azp_not_allowed"
	// ReasonInsufficientScope: a [Requirement] is not met. The token itself is good.
	ReasonInsufficientScope Reason = "insufficient_scope"
)

// Error is the verdict on a token that was refused.
type Error struct {
	Reason Reason

	// Scope names what would have sufficed, where scopes are required; only with
	// ReasonInsufficientScope. It is for the challenge (RFC 6750 §3).
	Scope []string

	// Hint tells the operator what to do. Beside configured values and names of
	// claims it may quote the token's iss, aud, azp, typ or alg, escaped and cut
	// short. It is for the log; it is not part of Error().
	Hint string

	// Err is what went wrong underneath, if anything did. It never holds
	// anything from the token.
	Err error
}

// Error holds nothing from the token: servers show such texts to clients.
func (e *Error) Error() string {
	if e.Err != nil {
		return "token: " + string(e.Reason) + ": " + e.Err.Error()
	}
	return "token: " + string(e.Reason)
}

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns why a token was refused, and "" if err is no verdict on a
// token: nil, or the caller's own context having ended.
func ReasonOf(err error) Reason {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal.Reason
	}
	return ""
}

func refuse(reason Reason, hint string) error {
	return &Error{Reason: reason, Hint: hint}
}

// quote makes text from outside fit for a log line: ASCII, escaped, short.
func quote(text string) string {
	const most = 120
	if len(text) > most {
		return strconv.QuoteToASCII(text[:most]) + "…"
	}
	return strconv.QuoteToASCII(text)
}

// quoteList is quote for lists, of which it shows the beginning.
func quoteList(texts []string) string {
	const most = 5
	quoted := make([]string, 0, most+1)
	for i, text := range texts {
		if i == most {
			quoted = append(quoted, "…")
			break
		}
		quoted = append(quoted, quote(text))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
