// Package static finds members in the configuration itself.
package static

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func init() {
	caddy.RegisterModule(Resolver{})
}

// Resolver knows the members that the configuration lists. It is meant for
// trials, for tests of a site's configuration, and for a handful of members
// that no database holds, such as service accounts. Whoever is not listed is
// not a member.
//
// Global placeholders such as `{env.X}` and `{file./path}` are expanded in all
// values when the configuration is loaded; write `\{` for a brace that begins
// none.
type Resolver struct {
	// The members. At least one is required.
	Members []Member `json:"members,omitempty"`

	members  map[identity]*member.Member
	tenants  map[string]bool
	identity string
}

// Member is one user in one tenant.
type Member struct {
	// The tenant, exactly as requests name it. Required.
	Tenant string `json:"tenant,omitempty"`

	// The user's Keycloak id, exactly as the token's `sub`. Required.
	KCID string `json:"kc_id,omitempty"`

	// The application's own id of the member. Required.
	ID string `json:"id,omitempty"`

	// Whether the member may not use the tenant now. Default: false.
	Inactive bool `json:"inactive,omitempty"`

	// What else is known of the member: a text or a list of texts for each
	// name. Names consist of letters, digits, `-` and `_`. The attribute `roles`
	// is always a list; a text is taken for the only role.
	Attributes map[string]member.Value `json:"attributes,omitempty"`
}

// identity is what no two members may have in common.
type identity struct{ tenant, kcID string }

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  member.Namespace + ".static",
		New: func() caddy.Module { return new(Resolver) },
	}
}

// rolesAttribute is the attribute that is always a list.
const rolesAttribute = "roles"

var (
	// attributeName is what an attribute may be called: it becomes part of the
	// name of a placeholder.
	attributeName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

	// ownNames are the names of what is no attribute.
	ownNames = []string{"kc_id", "tenant", "active", "inactive", "id", "issuer"}
)

// Provision expands the placeholders and puts the members in order.
func (r *Resolver) Provision(_ caddy.Context) error {
	if len(r.Members) == 0 {
		return errors.New("members: none is listed, so that nobody could be one; add a member")
	}
	repl := caddy.NewReplacer()
	r.members = make(map[identity]*member.Member, len(r.Members))
	r.tenants = make(map[string]bool)
	for i, listed := range r.Members {
		m, err := listed.provision(repl)
		if err != nil {
			return fmt.Errorf("members: number %d: %w", i+1, err)
		}
		key := identity{m.Tenant, m.KCID}
		if r.members[key] != nil {
			return fmt.Errorf("members: number %d: the user is listed twice in tenant %q; leave one out", i+1, m.Tenant)
		}
		r.members[key] = m
		r.tenants[m.Tenant] = true
	}
	return r.identify()
}

// provision returns the member with its placeholders expanded.
func (m Member) provision(repl *caddy.Replacer) (*member.Member, error) {
	result := &member.Member{Active: !m.Inactive, Attributes: make(map[string]member.Value, len(m.Attributes))}
	for _, field := range []struct {
		name, value string
		result      *string
	}{
		{"tenant", m.Tenant, &result.Tenant},
		{"kc_id", m.KCID, &result.KCID},
		{"id", m.ID, &result.ID},
	} {
		var err error
		if *field.result, err = expand(repl, field.value); err != nil {
			return nil, fmt.Errorf("%s: %w", field.name, err)
		}
		if *field.result == "" {
			return nil, fmt.Errorf("%s: none is given; add one", field.name)
		}
	}
	for name, value := range m.Attributes {
		if err := checkName(name); err != nil {
			return nil, err
		}
		items := value.Strings()
		for i, item := range items {
			var err error
			if items[i], err = expand(repl, item); err != nil {
				return nil, fmt.Errorf("attribute %s: %w", name, err)
			}
		}
		switch {
		case value.IsList():
			value = member.List(items...)
		case name != rolesAttribute:
			value = member.Text(items[0])
		case items[0] == "":
			value = member.List()
		default:
			value = member.List(items...)
		}
		result.Attributes[name] = value
	}
	return result, nil
}

// expand expands the global placeholders of a value.
func expand(repl *caddy.Replacer, value string) (string, error) {
	expanded, err := repl.ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf(`%w; use {env.NAME} or {file./path} of something that is set, and write \{ for a brace that begins none`, err)
	}
	if !utf8.ValidString(expanded) {
		return "", errors.New("the value is not UTF-8 text; convert it")
	}
	return expanded, nil
}

// checkName refuses names that an attribute cannot have.
func checkName(name string) error {
	if slices.Contains(ownNames, name) {
		return fmt.Errorf("%q cannot be the name of an attribute; rename it", name)
	}
	if !attributeName.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of an attribute; use letters, digits, - and _", name)
	}
	return nil
}

// identify makes the identity a digest of all members in an order that does
// not depend on the configuration's, so that a change is effective at once.
func (r *Resolver) identify() error {
	sorted := make([]*member.Member, 0, len(r.members))
	for _, m := range r.members {
		sorted = append(sorted, m)
	}
	slices.SortFunc(sorted, func(a, b *member.Member) int {
		if c := strings.Compare(a.Tenant, b.Tenant); c != 0 {
			return c
		}
		return strings.Compare(a.KCID, b.KCID)
	})
	text, err := json.Marshal(sorted)
	if err != nil {
		return fmt.Errorf("members: %w", err)
	}
	sum := sha256.Sum256(text)
	r.identity = "static " + hex.EncodeToString(sum[:])
	return nil
}

// Resolve implements member.Resolver.
func (r *Resolver) Resolve(_ context.Context, q member.Query) (*member.Member, error) {
	m := r.members[identity{q.Tenant, q.KCID}]
	switch {
	case m != nil:
		return m, nil
	case !r.tenants[q.Tenant]:
		return nil, member.ErrUnknownTenant
	default:
		return nil, member.ErrUnknown
	}
}

// Identity implements member.Resolver.
func (r *Resolver) Identity() string { return r.identity }

// Interface guards
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ caddy.Provisioner     = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)
