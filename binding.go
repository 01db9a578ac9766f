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
	tenants []string // nil for any
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
	case b.tenants != nil && !slices.Contains(b.tenants, tenant):
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
// users of another: `sub` is unique within a realm only, and whoever can make
// realms' users could choose it.
func (h *Handler) checkIssuersApart(resolvers []member.Resolver) error {
	if len(h.Issuers) == 1 && !h.Issuers[0].isTemplate() || h.TenantClaim != "" {
		return nil
	}
	bound := !slices.ContainsFunc(h.Issuers, func(i *Issuer) bool { return len(i.Tenants) == 0 && !i.isTemplate() })
	if bound {
		return nil
	}
	apart := !slices.ContainsFunc(resolvers, func(r member.Resolver) bool {
		teller, ok := r.(member.IssuerTeller)
		return !ok || !teller.TellsIssuers()
	})
	if apart {
		return nil
	}
	return errors.New("issuer: with several issuers, a user of one could pass for a user of another with the same id; " +
		"bind each to its tenants (`tenants` in its block, {tenant} in its URL, or tenant_claim), " +
		"or use :issuer in the resolver's query")
}
