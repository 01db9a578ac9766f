package keycloakresolver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
)

// rule says what makes a user of the realm a member of a tenant, and with what
// attributes.
type rule struct {
	members, template string
	roles, client     string
	attributes        map[string]string
}

// resolve finds the user, then the tenant, then the rest.
func (u rule) resolve(ctx context.Context, realm *realm, q member.Query) (*member.Member, error) {
	if !isID(q.KCID) || q.Tenant == "" {
		return nil, member.ErrUnknown
	}
	user, err := realm.user(ctx, q.KCID)
	if err != nil {
		return nil, err
	}
	m := &member.Member{
		KCID: user.ID, Issuer: realm.Issuer, ID: user.ID, Active: user.Enabled,
		Attributes: make(map[string]member.Value, len(u.attributes)+1),
	}
	for name, from := range u.attributes {
		switch values := user.Attributes[from]; len(values) {
		case 0:
		case 1:
			m.Attributes[name] = member.Text(values[0])
		default:
			m.Attributes[name] = member.List(values...)
		}
	}
	switch u.members {
	case byOrganizations:
		err = u.inOrganization(ctx, realm, q, m)
	case byGroups:
		err = u.inGroup(ctx, realm, q, m)
	case byRealmRoles:
		err = u.inRole(ctx, realm, q, m)
	}
	if err != nil {
		return nil, err
	}
	return m, u.addRoles(ctx, realm, q, m)
}

func (u rule) inOrganization(ctx context.Context, realm *realm, q member.Query, m *member.Member) error {
	found, err := realm.organizations(ctx, q.KCID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(found, func(o organization) bool { return o.Alias == q.Tenant })
	if i < 0 {
		return member.ErrUnknown
	}
	m.Tenant = found[i].Alias
	m.Active = m.Active && found[i].Enabled
	return nil
}

// inGroup looks for the tenant's group among the user's. Keycloak does not mark
// slashes that are part of a group's name, so such groups make nobody a member.
func (u rule) inGroup(ctx context.Context, realm *realm, q member.Query, m *member.Member) error {
	below, err := u.below(ctx, realm, q)
	if err != nil {
		return err
	}
	if below == nil {
		return member.ErrUnknown
	}
	m.Tenant = q.Tenant
	if u.roles == rolesOfGroups {
		m.Attributes[options.RolesAttribute] = member.List(slices.DeleteFunc(below, func(path string) bool { return path == "" })...)
	}
	return nil
}

// below returns the paths of the user's groups from the tenant's group on, "" for
// that itself; nil if there are none.
func (u rule) below(ctx context.Context, realm *realm, q member.Query) ([]string, error) {
	if strings.Contains(q.Tenant, "/") {
		return nil, nil // it would be a group within another's
	}
	groups, err := realm.groups(ctx, q.KCID)
	if err != nil {
		return nil, err
	}
	want := u.named(q.Tenant)
	var below []string
	for _, g := range groups {
		path, found := strings.CutPrefix(g.Path+"/", want+"/")
		if found && g.hasPlainName() {
			below = append(below, strings.TrimSuffix(path, "/"))
		}
	}
	return below, nil
}

func (u rule) inRole(ctx context.Context, realm *realm, q member.Query, m *member.Member) error {
	roles, err := realm.realmRoles(ctx, q.KCID)
	if err != nil {
		return err
	}
	if !slices.Contains(roles, u.named(q.Tenant)) {
		return member.ErrUnknown
	}
	m.Tenant = q.Tenant
	if u.roles == rolesOfRealm {
		m.Attributes[options.RolesAttribute] = member.List(slices.DeleteFunc(roles, u.names)...)
	}
	return nil
}

// addRoles adds the roles, unless those that made the member were looked at already.
func (u rule) addRoles(ctx context.Context, realm *realm, q member.Query, m *member.Member) error {
	if _, known := m.Attributes[options.RolesAttribute]; known || u.roles == "" {
		return nil
	}
	var roles []string
	var err error
	switch u.roles {
	case rolesOfRealm:
		roles, err = realm.realmRoles(ctx, q.KCID)
	case rolesOfClient:
		roles, err = realm.clientRoles(ctx, q.KCID, u.client)
	case rolesOfGroups:
		var groups []group
		groups, err = realm.groups(ctx, q.KCID)
		for _, g := range groups {
			roles = append(roles, g.Path)
		}
	}
	if err != nil {
		return fmt.Errorf("the member's roles: %w", err)
	}
	m.Attributes[options.RolesAttribute] = member.List(roles...)
	return nil
}

// named returns the template with the tenant's name.
func (u rule) named(tenant string) string {
	return strings.Replace(u.template, tenantParameter, tenant, 1)
}

// names tells whether a role says that somebody is a member of some tenant.
func (u rule) names(role string) bool {
	before, after, _ := strings.Cut(u.template, tenantParameter)
	rest, begins := strings.CutPrefix(role, before)
	tenant, ends := strings.CutSuffix(rest, after)
	return begins && ends && tenant != ""
}

// maxID bounds a user's id, as OpenID Connect Core 1.0 §2 bounds sub, in bytes.
const maxID = 255

// isID tells whether a text can be the id of a user and nothing else when it is put
// into a path.
func isID(id string) bool {
	return id != "" && len(id) <= maxID && id != "." && id != ".." &&
		!strings.ContainsFunc(id, func(r rune) bool { return strings.ContainsRune(`/\;?#%`, r) || unicode.IsControl(r) })
}
