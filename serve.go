package keycloakcacheauth

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// ServeHTTP implements [caddyhttp.MiddlewareHandler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if h.StripOnly {
		return h.stripAndPass(w, r, repl, next)
	}
	if serve := h.ownPath(r); serve != nil {
		return h.serveOwn(w, r, repl, serve)
	}
	// these are read before the strip, to which the tenant header falls victim
	shown := h.sources.take(r)
	claimed := h.tenant.take(r, repl)
	var sent []string
	if h.ReportOnly {
		sent = r.Header[h.tenant.header]
	}
	trailers := h.owned.strip(r)
	if h.StripToken {
		h.sources.remove(r)
	}

	id := identityOf(repl)
	var decided outcome
	var err error
	if h.ReportOnly {
		decided, err = h.decideInTime(r, repl, shown, claimed, id)
	} else {
		decided, err = h.decide(w.Header(), r, repl, shown, claimed, id)
	}
	who := id.subject()
	if decided.admits() {
		id.outcome = decided
		if refused := h.identify(r.Header, repl, id); refused != "" {
			decided = refused
		}
	}
	switch {
	case decided.admits():
		h.metrics.decided(decided)
		h.logAdmitted(id)
	case h.ReportOnly:
		h.report(decided, id, err)
	default:
		return trailers.abandonOn(w, h.refuse(w.Header(), decided, shown, id, err))
	}
	if h.ReportOnly {
		h.giveBack(r.Header, sent, decided)
	}
	return trailers.abandonOn(w, h.passOn(w, r, next, id, who))
}

// stripAndPass serves where nobody is asked who he is.
func (h *Handler) stripAndPass(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, next caddyhttp.Handler) error {
	trailers := h.owned.strip(r)
	identityOf(repl).outcome = outcomeStripped
	h.metrics.decided(outcomeStripped)
	return trailers.abandonOn(w, next.ServeHTTP(w, r))
}

// serveOwn serves a path of ours.
func (h *Handler) serveOwn(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, serve ownPath) error {
	trailers := h.owned.strip(r) // error routes may send it on
	decided, err := serve(w, r)
	h.metrics.decided(decided)
	identityOf(repl).outcome = decided
	return trailers.abandonOn(w, err)
}

// refuse ends a request. The error, if any, is why its token was refused.
func (h *Handler) refuse(header http.Header, decided outcome, shown credential, id *identity, err error) error {
	h.metrics.decided(decided)
	h.logRefused(decided, id, err)
	id.forget(decided)
	return decided.refusal(header, challengeDetails{
		scopes: scopesOf(err), metadata: h.metadata.challengeURL(), dpop: h.sender.details(shown), hideTenants: h.HideTenants,
	})
}

// ownPath serves a request for a path of ours.
type ownPath func(http.ResponseWriter, *http.Request) (outcome, error)

// ownPath returns what serves the request, if it is for a path of ours. Who
// asks there has no token.
func (h *Handler) ownPath(r *http.Request) ownPath {
	switch {
	case h.metadata.isFor(r):
		return h.metadata.serve
	case h.isLogout(r):
		return h.serveLogout
	case h.assertions.isFor(r):
		return h.assertions.serve
	default:
		return nil
	}
}

// decide fills id in and returns how the request is decided. The error, if
// any, is why a token was refused; it is for the log. header is the response's.
func (h *Handler) decide(header http.Header, r *http.Request, repl *caddy.Replacer, shown credential, claimed claimedTenant, id *identity) (outcome, error) {
	id.requestedTenant = claimed.name
	switch {
	case h.Preflight == preflightPass && isPreflight(r):
		return outcomePreflight, nil
	case h.Optional && shown.fault == outcomeMissingToken:
		return outcomeAnonymous, nil
	case shown.fault != "":
		return shown.fault, nil
	case shown.dpop && h.sender.proofs == nil:
		return outcomeMissingToken, nil // none of a kind that is taken; but who sent it does not mean to be anonymous
	case shown.source.ambient() && isCrossOrigin(r):
		return outcomeCrossOrigin, nil
	}

	ctx := r.Context()
	if h.introspects != nil {
		ctx = h.introspects.observe(ctx)
	}
	verified, err := h.tokens.Verify(ctx, shown.token)
	if err != nil {
		h.mistakes.note(err)
		return outcomeOfToken(err), err
	}
	tok := verified.Token
	if h.LogoutPath != "" && !h.members.stores.knowsLogouts(ctx, h.members.now()) {
		return outcomeLogoutsUnknown, nil
	}
	if h.members.stores.loggedOut(tok.Issuer, tok.SessionID, tok.Subject, tok.IssuedAt) {
		return outcomeLoggedOut, nil
	}
	if refused, err := h.sender.check(header, r, shown, tok.Confirmation); refused != "" {
		return refused, err
	}
	if err := tok.Meet(h.required); err != nil {
		return outcomeInsufficientScope, err
	}
	id.token = tok

	claimed = h.tenant.fromToken(claimed, repl, id)
	if claimed.fault != "" {
		return claimed.fault, nil
	}
	id.requestedTenant = claimed.name
	if !h.bindings[verified.Index].allows(verified, claimed.name) {
		return outcomeTenantMismatch, nil
	}

	id.visit = h.visits.last(tok, claimed.name)
	member, refused := h.members.find(r.Context(), tok, claimed.name, id.visit)
	if refused != "" {
		return refused, nil
	}
	id.tenant, id.member, id.source = claimed.name, member.member, member.source
	id.loadedAt, id.memberEnd = member.loadedAt, member.end
	return outcomeMember, nil
}

func (h *Handler) logAdmitted(id *identity) {
	c := h.logger.Check(zapcore.DebugLevel, "request admitted")
	if c == nil {
		return
	}
	fields := []zap.Field{zap.String("outcome", string(id.outcome)), zap.String("cache", string(id.source))}
	if id.member != nil {
		fields = append(fields, zap.String("tenant", id.tenant),
			zap.String("kc_id", id.token.Subject), zap.String("member_id", id.member.ID))
	}
	c.Write(fields...)
}

func (h *Handler) logRefused(decided outcome, id *identity, err error) {
	if c := h.logger.Check(zapcore.DebugLevel, "request refused"); c != nil {
		c.Write(refusalFields(decided, id, err)...)
	}
}

// refusalFields says of a refused request why, and whose it is.
func refusalFields(decided outcome, id *identity, err error) []zap.Field {
	fields := []zap.Field{zap.String("reason", string(decided)), zap.String("requested_tenant", id.requestedTenant)}
	if id.token != nil {
		fields = append(fields, zap.String("kc_id", id.token.Subject))
	}
	if verdict, ok := errors.AsType[*token.Error](err); ok && verdict.Hint != "" {
		fields = append(fields, zap.String("hint", verdict.Hint))
	}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	return fields
}
