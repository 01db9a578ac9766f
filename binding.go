package keycloakcacheauth

import (
	"errors"
	"slices"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// tenantBinding says which tenants the tokens of one issuer are good for.
type tenantBinding struct {
	tenants []string // none for any
	realm   bool     // the tenant is the one in the issuer's URL
	claim   string   // the token must name the tenant there; "" for nowhere
}

func newTenantBinding(issuer Issuer, claim string) tenantBinding {
	return tenantBinding{tenants: issuer.Tenants, realm: issuer.isTemplate(), claim: claim}
}

// allows tells whether the token may be used for the tenant. Names are compared
// byte for byte.
func (b tenantBinding) allows(verified token.Verified, tenant string) bool {
	switch {
	case len(b.tenants) > 0 && !slices.Contains(b.tenants, tenant):
		return false
	case b.realm && verified.Tenant != tenant:
		return false
	case b.claim != "" && !verified.Token.NamesTenant(b.claim, tenant):
		return false
	default:
		return true
	}
}

// isTemplate tells whether the issuer is one realm per tenant.
func (i Issuer) isTemplate() bool { return strings.Contains(i.URL, token.Placeholder) }

// checkIssuersApart refuses several issuers one of which could speak for the
// users of another: `sub` is unique within a realm only, and whoever makes a
// realm's mappers can choose it, like every other claim. So it is not enough
// that tokens name the tenant: no tenant may be open to two issuers, unless
// the resolvers tell their users apart.
func (h *Handler) checkIssuersApart(resolvers []member.Resolver) error {
	apart := !slices.ContainsFunc(resolvers, func(r member.Resolver) bool {
		teller, ok := r.(member.IssuerTeller)
		return !ok || !teller.TellsIssuers()
	})
	if apart {
		return nil
	}
	for i, one := range h.Issuers {
		if slices.ContainsFunc(h.Issuers[:i], one.sharesTenants) {
			return errors.New("issuer: a tenant is open to two issuers, so a user of one could pass for a user of the other with the same id; " +
				"bind each to tenants of its own (`tenants` in its block), or use :issuer in the resolver's query")
		}
	}
	return nil
}

// sharesTenants tells whether there may be a tenant that tokens of both issuers
// are good for.
func (i *Issuer) sharesTenants(other *Issuer) bool {
	if len(i.Tenants) == 0 || len(other.Tenants) == 0 {
		return true
	}
	return slices.ContainsFunc(i.Tenants, func(tenant string) bool { return slices.Contains(other.Tenants, tenant) })
}
