package keycloakcacheauth

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// mistakeLog tells of refused tokens that most often mean a mistake in
// Keycloak's or this configuration, with what to do about it: once per kind and
// minute, because anybody can send such tokens.
type mistakeLog struct {
	logger *zap.Logger
	now    func() time.Time

	mu   sync.Mutex
	told map[mistake]time.Time
}

// mistake is a kind of mistake: why tokens of one sort are refused.
type mistake struct {
	logout bool
	reason token.Reason // of a refused token
	kind   outcome      // of another mistake
}

const mistakeInterval = time.Minute

// note logs a refused token's hint, if its reason is one of the common mistakes.
func (m *mistakeLog) note(err error) {
	verdict, ok := errors.AsType[*token.Error](err)
	if !ok || verdict.Hint == "" {
		return
	}
	switch verdict.Reason {
	case token.ReasonIssuer, token.ReasonAudience, token.ReasonAuthorizedParty,
		token.ReasonMissingClaim, token.ReasonTokenType, token.ReasonLifetime,
		token.ReasonBound, token.ReasonInactive:
	default:
		return
	}
	if m.isDue(mistake{reason: verdict.Reason}) {
		m.logger.Warn("token refused; this is often a mistake in the configuration",
			zap.String("reason", string(verdict.Reason)), zap.String("hint", verdict.Hint))
	}
}

// noteLogout logs why a logout token was refused. Few have reason to send any,
// so whatever is wrong with one may be a mistake.
func (m *mistakeLog) noteLogout(err error) {
	verdict, ok := errors.AsType[*token.Error](err)
	if ok && m.isDue(mistake{logout: true, reason: verdict.Reason}) {
		m.logger.Warn("logout token refused; this may be a mistake in the configuration",
			zap.String("reason", string(verdict.Reason)), zap.String("hint", verdict.Hint))
	}
}

// noteIdentity logs why the upstream cannot be told who an admitted member is.
func (m *mistakeLog) noteIdentity(why outcome, id *identity, details ...zap.Field) {
	if m.isDue(mistake{kind: why}) {
		m.logger.Error("a member's identity cannot be passed on; it needs fewer or shorter values if it is too large, and text that is UTF-8",
			append(details, zap.String("reason", string(why)), zap.String("tenant", id.tenant),
				zap.String("kc_id", id.token.Subject), zap.String("member_id", id.member.ID))...)
	}
}

func (m *mistakeLog) isDue(kind mistake) bool {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, told := m.told[kind]; told && now.Sub(last) < mistakeInterval {
		return false
	}
	if m.told == nil {
		m.told = make(map[mistake]time.Time)
	}
	m.told[kind] = now
	return true
}
