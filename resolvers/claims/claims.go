// Package claimsresolver finds members in the token itself.
package claimsresolver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
)

func init() {
	caddy.RegisterModule(Resolver{})
}

// defaultTenant is where Keycloak names the user's organizations.
const defaultTenant = "organization"

// realmRoles is where Keycloak lists the user's realm roles.
const realmRoles = "realm_access.roles"

// tenantParameter is what stands for the tenant in a template.
const tenantParameter = "{tenant}"

// Resolver takes the token's word for it: who has a token that names the tenant
// is an active member of it. Nothing is looked up, so nothing is cached, and
// nothing can be flushed: a user who is removed from a tenant stays its member
// until the token ends, which with Keycloak's defaults is 5 minutes.
//
// It is safe where
//
//   - the claim is written by Keycloak from what only administrators can change:
//     organizations, groups, roles. It is not where users can edit it, such as an
//     attribute of the user profile that they may write;
//   - the token always has the claim for the tenant that it is used with. The scope
//     `organization` names one organization only, or none if the user has several;
//     `organization:*` names all;
//   - there is one issuer, or each is bound to tenants of its own with `tenants`: who
//     administers a realm can have its tokens name any tenant. That is why several
//     issuers without such bounds are refused with this resolver;
//   - nobody minds that access ends with the token and not before.
//
// Use `sql`, `http` or `keycloak` elsewhere.
type Resolver struct {
	// The claim that must name the tenant, such as `groups` or
	// `realm_access.roles`: the text or number itself, or a list that holds it.
	// Comparison is exact. `organization` may also be an object whose names are
	// the organizations' aliases, as Keycloak writes it when it adds their ids.
	// Default: `organization`.
	Tenant string `json:"tenant,omitempty"`

	// What that claim holds for a tenant, with `{tenant}` in it, such as
	// `/tenants/{tenant}` for groups. Default: `{tenant}`, which is refused for
	// `realm_access.roles`: every user has roles such as `offline_access` there.
	TenantTemplate string `json:"tenant_template,omitempty"`

	// The claim that is the member's id, a text or a number. Who has a token
	// without it is not a member. Default: the user's Keycloak id, `sub`.
	ID string `json:"id,omitempty"`

	// The claims that hold the member's roles, together the attribute `roles`.
	// Default: none, so that the member has no roles.
	Roles []string `json:"roles,omitempty"`

	// The member's other attributes, and the claim that each comes from. One whose
	// claim the token does not have is absent.
	Attributes map[string]string `json:"attributes,omitempty"`

	claims   []string // all that are read, sorted
	identity string
}

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  member.Namespace + ".claims",
		New: func() caddy.Module { return new(Resolver) },
	}
}

// Provision applies the defaults and checks the paths. They are names, not
// secrets, and placeholders in them are not expanded.
func (r *Resolver) Provision(_ caddy.Context) error {
	if r.Tenant == "" {
		r.Tenant = defaultTenant
	}
	if r.TenantTemplate == "" {
		r.TenantTemplate = tenantParameter
	}
	if err := r.check(); err != nil {
		return err
	}
	read := append([]string{r.Tenant}, r.Roles...)
	if r.ID != "" {
		read = append(read, r.ID)
	}
	read = slices.AppendSeq(read, maps.Values(r.Attributes))
	slices.Sort(read)
	r.claims = slices.Compact(read)

	identity, err := json.Marshal([]any{"claims", r.Tenant, r.TenantTemplate, r.ID, r.Roles, r.Attributes})
	if err != nil {
		return fmt.Errorf("describing the claims: %w", err)
	}
	r.identity = string(identity)
	return nil
}

// check tells what is wrong with the settings. Each error begins with the
// option's name.
func (r *Resolver) check() error {
	if err := options.CheckClaim(r.Tenant); err != nil {
		return fmt.Errorf("tenant: %w", err)
	}
	if strings.Count(r.TenantTemplate, tenantParameter) != 1 {
		return errors.New("tenant_template: it must have {tenant} in it once, as in /tenants/{tenant}")
	}
	if r.Tenant == realmRoles && r.TenantTemplate == tenantParameter {
		return errors.New("tenant: every user has realm roles such as offline_access, which would be tenants; " +
			"add a template, as in: tenant realm_access.roles tenant-{tenant}")
	}
	if r.ID != "" {
		if err := options.CheckClaim(r.ID); err != nil {
			return fmt.Errorf("id: %w", err)
		}
	}
	for _, path := range r.Roles {
		if err := options.CheckClaim(path); err != nil {
			return fmt.Errorf("roles: %w", err)
		}
	}
	for name, path := range r.Attributes {
		if name == options.RolesAttribute {
			return errors.New("attribute: roles has an option of its own; write: roles <claim...>")
		}
		if err := options.CheckAttribute(name); err != nil {
			return fmt.Errorf("attribute: %w", err)
		}
		if err := options.CheckClaim(path); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

// Resolve implements member.Resolver. The record is the token's own: kc_id is
// its `sub`, and the tenant is one that it names.
func (r *Resolver) Resolve(_ context.Context, q member.Query) (*member.Member, error) {
	// Nobody may be a member of no tenant by a claim that holds an empty text.
	if q.Tenant == "" || !r.names(q) {
		return nil, member.ErrUnknown
	}
	id := q.KCID
	if r.ID != "" {
		claim := q.Claims[r.ID]
		if id = claim.Text(); claim.IsList() || id == "" {
			return nil, fmt.Errorf("%w: the token has no single value for the id", member.ErrUnknown)
		}
	}
	m := &member.Member{
		KCID: q.KCID, Tenant: q.Tenant, Issuer: q.Issuer, Active: true, ID: id,
		Attributes: make(map[string]member.Value, len(r.Attributes)+1),
	}
	for name, path := range r.Attributes {
		if value, present := q.Claims[path]; present {
			m.Attributes[name] = value
		}
	}
	if len(r.Roles) > 0 {
		m.Attributes[options.RolesAttribute] = r.roles(q)
	}
	return m, nil
}

// names tells whether the token names the tenant.
func (r *Resolver) names(q member.Query) bool {
	claim, present := q.Claims[r.Tenant]
	want := strings.Replace(r.TenantTemplate, tenantParameter, q.Tenant, 1)
	return present && slices.Contains(claim.Strings(), want)
}

// roles returns what the claims for roles hold, each role once, in their order.
func (r *Resolver) roles(q member.Query) member.Value {
	var roles []string
	for _, path := range r.Roles {
		claim, present := q.Claims[path]
		if !present {
			continue
		}
		for _, role := range claim.Strings() {
			if role != "" && !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
	}
	return member.List(roles...)
}

// Claims implements [member.ClaimReader].
func (r *Resolver) Claims() []string { return slices.Clone(r.claims) }

// Uncached implements [member.Uncached]: there is nothing to save.
func (r *Resolver) Uncached() bool { return true }

// Identity implements member.Resolver.
func (r *Resolver) Identity() string { return r.identity }

// Interface guards
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ member.ClaimReader    = (*Resolver)(nil)
	_ member.Uncached       = (*Resolver)(nil)
	_ caddy.Provisioner     = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)
