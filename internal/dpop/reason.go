package dpop

import (
	"errors"
	"strconv"
)

// Reason says in one word why a proof was refused. To clients all of them are
// invalid_dpop_proof, except [ReasonNonce].
type Reason string

// The closed set of reasons, in the order of the checks.
const (
	// ReasonTooLarge: longer than [Config.MaxSize].
	ReasonTooLarge Reason = "too_large"
	// ReasonMalformed: no JWS in compact form, or its header or claims are not one
	// JSON object without repeated or look-alike names.
	ReasonMalformed Reason = "malformed"
	// ReasonType: typ is not dpop+jwt.
	ReasonType Reason = "typ"
	// ReasonAlgorithm: alg is none of [Config.Algorithms].
	ReasonAlgorithm Reason = "alg"
	// ReasonHeader: the header has crit or b64, or names a second key.
	ReasonHeader Reason = "header"
	// ReasonPrivateKey: jwk holds a private or a symmetric key, which from now on
	// everybody who logs headers knows.
	ReasonPrivateKey Reason = "private_jwk"
	// ReasonKey: jwk is missing, malformed, too weak, or not one for alg.
	ReasonKey Reason = "jwk"
	// ReasonBinding: the access token is bound to another key.
	ReasonBinding Reason = "jkt"
	// ReasonSignature: it is not that of the key.
	ReasonSignature Reason = "signature"
	// ReasonClaim: a claim is missing, or not of its type.
	ReasonClaim Reason = "claim"
	// ReasonMethod: made for another method.
	ReasonMethod Reason = "htm"
	// ReasonURL: made for another URL.
	ReasonURL Reason = "htu"
	// ReasonTooOld: iat is longer ago than [Config.Window].
	ReasonTooOld Reason = "iat_too_old"
	// ReasonIssuedInFuture: iat is further ahead than [Config.Leeway].
	ReasonIssuedInFuture Reason = "iat_in_future"
	// ReasonExpired: exp has passed.
	ReasonExpired Reason = "expired"
	// ReasonNotYetValid: nbf is still to come.
	ReasonNotYetValid Reason = "not_yet_valid"
	// ReasonTokenHash: ath is missing, or that of another access token.
	ReasonTokenHash Reason = "ath"
	// ReasonNonce: the nonce is missing or not one of ours in force. The client is to
	// try again with the nonce in the answer (use_dpop_nonce). Wraps [ErrNonce].
	ReasonNonce Reason = "nonce"
	// ReasonReplay: the proof was here before.
	ReasonReplay Reason = "replay"
)

var (
	// ErrNonce is wrapped by the refusal of a proof that is good but for the nonce
	// (RFC 9449 §9): answer use_dpop_nonce, and send [Nonce.Issue]'s.
	ErrNonce = errors.New("a nonce of this server is asked for")

	// ErrReplayUnknown is wrapped where [Replay] could not tell. It is no verdict on
	// the proof, which must not pass all the same.
	ErrReplayUnknown = errors.New("dpop: cannot tell whether the proof was used before")
)

// Error is the verdict on a proof that was refused.
type Error struct {
	Reason Reason

	// Hint tells the operator more. It may quote the proof's alg or the origin of its
	// htu, escaped and cut short. It is for the log; it is not part of Error().
	Hint string

	// Err is [ErrNonce], or nil.
	Err error
}

// Error holds nothing from the proof.
func (e *Error) Error() string {
	if e.Err != nil {
		return "dpop: " + string(e.Reason) + ": " + e.Err.Error()
	}
	return "dpop: " + string(e.Reason)
}

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns why a proof was refused, and "" if err is no verdict on a proof.
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
