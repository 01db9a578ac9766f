package keycloakcacheauth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxAliasLength is the longest value in bytes that can have an alias: the
// length of a host's name.
const maxAliasLength = 253

// tenantAliases lead from what a request says to the tenant that it means.
type tenantAliases struct {
	tenants map[string]string // nil for none
	hosts   bool              // values are hosts' names, which have no case
	open    bool              // a value that is not listed is a tenant itself
}

// newTenantAliases checks the configured aliases and makes them ready. Whether
// their targets can be tenants is checked with valid.
func newTenantAliases(configured map[string]string, hosts, open bool, valid func(string) bool) (tenantAliases, error) {
	if len(configured) == 0 {
		if open {
			return tenantAliases{}, errors.New("tenant_aliases: open says what becomes of values that are not listed, and none is; list one, or remove it")
		}
		return tenantAliases{}, nil
	}
	aliases := tenantAliases{tenants: make(map[string]string, len(configured)), hosts: hosts, open: open}
	for _, value := range slices.Sorted(maps.Keys(configured)) { // so that the same error is found each time
		tenant := configured[value]
		if !isAliasValue(value) {
			return tenantAliases{}, fmt.Errorf("tenant_aliases: %q cannot be what a request says; use at most %d visible ASCII characters without commas and braces (of an international host the xn-- form)", value, maxAliasLength)
		}
		if !valid(tenant) {
			return tenantAliases{}, fmt.Errorf("tenant_aliases: %q is not a tenant that tenant_pattern allows", tenant)
		}
		key := aliases.key(value)
		if _, twice := aliases.tenants[key]; twice {
			return tenantAliases{}, fmt.Errorf("tenant_aliases: %q is listed twice, for hosts have no case; keep one of the two", value)
		}
		aliases.tenants[key] = tenant
	}
	return aliases, nil
}

// isAliasValue tells whether a request could say this: not what Caddy makes of
// a value that came twice, nor a template.
func isAliasValue(value string) bool {
	for i := range len(value) {
		switch c := value[i]; {
		case c <= ' ' || c > '~', c == '{', c == '}', c == ',':
			return false
		}
	}
	return value != "" && len(value) <= maxAliasLength
}

func (a tenantAliases) key(value string) string {
	if !a.hosts {
		return value
	}
	return strings.Map(func(r rune) rune { // ASCII's letters only: those of others fold into them
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, value)
}

// of returns the tenant that a value means, and whether it means any: without
// aliases each value means itself.
func (a tenantAliases) of(value string) (tenant string, known bool) {
	if a.tenants == nil {
		return value, true
	}
	if tenant, listed := a.tenants[a.key(value)]; listed {
		return tenant, true
	}
	return value, a.open
}

// checkAliasTargets refuses aliases of tenants that no issuer's tokens are good
// for.
func (h *Handler) checkAliasTargets() error {
	for _, issuer := range h.Issuers {
		if issuer == nil || len(issuer.Tenants) == 0 {
			return nil // good for any
		}
	}
	for _, value := range slices.Sorted(maps.Keys(h.TenantAliases)) {
		tenant := h.TenantAliases[value]
		if !slices.ContainsFunc(h.Issuers, func(i *Issuer) bool { return slices.Contains(i.Tenants, tenant) }) {
			return fmt.Errorf("tenant_aliases: no issuer's tokens are good for %q; add it to the tenants of one", tenant)
		}
	}
	return nil
}
