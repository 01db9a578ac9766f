package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// checkReportOnly tells what is wrong with the settings of report_only, under
// which the upstream decides by itself, as it did before there was this module.
func (h *Handler) checkReportOnly() error {
	switch {
	case h.ReportOnly && h.StripToken:
		return errors.New("report_only leaves it to the upstream who gets in, so the token has to reach it; remove strip_token, or report_only")
	case h.CompareHeader != nil && !h.ReportOnly:
		return errors.New("compare_header needs report_only: once the upstream takes users from here, it can only agree; add that, or remove this")
	case h.CompareHeader != nil:
		return h.CompareHeader.check()
	default:
		return nil
	}
}

// decideInTime is decide for requests that go on whatever is decided: none
// waits for longer than the resolvers may take, for anything, and nothing is
// said in the response.
func (h *Handler) decideInTime(r *http.Request, repl *caddy.Replacer, shown credential, claimed claimedTenant, id *identity) (outcome, error) {
	ctx, cancel := context.WithTimeout(r.Context(), h.members.timeout)
	defer cancel()
	return h.decide(make(http.Header), r.WithContext(ctx), repl, shown, claimed, id)
}

// report tells of a request that would have been refused. Its outcome stays,
// and its user is forgotten, as after a refusal.
func (h *Handler) report(decided outcome, id *identity, err error) {
	h.metrics.reported(decided)
	if c := h.logger.Check(zapcore.InfoLevel, "request would have been refused"); c != nil {
		if h.logger.Core().Enabled(zapcore.DebugLevel) {
			c.Write(refusalFields(decided, id, err)...)
		} else {
			c.Write(zap.String("reason", string(decided)))
		}
	}
	id.forget(decided)
}

// giveBack gives a request that is nobody's the tenant header that the client
// sent: the upstream knows its users by itself.
func (h *Handler) giveBack(header http.Header, sent []string, decided outcome) {
	if decided != outcomeMember && sent != nil {
		header[h.tenant.header] = sent
	}
}
