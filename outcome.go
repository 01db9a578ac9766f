package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// outcome says how a request was decided. The set is closed: an outcome is the
// label of the metric, the `reason` of the log line and the value of
// `{http.keycloak_cache_auth.reason}`, and it alone decides what the client is
// told. A token's own faults are outcomes under the name of their
// [token.Reason].
type outcome string

const (
	// The request went on.
	outcomeMember    outcome = "member"
	outcomeAnonymous outcome = "anonymous"
	outcomePreflight outcome = "preflight"
	outcomeStripped  outcome = "stripped"

	// The request was for a path of ours.
	outcomeMetadata         outcome = "resource_metadata"
	outcomeAssertionKeys    outcome = "assertion_keys"
	outcomeLogout           outcome = "logout"
	outcomeLogoutRefused    outcome = "logout_refused"
	outcomeLogoutTooLarge   outcome = "logout_too_large"
	outcomeLogoutPending    outcome = "logout_pending" // known to this node only
	outcomeMethodNotAllowed outcome = "method_not_allowed"

	// The credential as it came.
	outcomeMissingToken           outcome = "missing_token"
	outcomeMalformedAuthorization         = outcome(token.ReasonCharacters)
	outcomeMultipleCredentials    outcome = "multiple_credentials"
	outcomeCrossOrigin            outcome = "cross_origin"

	// Whoever shows the token is not shown to be whom it was made for.
	outcomeInvalidProof       outcome = "invalid_dpop_proof"
	outcomeNonceNeeded        outcome = "use_dpop_nonce"
	outcomeReplayUnknown      outcome = "dpop_replay_unknown" // no room to remember proofs
	outcomeBoundAsBearer      outcome = "bound_token_as_bearer"
	outcomeNotBound           outcome = "token_not_bound"
	outcomeCertificateMissing         = outcome(token.ReasonBound)
	outcomeCertificateOther   outcome = "certificate_mismatch"

	// The token's session, or its user, was logged out after it was made.
	outcomeLoggedOut outcome = "logged_out"

	// What the token lacks.
	outcomeInsufficientScope = outcome(token.ReasonInsufficientScope)

	// The tenant.
	outcomeTenantMissing  outcome = "tenant_missing"
	outcomeTenantInvalid  outcome = "tenant_invalid"
	outcomeTenantMismatch outcome = "tenant_mismatch" // not the token's
	outcomeTenantUnknown  outcome = "tenant_unknown"  // certainly nobody's

	// The member.
	outcomeNotAMember     outcome = "not_a_member"
	outcomeMemberInactive outcome = "member_inactive"
	outcomeKCIDMismatch   outcome = "kc_id_mismatch"
	outcomeTenantOfMember outcome = "member_tenant_mismatch"
	outcomeIssuerOfMember outcome = "member_issuer_mismatch"
	outcomeWrongEntry     outcome = "wrong_entry" // of a cache; never a request's outcome

	// The member is one, and the upstream cannot be told.
	outcomeIdentityTooLarge outcome = "identity_too_large"
	outcomeAssertionFailed  outcome = "assertion_failed"

	// What could not be found out.
	outcomeKeysUnavailable           = outcome(token.ReasonKeysUnavailable)
	outcomeLogoutsUnknown    outcome = "logouts_unknown"
	outcomeIntrospection             = outcome(token.ReasonIntrospection)
	outcomeResolverTimeout   outcome = "resolver_timeout"
	outcomeResolverError     outcome = "resolver_error"
	outcomeResolverAmbiguous outcome = "resolver_ambiguous"
	outcomeResolverBusy      outcome = "resolver_busy"
	outcomeClientGone        outcome = "client_gone"
)

// statusClientClosedRequest is what Caddy's reverse proxy answers, to nobody,
// when the client has gone away.
const statusClientClosedRequest = 499

// statusImplicit is what an answer without a status has.
const statusImplicit = http.StatusOK

// isFinal tells whether a status is that of the answer itself. Of the
// informational ones, 101 is (RFC 9110 section 15.2).
func isFinal(status int) bool {
	return status >= http.StatusOK || status == http.StatusSwitchingProtocols
}

// isFailure tells whether an upstream that answers so has failed.
func isFailure(status int) bool { return status >= http.StatusInternalServerError }

// retryAfter is what a client is told to wait when a dependency cannot answer:
// failed fetches of keys are repeated within five seconds.
const retryAfter = 5 * time.Second

// answer is what a refused client is told. The text ends in
// `{http.error.message}`, which sites show: it says no more than the status
// and the error code do.
type answer struct {
	status int
	// challenged says that the answer holds challenges; code is their error code
	// (RFC 6750 section 3.1, RFC 9449 section 7.1). A request without a credential
	// gets none: nothing was wrong with what it did not send.
	challenged bool
	code       string
	text       error
}

var (
	answerUnauthenticated = answer{http.StatusUnauthorized, true, "", errors.New("authentication required")}
	answerInvalidToken    = answer{http.StatusUnauthorized, true, "invalid_token", errors.New("invalid_token")}
	answerInvalidProof    = answer{http.StatusUnauthorized, true, "invalid_dpop_proof", errors.New("invalid_dpop_proof")}
	answerNonceNeeded     = answer{http.StatusUnauthorized, true, "use_dpop_nonce", errors.New("use_dpop_nonce")}
	answerInvalidRequest  = answer{http.StatusBadRequest, true, "invalid_request", errors.New("invalid_request")}
	answerScope           = answer{http.StatusForbidden, true, "insufficient_scope", errors.New("insufficient_scope")}
	answerBadTenant       = answer{http.StatusBadRequest, false, "", errors.New("tenant missing or malformed")}
	answerBadLogout       = answer{http.StatusBadRequest, false, "", errors.New("invalid_request")}
	answerLogoutTooLarge  = answer{http.StatusRequestEntityTooLarge, false, "", errors.New("request too large")}
	answerCrossOrigin     = answer{http.StatusForbidden, false, "", errors.New("cross-origin request")}
	answerForbidden       = answer{http.StatusForbidden, false, "", errors.New("access to the tenant denied")}
	answerNotFound        = answer{http.StatusNotFound, false, "", errors.New("not found")}
	answerMethod          = answer{http.StatusMethodNotAllowed, false, "", errors.New("method not allowed")}
	answerNoIdentity      = answer{http.StatusInternalServerError, false, "", errors.New("identity cannot be passed on")}
	answerUnavailable     = answer{http.StatusServiceUnavailable, false, "", errors.New("temporarily unable to decide")}
	answerClientGone      = answer{statusClientClosedRequest, false, "", context.Canceled}
)

// answer returns what a client refused with o is told. What is not listed is
// one of the token's faults.
func (o outcome) answer() answer {
	switch o {
	case outcomeMissingToken:
		return answerUnauthenticated
	case outcomeMalformedAuthorization, outcomeMultipleCredentials:
		return answerInvalidRequest
	case outcomeInvalidProof:
		return answerInvalidProof
	case outcomeNonceNeeded:
		return answerNonceNeeded
	case outcomeTenantMissing, outcomeTenantInvalid:
		return answerBadTenant
	case outcomeLogoutRefused:
		return answerBadLogout
	case outcomeLogoutTooLarge:
		return answerLogoutTooLarge
	case outcomeMethodNotAllowed:
		return answerMethod
	case outcomeCrossOrigin:
		return answerCrossOrigin
	case outcomeInsufficientScope:
		return answerScope
	case outcomeTenantMismatch, outcomeTenantUnknown, outcomeNotAMember, outcomeMemberInactive,
		outcomeKCIDMismatch, outcomeTenantOfMember, outcomeIssuerOfMember:
		return answerForbidden
	case outcomeIdentityTooLarge, outcomeAssertionFailed:
		return answerNoIdentity
	case outcomeKeysUnavailable, outcomeIntrospection, outcomeLogoutsUnknown, outcomeReplayUnknown, outcomeLogoutPending,
		outcomeResolverTimeout, outcomeResolverError, outcomeResolverAmbiguous, outcomeResolverBusy:
		return answerUnavailable
	case outcomeClientGone:
		return answerClientGone
	default:
		return answerInvalidToken
	}
}

// admits tells whether a request decided as o goes on by right.
func (o outcome) admits() bool {
	return o == outcomeMember || o == outcomeAnonymous || o == outcomePreflight
}

// isOfResolver tells whether the resolvers could not say whether there is such
// a member. An ambiguous answer is one, but no reason to believe an older one.
func (o outcome) isOfResolver() bool {
	return o == outcomeResolverTimeout || o == outcomeResolverError || o == outcomeResolverBusy
}

// refusal returns the error that ends a request decided as o. It goes to Caddy
// unwrapped, or `{http.error.*}` would stay empty in error routes.
func (o outcome) refusal(header http.Header, details challengeDetails) error {
	a := o.answer()
	if details.hideTenants && a == answerForbidden {
		a = answerNotFound // all that would tell which tenants there are
	}
	if a.challenged {
		header["Www-Authenticate"] = details.challenges(a.code)
	}
	if a.status == http.StatusServiceUnavailable {
		header.Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	}
	header.Set("Cache-Control", "no-store")
	return caddyhttp.Error(a.status, a.text)
}

// outcomeOfToken returns how a failed verification is decided. What is no
// verdict on the token is never told as one.
func outcomeOfToken(err error) outcome {
	if reason := token.ReasonOf(err); reason != "" {
		return outcome(reason)
	}
	if errors.Is(err, context.Canceled) {
		return outcomeClientGone
	}
	return outcomeKeysUnavailable
}
