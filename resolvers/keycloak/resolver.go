// Package keycloakresolver finds members in Keycloak itself: in a realm's
// organizations, groups or roles.
package keycloakresolver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/tlsidentity"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

func init() {
	caddy.RegisterModule(Resolver{})
}

// Defaults and bounds.
const (
	defaultTimeout = 2 * time.Second
	maxTimeout     = 30 * time.Second

	defaultGroups = "/tenants/{tenant}"
)

// Resolver takes Keycloak's own word for who is a member of a tenant, through its
// admin REST API. So a site that has no users of its own has tenants, too.
//
// There are three ways to say who is a member:
//
// `members` | The user is a member of the tenant if
// ----------|--------------------------------------
// `organizations` | the user belongs to the organization whose alias is the tenant, and it is enabled
// `groups` | the user is in the group `/tenants/<tenant>`, or in a group below it
// `realm_roles` | the user has the realm role that a template names, directly, by a group or by another role
//
// and the user has to be enabled. Names are compared by bytes. Who may create groups
// beside those of the tenants, organizations, or the roles of that name, decides who
// is a member.
//
// The member's id is the user's Keycloak id. The resolver knows the users of one
// realm; who has a token of another is unknown to it.
//
// It asks as a confidential client of the realm that has "Service accounts roles"
// on (the client credentials grant). The client's service account needs these roles
// of the client `realm-management`, and should have no others: `view-users` always,
// `view-organizations` besides for organizations, and `view-clients` besides for the
// roles of a client. Tried with Keycloak 26.7; the role for organizations does not
// exist in older versions, which want `manage-organizations` or `manage-realm`.
//
// A look-up is two requests to Keycloak, or three if the member gets roles, and as
// many more as it takes to be logged in.
type Resolver struct {
	// The realm's issuer URL, exactly as tokens carry it in `iss`, such as
	// `https://sso.example.com/realms/main`. Required.
	Issuer string `json:"issuer,omitempty"`

	// The base URL of the realm as this server reaches it, if that is not the
	// issuer's, such as `http://keycloak:8080/realms/main`.
	BackchannelURL string `json:"backchannel_url,omitempty"`

	// The client that asks. Required.
	ClientID string `json:"client_id,omitempty"`

	// The client's secret. Give it as a global placeholder, such as
	// `{env.KEYCLOAK_SECRET}`. Either this or `private_key_file` is required.
	ClientSecret string `json:"client_secret,omitempty"`

	// The path of a file with the private key that signs the client's assertions
	// (`private_key_jwt`, RFC 7523), instead of a secret: PEM or a JWK; RSA, EC or
	// Ed25519. It is read when the configuration is loaded.
	PrivateKeyFile string `json:"private_key_file,omitempty"`

	// The id under which Keycloak knows the key. Default: a JWK's own, else none,
	// with which Keycloak takes the client's key of the algorithm.
	KeyID string `json:"key_id,omitempty"`

	// What makes a user a member: `organizations`, `groups` or `realm_roles`.
	// Default: organizations.
	Members string `json:"members,omitempty"`

	// The group's path, or the role's name, with `{tenant}` in it. A role's name
	// must have more in it than that, or every user would be a member of a tenant
	// called `offline_access`. Default for groups: `/tenants/{tenant}`; required
	// for realm_roles.
	Template string `json:"template,omitempty"`

	// Where the member's roles come from: `realm` for the user's realm roles, `client`
	// for those of a client, or `groups`. Realm and client roles are the effective
	// ones, with those by groups and by other roles; realm roles that say of which
	// tenants the user is a member are left out. Groups are those below the
	// tenant's group, by their paths from there, or, if it is not groups that make
	// members, all of the user's, by their full paths. Default: none, so that the
	// member has no roles.
	Roles string `json:"roles,omitempty"`

	// The client whose roles the member gets, with `roles` `client`.
	RolesClient string `json:"roles_client,omitempty"`

	// The member's other attributes, and the user's attribute in Keycloak that each
	// comes from. One value becomes a text, several a list. `username`, `email`,
	// `firstName` and `lastName` are not among them: the token has those.
	Attributes map[string]string `json:"attributes,omitempty"`

	// The most time that one look-up may take, with all requests that it needs.
	// Default: 2s; at most 30s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The certificate authorities that Keycloak's certificate is checked against, as
	// a Caddy `tls.ca_pool.source` module. Default: the system's.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`

	// A certificate, and below its key, with which this server shows who it is to
	// Keycloak (mutual TLS): paths of PEM files. Both or none.
	ClientCertificateFile string `json:"client_certificate_file,omitempty"`

	// The path of the client certificate's private key, a PEM file.
	ClientKeyFile string `json:"client_key_file,omitempty"`

	// Allows plain `http://` to hosts other than loopback. Whoever can read that
	// traffic gets the client's secret, and who can change it makes members.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	realm    *realm
	rule     rule
	issuer   string
	identity string
	release  func() error
}

// What makes members, and where roles come from.
const (
	byOrganizations = "organizations"
	byGroups        = "groups"
	byRealmRoles    = "realm_roles"

	rolesOfRealm  = "realm"
	rolesOfClient = "client"
	rolesOfGroups = "groups"
)

// tenantParameter is what stands for the tenant in a template.
const tenantParameter = "{tenant}"

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  member.Namespace + ".keycloak",
		New: func() caddy.Module { return new(Resolver) },
	}
}

// Provision reads the settings. It does not ask Keycloak.
func (r *Resolver) Provision(ctx caddy.Context) error {
	if err := r.applyDefaults(); err != nil {
		return err
	}
	s, err := r.settings()
	if err != nil {
		return err
	}
	if s.Way, err = remote.NewWay(ctx, r, r.TrustPoolRaw, r.ClientCertificateFile, r.ClientKeyFile); err != nil {
		return err
	}
	r.issuer = s.Issuer
	r.rule = rule{members: r.Members, template: r.Template, roles: r.Roles, client: r.RolesClient, attributes: r.Attributes}
	identity, err := json.Marshal([]any{"keycloak", s.Issuer, r.Members, r.Template, r.Roles, r.RolesClient, r.Attributes})
	if err != nil {
		return fmt.Errorf("describing the realm: %w", err)
	}
	r.identity = string(identity)
	r.realm, r.release, err = realms.Acquire(s, func() (*realm, error) { return newRealm(s) })
	return err
}

// applyDefaults sets what is left out, and tells what is wrong with the rest.
func (r *Resolver) applyDefaults() error {
	if r.Members == "" {
		r.Members = byOrganizations
	}
	if r.Members == byGroups && r.Template == "" {
		r.Template = defaultGroups
	}
	if r.Timeout == 0 {
		r.Timeout = caddy.Duration(defaultTimeout)
	}
	if err := r.checkMembers(); err != nil {
		return err
	}
	switch {
	case r.Roles != "" && r.Roles != rolesOfRealm && r.Roles != rolesOfClient && r.Roles != rolesOfGroups:
		return errors.New("roles: it must be realm, client or groups")
	case (r.Roles == rolesOfClient) != (r.RolesClient != ""):
		return errors.New("roles: client goes with the client's id: roles client <client_id>")
	case r.Timeout < 0 || time.Duration(r.Timeout) > maxTimeout:
		return fmt.Errorf("timeout: it must be positive and at most %s", maxTimeout)
	}
	for name, from := range r.Attributes {
		if name == options.RolesAttribute {
			return errors.New("attribute: roles has an option of its own; write: roles realm | client <client_id> | groups")
		}
		if err := options.CheckAttribute(name); err != nil {
			return fmt.Errorf("attribute: %w", err)
		}
		if from == "" {
			return fmt.Errorf("attribute %s: the user's attribute in Keycloak is missing", name)
		}
	}
	return nil
}

func (r *Resolver) checkMembers() error {
	hasTenant := strings.Count(r.Template, tenantParameter) == 1
	switch {
	case r.Members != byOrganizations && r.Members != byGroups && r.Members != byRealmRoles:
		return errors.New("members: it must be organizations, groups or realm_roles")
	case r.Members == byOrganizations && r.Template != "":
		return errors.New("members: organizations takes no template, since the tenant is the organization's alias")
	case r.Members == byGroups && (!hasTenant || !strings.HasPrefix(r.Template, "/") || strings.HasSuffix(r.Template, "/")):
		return errors.New("members: the template of groups must be a path with {tenant} in it once, such as /tenants/{tenant}")
	case r.Members == byRealmRoles && (!hasTenant || r.Template == tenantParameter):
		return errors.New("members: realm_roles needs a template with {tenant} and more in it, such as tenant-{tenant}")
	}
	return nil
}

// settings returns what is needed to reach the realm, with the placeholders
// expanded. Its errors begin with the option's name.
func (r *Resolver) settings() (settings, error) {
	s := settings{
		Issuer: r.Issuer, ClientID: r.ClientID, ClientSecret: r.ClientSecret, PrivateKey: r.PrivateKeyFile, KeyID: r.KeyID,
		now: time.Now,
	}
	base := r.BackchannelURL
	for _, option := range []struct {
		name  string
		value *string
	}{
		{"issuer", &s.Issuer},
		{"backchannel_url", &base},
		{"client_id", &s.ClientID},
		{"client_secret", &s.ClientSecret},
		{"private_key", &s.PrivateKey},
		{"private_key", &s.KeyID},
	} {
		expanded, err := options.Expand(*option.value)
		if err != nil {
			return settings{}, fmt.Errorf("%s: %w", option.name, err)
		}
		*option.value = expanded
	}
	switch {
	case s.Issuer == "":
		return settings{}, errors.New("issuer: none is given; add one")
	case s.ClientID == "":
		return settings{}, errors.New("client_id: none is given; add one")
	case s.ClientSecret == "" && s.PrivateKey == "":
		return settings{}, errors.New("client_secret: none is given; add one, or a private_key")
	case s.ClientSecret != "" && s.PrivateKey != "":
		return settings{}, errors.New("client_secret and private_key exclude each other; keep one of the two")
	case s.KeyID != "" && s.PrivateKey == "":
		return settings{}, errors.New("key_id goes with private_key; remove one, or add the other")
	}
	if s.PrivateKey != "" {
		content, err := tlsidentity.ReadFile(s.PrivateKey)
		if err != nil {
			return settings{}, fmt.Errorf("private_key: %w", err)
		}
		s.PrivateKey = string(content)
	}
	var err error
	if s.RealmURL, s.AdminURL, err = addresses(s.Issuer, r.InsecureHTTP || base != ""); err != nil {
		return settings{}, fmt.Errorf("issuer: %w", err)
	}
	if base != "" {
		if s.RealmURL, s.AdminURL, err = addresses(base, r.InsecureHTTP); err != nil {
			return settings{}, fmt.Errorf("backchannel_url: %w", err)
		}
	}
	return s, nil
}

// addresses returns where a realm's tokens and its admin API are.
func addresses(base string, insecureHTTP bool) (realmURL, adminURL string, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", "", errors.New("not a URL; give the realm's, such as https://sso.example.com/realms/main")
	}
	if err := remote.CheckURL(u, insecureHTTP); err != nil {
		return "", "", err
	}
	realmURL = strings.TrimSuffix(base, "/")
	i := strings.LastIndex(realmURL, "/realms/")
	if i < 0 || u.RawQuery != "" || u.ForceQuery || strings.Contains(realmURL[i+len("/realms/"):], "/") || strings.HasSuffix(realmURL, "/realms/") {
		return "", "", errors.New("not the URL of a realm; give one such as https://sso.example.com/realms/main")
	}
	return realmURL, realmURL[:i] + "/admin" + realmURL[i:], nil
}

// Cleanup gives back the share of the connections that Provision took, if it got
// that far. The resolver goes on to answer requests that are still being served.
func (r *Resolver) Cleanup() error {
	if r.release == nil {
		return nil
	}
	return r.release()
}

// Resolve implements member.Resolver. The text of its errors holds neither secrets
// of the configuration nor values of the query or of Keycloak's answers.
func (r *Resolver) Resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	if q.Issuer != r.issuer {
		return nil, fmt.Errorf("%w: the token is of another realm", member.ErrUnknown)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.Timeout))
	defer cancel()
	return r.rule.resolve(ctx, r.realm, q)
}

// Identity implements member.Resolver.
func (r *Resolver) Identity() string { return r.identity }

// TellsIssuers implements [member.IssuerTeller]: it knows the users of one.
func (r *Resolver) TellsIssuers() bool { return true }

// Check implements [member.Checker]. It asks about the client's own user, who is a
// member of no tenant as a rule, and so needs all rights that look-ups need.
func (r *Resolver) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.Timeout))
	defer cancel()
	self, err := r.realm.self(ctx)
	if err != nil {
		return err
	}
	q := member.Query{Tenant: "check", Issuer: r.issuer, KCID: self}
	if _, err = r.rule.resolve(ctx, r.realm, q); errors.Is(err, member.ErrUnknown) {
		// only members' roles have been asked for
		err = r.rule.addRoles(ctx, r.realm, q, &member.Member{Attributes: make(map[string]member.Value)})
	}
	return err
}

// Interface guards
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ member.IssuerTeller   = (*Resolver)(nil)
	_ member.Checker        = (*Resolver)(nil)
	_ caddy.Provisioner     = (*Resolver)(nil)
	_ caddy.CleanerUpper    = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)
