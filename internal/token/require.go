package token

import (
	"fmt"
	"slices"
	"strings"
)

// RequirementKind says what of a token a [Requirement] looks at.
type RequirementKind string

// The kinds there are.
const (
	RequireScope      RequirementKind = "scope"       // one of scope's words
	RequireRealmRole  RequirementKind = "realm_role"  // one of realm_access.roles
	RequireClientRole RequirementKind = "client_role" // one of resource_access.<client>.roles
	RequireGroup      RequirementKind = "group"       // one of groups, as Keycloak writes them: with path or without
	RequireACR        RequirementKind = "acr"         // acr itself
)

// Requirement is something a token has to have. It is compared byte for byte: no
// prefix, no pattern, and no role or level that would imply another.
type Requirement struct {
	Kind   RequirementKind
	Client string   // whose role, with RequireClientRole
	AnyOf  []string // of which one suffices
}

// Validate reports what is wrong with a requirement.
func (r Requirement) Validate() error {
	switch r.Kind {
	case RequireScope, RequireRealmRole, RequireGroup, RequireACR:
		if r.Client != "" {
			return fmt.Errorf("%s: has no client", r.Kind)
		}
	case RequireClientRole:
		if r.Client == "" {
			return fmt.Errorf("%s: the client is missing", r.Kind)
		}
	default:
		return fmt.Errorf("%q: not scope, realm_role, client_role, group or acr", r.Kind)
	}
	if len(r.AnyOf) == 0 {
		return fmt.Errorf("%s: names nothing", r.Kind)
	}
	for _, name := range r.AnyOf {
		switch {
		case name == "":
			return fmt.Errorf("%s: a name is empty", r.Kind)
		case r.Kind == RequireScope && !isScope(name):
			return fmt.Errorf("%s: %q is not one scope: give each as a name of its own", r.Kind, name)
		}
	}
	return nil
}

// isScope takes the characters of a scope-token (RFC 6749 §3.3), which are also those
// that may stand in a challenge.
func isScope(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return true
}

// Meet reports whether the token meets all of the requirements. Its error is an
// [*Error] with [ReasonInsufficientScope], the scopes to name in the challenge, and a
// hint at what is missing. It has to be asked on each request.
func (t *Token) Meet(requirements []Requirement) error {
	for _, r := range requirements {
		if !t.has(r) {
			return &Error{Reason: ReasonInsufficientScope, Scope: scopesOf(requirements), Hint: r.missing()}
		}
	}
	return nil
}

func (t *Token) has(r Requirement) bool {
	var names []string
	switch r.Kind {
	case RequireScope:
		names = t.Scope
	case RequireRealmRole:
		names = t.RealmRoles
	case RequireClientRole:
		names = t.ClientRoles[r.Client]
	case RequireGroup:
		names = t.Groups
	case RequireACR:
		return t.ACR != "" && slices.Contains(r.AnyOf, t.ACR)
	}
	return slices.ContainsFunc(r.AnyOf, func(name string) bool { return slices.Contains(names, name) })
}

// missing names what was asked for, and where in Keycloak it comes from; it holds
// nothing from the token.
func (r Requirement) missing() string {
	what := strings.ReplaceAll(string(r.Kind), "_", " ")
	if r.Client != "" {
		what += " of " + quote(r.Client)
	}
	want := quote(r.AnyOf[0])
	if len(r.AnyOf) > 1 {
		want = "one of " + quoteList(r.AnyOf)
	}
	remedy := map[RequirementKind]string{
		RequireScope: "the client has to ask for it, and have it as a client scope",
		RequireRealmRole: "the user needs the role, the client a scope that lets it into tokens (full scope, or " +
			"the role's scope mapping), and the client scope \"roles\"",
		RequireClientRole: "the user needs the role, the client a scope that lets it into tokens (full scope, or " +
			"the role's scope mapping), and the client scope \"roles\"",
		RequireGroup: "the user has to be in it, and the client needs a Group Membership mapper to the claim groups",
		RequireACR:   "the client has to ask for that level of authentication (acr_values)",
	}[r.Kind]
	return fmt.Sprintf("the token lacks %s %s: %s", what, want, remedy)
}

// scopesOf lists all scopes that are required. Where one of several suffices, all are
// named: the challenge cannot say "or" (RFC 6750 §3).
func scopesOf(requirements []Requirement) []string {
	var names []string
	for _, r := range requirements {
		if r.Kind != RequireScope {
			continue
		}
		for _, name := range r.AnyOf {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
