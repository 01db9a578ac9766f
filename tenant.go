package keycloakcacheauth

import (
	"fmt"
	"net/http"
	"net/textproto"
	"regexp"

	"github.com/caddyserver/caddy/v2"
)

// maxTenantLength is the longest tenant in bytes, whatever the pattern allows:
// the length of a DNS label.
const maxTenantLength = 63

// tenantRule says which tenant a request is for.
type tenantRule struct {
	header   string        // canonical; used unless value is set
	value    template      // instead of the header
	places   []tenantPlace // that the value reads
	fallback string        // where the request names none; "" for none
	aliases  tenantAliases
	pattern  *regexp.Regexp // nil for the default syntax
}

// newTenantRule makes the configured rule ready.
func newTenantRule(header, value, fallback, pattern string) (tenantRule, error) {
	rule := tenantRule{header: textproto.CanonicalMIMEHeaderKey(header), fallback: fallback}
	if pattern != "" {
		re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil {
			return tenantRule{}, fmt.Errorf("tenant_pattern: %w", err)
		}
		rule.pattern = re
	}
	if value != "" {
		parsed, err := parseTemplate(value)
		if err != nil {
			return tenantRule{}, fmt.Errorf("tenant: %w", err)
		}
		rule.value = parsed
		rule.places = placesOf(parsed)
	}
	if fallback != "" && !rule.valid(fallback) {
		return tenantRule{}, fmt.Errorf("tenant_default: %q is not a tenant that tenant_pattern allows", fallback)
	}
	return rule, nil
}

// newTenantRule makes the handler's rule ready, its aliases included.
func (h *Handler) newTenantRule() (tenantRule, error) {
	rule, err := newTenantRule(h.tenantHeader(), h.Tenant, h.TenantDefault, h.TenantPattern)
	if err != nil {
		return tenantRule{}, err
	}
	rule.aliases, err = newTenantAliases(h.TenantAliases, rule.value.readsOnly(placeHost), h.TenantAliasesOpen, rule.valid)
	return rule, err
}

// checkTenantHeader tells why the header cannot name the tenant.
func checkTenantHeader(name string) error {
	if err := checkHeaderName(name); err != nil {
		return err
	}
	folded := string(fold(nil, name))
	for _, owned := range defaultOwned {
		if owned != headerTenantID && folded == string(fold(nil, owned)) {
			return fmt.Errorf("%s tells the upstream who the user is and cannot also name the tenant; use another name", name)
		}
	}
	return nil
}

// claimedTenant is the tenant that a request names, as it came.
type claimedTenant struct {
	name string
	// fault is why the request names no single tenant, "" if it does.
	fault outcome
}

// take returns the tenant that the request itself names. It must run before
// the owned headers are stripped, of which the tenant header is one.
func (t tenantRule) take(r *http.Request, repl *caddy.Replacer) claimedTenant {
	if t.value != nil {
		for _, isPlain := range t.places {
			if !isPlain(r) {
				return claimedTenant{fault: outcomeTenantInvalid}
			}
		}
		if t.value.needsIdentity() {
			return claimedTenant{} // told from the token, once that is verified
		}
		return t.named(t.value.text(repl, nil))
	}
	switch fields := r.Header[t.header]; len(fields) {
	case 0:
		return t.named("")
	case 1:
		if fields[0] == "" {
			return claimedTenant{fault: outcomeTenantInvalid}
		}
		return t.named(fields[0])
	default:
		// an upstream might take another one of them than we would
		return claimedTenant{fault: outcomeTenantInvalid}
	}
}

// fromToken returns the tenant that the verified token names, where the rule
// looks there, and what the request named otherwise.
func (t tenantRule) fromToken(claimed claimedTenant, repl *caddy.Replacer, id *identity) claimedTenant {
	if claimed.fault != "" || t.value == nil || !t.value.needsIdentity() {
		return claimed
	}
	return t.named(t.value.text(repl, id))
}

// named returns the tenant that a name means: its alias' or itself, if its
// syntax is good, or the default for none.
func (t tenantRule) named(name string) claimedTenant {
	if name == "" {
		if t.fallback == "" {
			return claimedTenant{fault: outcomeTenantMissing}
		}
		return claimedTenant{name: t.fallback}
	}
	tenant, known := t.aliases.of(name)
	switch {
	case !known && isAliasValue(name): // whatever the pattern: values are no tenants
		return claimedTenant{fault: outcomeTenantUnknown}
	case !known, !t.valid(tenant):
		return claimedTenant{fault: outcomeTenantInvalid}
	default:
		return claimedTenant{name: tenant}
	}
}

// valid tells whether name may be a tenant here.
func (t tenantRule) valid(name string) bool {
	switch {
	case !isTenantName(name):
		return false
	case t.pattern != nil:
		return t.pattern.MatchString(name)
	default:
		return isDefaultTenant(name)
	}
}

// isTenantName tells whether name may be a tenant anywhere: whatever the
// pattern, none holds what separates the parts of a cache key, what a
// placeholder or a Redis hash tag is made of, the comma with which Caddy joins
// a value that came twice, or what is not visible ASCII.
func isTenantName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c <= ' ' || c > '~', c == ':', c == '{', c == '}', c == ',':
			return false
		}
	}
	return name != "" && len(name) <= maxTenantLength
}

// isDefaultTenant matches `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
func isDefaultTenant(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !isAlphanumeric(c) && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}
