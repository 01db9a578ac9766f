package keycloakcacheauth

import (
	"errors"
	"fmt"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// Requirement is something that a token must say besides being valid. It is
// looked at on each request. A request whose token lacks it gets a 403 with
// `error="insufficient_scope"`.
type Requirement struct {
	// What is required: `scope`, `realm_role`, `client_role`, `group` or `acr`.
	Kind string `json:"kind,omitempty"`

	// The client whose role is required; for `client_role` only.
	Client string `json:"client,omitempty"`

	// The names of which the token must have one, compared exactly. Groups are
	// named as the token does, with a leading slash where full paths are on.
	AnyOf []string `json:"any_of,omitempty"`
}

func (r Requirement) token() token.Requirement {
	return token.Requirement{Kind: token.RequirementKind(r.Kind), Client: r.Client, AnyOf: r.AnyOf}
}

func (h *Handler) checkRequirements() error {
	for _, r := range h.Require {
		if err := r.token().Validate(); err != nil {
			return fmt.Errorf("require: %w", err)
		}
	}
	return nil
}

// scopesOf returns the scopes to name in the challenge of a refused token.
func scopesOf(err error) []string {
	if verdict, ok := errors.AsType[*token.Error](err); ok {
		return verdict.Scope
	}
	return nil
}
