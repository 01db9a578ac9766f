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
	told map[token.Reason]time.Time
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
		token.ReasonMissingClaim, token.ReasonTokenType, token.ReasonLifetime:
	default:
		return
	}
	if m.isDue(verdict.Reason) {
		m.logger.Warn("token refused; this is often a mistake in the configuration",
			zap.String("reason", string(verdict.Reason)), zap.String("hint", verdict.Hint))
	}
}

func (m *mistakeLog) isDue(reason token.Reason) bool {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, told := m.told[reason]; told && now.Sub(last) < mistakeInterval {
		return false
	}
	if m.told == nil {
		m.told = make(map[token.Reason]time.Time)
	}
	m.told[reason] = now
	return true
}
