package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
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
	outcomeMethodNotAllowed outcome = "method_not_allowed"

	// The credential as it came.
	outcomeMissingToken           outcome = "missing_token"
	outcomeMalformedAuthorization outcome = "malformed_authorization"
	outcomeMultipleCredentials    outcome = "multiple_credentials"
	outcomeCrossOrigin            outcome = "cross_origin"

	// What the token lacks.
	outcomeInsufficientScope = outcome(token.ReasonInsufficientScope)

	// The tenant.
	outcomeTenantMissing  outcome = "tenant_missing"
	outcomeTenantInvalid  outcome = "tenant_invalid"
	outcomeTenantMismatch outcome = "tenant_mismatch" // not the token's

	// The member.
	outcomeNotAMember     outcome = "not_a_member"
	outcomeMemberInactive outcome = "member_inactive"
	outcomeKCIDMismatch   outcome = "kc_id_mismatch"
	outcomeTenantOfMember outcome = "member_tenant_mismatch"
	outcomeIssuerOfMember outcome = "member_issuer_mismatch"
	outcomeWrongEntry     outcome = "wrong_entry" // of a cache; never a request's outcome

	// What could not be found out.
	outcomeKeysUnavailable           = outcome(token.ReasonKeysUnavailable)
	outcomeResolverTimeout   outcome = "resolver_timeout"
	outcomeResolverError     outcome = "resolver_error"
	outcomeResolverAmbiguous outcome = "resolver_ambiguous"
	outcomeClientGone        outcome = "client_gone"
)

// statusClientClosedRequest is what Caddy's reverse proxy answers, to nobody,
// when the client has gone away.
const statusClientClosedRequest = 499

// retryAfter is what a client is told to wait when a dependency cannot answer:
// failed fetches of keys are repeated within five seconds.
const retryAfter = 5 * time.Second

// Challenges of RFC 6750 section 3. A request without a credential gets the
// bare one: nothing was wrong with what it did not send.
const (
	challengeBare           = `Bearer`
	challengeInvalidRequest = `Bearer error="invalid_request"`
	challengeInvalidToken   = `Bearer error="invalid_token"`
	challengeScope          = `Bearer error="insufficient_scope"`
)

// answer is what a refused client is told. The text ends in
// `{http.error.message}`, which sites show: it says no more than the status
// and RFC 6750's error code do.
type answer struct {
	status    int
	challenge string
	text      error
}

var (
	answerUnauthenticated = answer{http.StatusUnauthorized, challengeBare, errors.New("authentication required")}
	answerInvalidToken    = answer{http.StatusUnauthorized, challengeInvalidToken, errors.New("invalid_token")}
	answerInvalidRequest  = answer{http.StatusBadRequest, challengeInvalidRequest, errors.New("invalid_request")}
	answerBadTenant       = answer{http.StatusBadRequest, "", errors.New("tenant missing or malformed")}
	answerScope           = answer{http.StatusForbidden, challengeScope, errors.New("insufficient_scope")}
	answerCrossOrigin     = answer{http.StatusForbidden, "", errors.New("cross-origin request")}
	answerForbidden       = answer{http.StatusForbidden, "", errors.New("access to the tenant denied")}
	answerMethod          = answer{http.StatusMethodNotAllowed, "", errors.New("method not allowed")}
	answerUnavailable     = answer{http.StatusServiceUnavailable, "", errors.New("temporarily unable to decide")}
	answerClientGone      = answer{statusClientClosedRequest, "", context.Canceled}
)

// answer returns what a client refused with o is told. What is not listed is
// one of the token's faults.
func (o outcome) answer() answer {
	switch o {
	case outcomeMissingToken:
		return answerUnauthenticated
	case outcomeMalformedAuthorization, outcomeMultipleCredentials:
		return answerInvalidRequest
	case outcomeTenantMissing, outcomeTenantInvalid:
		return answerBadTenant
	case outcomeMethodNotAllowed:
		return answerMethod
	case outcomeCrossOrigin:
		return answerCrossOrigin
	case outcomeInsufficientScope:
		return answerScope
	case outcomeTenantMismatch, outcomeNotAMember, outcomeMemberInactive,
		outcomeKCIDMismatch, outcomeTenantOfMember, outcomeIssuerOfMember:
		return answerForbidden
	case outcomeKeysUnavailable, outcomeResolverTimeout, outcomeResolverError, outcomeResolverAmbiguous:
		return answerUnavailable
	case outcomeClientGone:
		return answerClientGone
	default:
		return answerInvalidToken
	}
}

// challengeDetails is what a challenge says beyond the outcome.
type challengeDetails struct {
	scopes   []string // that would be needed (RFC 6750 section 3)
	metadata string   // URL of the resource's metadata (RFC 9728 section 5.1)
}

// refusal returns the error that ends a request decided as o. It goes to Caddy
// unwrapped, or `{http.error.*}` would stay empty in error routes.
func (o outcome) refusal(header http.Header, details challengeDetails) error {
	a := o.answer()
	if challenge := a.challenge; challenge != "" {
		separator := ", "
		if challenge == challengeBare {
			separator = " "
		}
		if len(details.scopes) > 0 {
			challenge += separator + `scope="` + strings.Join(details.scopes, " ") + `"`
			separator = ", "
		}
		if details.metadata != "" {
			challenge += separator + `resource_metadata="` + details.metadata + `"`
		}
		header.Set("Www-Authenticate", challenge)
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
