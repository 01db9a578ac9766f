package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// The whole policy of what a refused client is told.
func TestAnswers(t *testing.T) {
	const (
		bare           = `Bearer`
		invalidRequest = `Bearer error="invalid_request"`
		invalidToken   = `Bearer error="invalid_token"`
	)
	for o, want := range map[outcome]struct {
		status     int
		challenge  string
		retryAfter string
	}{
		outcomeMissingToken:                    {401, bare, ""},
		outcomeMalformedAuthorization:          {400, invalidRequest, ""},
		outcomeMultipleCredentials:             {400, invalidRequest, ""},
		outcomeTenantMissing:                   {400, "", ""},
		outcomeTenantInvalid:                   {400, "", ""},
		outcomeNotAMember:                      {403, "", ""},
		outcomeMemberInactive:                  {403, "", ""},
		outcomeKCIDMismatch:                    {403, "", ""},
		outcomeTenantMismatch:                  {403, "", ""},
		outcomeTenantOfMember:                  {403, "", ""},
		outcomeTenantUnknown:                   {403, "", ""},
		outcomeMethodNotAllowed:                {405, "", ""},
		outcomeCrossOrigin:                     {403, "", ""},
		outcomeInsufficientScope:               {403, `Bearer error="insufficient_scope"`, ""},
		outcomeIssuerOfMember:                  {403, "", ""},
		outcomeKeysUnavailable:                 {503, "", "5"},
		outcomeResolverTimeout:                 {503, "", "5"},
		outcomeResolverError:                   {503, "", "5"},
		outcomeResolverAmbiguous:               {503, "", "5"},
		outcomeClientGone:                      {499, "", ""},
		outcomeInvalidProof:                    {401, bare, ""},
		outcomeNonceNeeded:                     {401, bare, ""},
		outcomeReplayUnknown:                   {503, "", "5"},
		outcomeBoundAsBearer:                   {401, invalidToken, ""},
		outcomeNotBound:                        {401, invalidToken, ""},
		outcomeCertificateOther:                {401, invalidToken, ""},
		outcomeLoggedOut:                       {401, invalidToken, ""},
		outcomeIntrospection:                   {503, "", "5"},
		outcomeLogoutsUnknown:                  {503, "", "5"},
		outcomeLogoutRefused:                   {400, "", ""},
		outcomeLogoutTooLarge:                  {413, "", ""},
		outcomeLogoutPending:                   {503, "", "5"},
		outcomeIdentityTooLarge:                {500, "", ""},
		outcomeAssertionFailed:                 {500, "", ""},
		outcome(token.ReasonInactive):          {401, invalidToken, ""},
		outcome(token.ReasonTooLarge):          {401, invalidToken, ""},
		outcome(token.ReasonMalformed):         {401, invalidToken, ""},
		outcome(token.ReasonAlgorithm):         {401, invalidToken, ""},
		outcome(token.ReasonAmbiguous):         {401, invalidToken, ""},
		outcome(token.ReasonIssuer):            {401, invalidToken, ""},
		outcome(token.ReasonBound):             {401, invalidToken, ""},
		outcome(token.ReasonTokenType):         {401, invalidToken, ""},
		outcome(token.ReasonHeaderType):        {401, invalidToken, ""},
		outcome(token.ReasonExpired):           {401, invalidToken, ""},
		outcome(token.ReasonUnknownKey):        {401, invalidToken, ""},
		outcome(token.ReasonSignature):         {401, invalidToken, ""},
		outcome(token.ReasonMissingClaim):      {401, invalidToken, ""},
		outcome(token.ReasonClaimType):         {401, invalidToken, ""},
		outcome(token.ReasonNotYetValid):       {401, invalidToken, ""},
		outcome(token.ReasonIssuedInFuture):    {401, invalidToken, ""},
		outcome(token.ReasonLifetime):          {401, invalidToken, ""},
		outcome(token.ReasonAudience):          {401, invalidToken, ""},
		outcome(token.ReasonAuthorizedParty):   {401, invalidToken, ""},
		outcome("something nobody thought of"): {401, invalidToken, ""},
	} {
		t.Run(string(o), func(t *testing.T) {
			header := make(http.Header)
			err := o.refusal(header, challengeDetails{})
			refusal, ok := err.(caddyhttp.HandlerError) //nolint:errorlint // a wrapped one would leave {http.error.*} empty
			if !ok {
				t.Fatalf("got %T, want an unwrapped HandlerError", err)
			}
			if refusal.StatusCode != want.status {
				t.Errorf("status %d, want %d", refusal.StatusCode, want.status)
			}
			if got := header.Get("WWW-Authenticate"); got != want.challenge {
				t.Errorf("challenge %q, want %q", got, want.challenge)
			}
			if got := header.Get("Retry-After"); got != want.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, want.retryAfter)
			}
			if got := header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q, want no-store", got)
			}
			if o != outcomeInsufficientScope && o != outcomeInvalidProof && o != outcomeNonceNeeded && strings.Contains(refusal.Err.Error(), string(o)) { // the RFCs' own words
				t.Errorf("the client could be told the reason: %q", refusal.Err)
			}
		})
	}
}

func TestOutcomeOfToken(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want outcome
	}{
		"a verdict":                 {&token.Error{Reason: token.ReasonExpired}, outcome(token.ReasonExpired)},
		"no keys":                   {&token.Error{Reason: token.ReasonKeysUnavailable, Err: context.Canceled}, outcomeKeysUnavailable},
		"the client went away":      {context.Canceled, outcomeClientGone},
		"the request took too long": {context.DeadlineExceeded, outcomeKeysUnavailable},
		"neither verdict nor cause": {errors.New("?"), outcomeKeysUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcomeOfToken(tc.err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// RFC 6750 section 3 and RFC 9728 section 5.1: what challenges say beyond the
// error.
func TestChallengeDetails(t *testing.T) {
	const metadata = "https://app.example.com/.well-known/oauth-protected-resource"
	for name, tc := range map[string]struct {
		outcome outcome
		details challengeDetails
		want    string
	}{
		"scopes":             {outcomeInsufficientScope, challengeDetails{scopes: []string{"read", "write"}}, `Bearer error="insufficient_scope", scope="read write"`},
		"metadata alone":     {outcomeMissingToken, challengeDetails{metadata: metadata}, `Bearer resource_metadata="` + metadata + `"`},
		"metadata and error": {"expired", challengeDetails{metadata: metadata}, `Bearer error="invalid_token", resource_metadata="` + metadata + `"`},
		"everything": {
			outcomeInsufficientScope,
			challengeDetails{scopes: []string{"a"}, metadata: metadata},
			`Bearer error="insufficient_scope", scope="a", resource_metadata="` + metadata + `"`,
		},
		"no challenge at all": {outcomeNotAMember, challengeDetails{metadata: metadata}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := make(http.Header)
			_ = tc.outcome.refusal(header, tc.details)
			if got := header.Get("WWW-Authenticate"); got != tc.want {
				t.Errorf("challenge %q, want %q", got, tc.want)
			}
		})
	}
}
