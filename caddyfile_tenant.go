package keycloakcacheauth

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func parseTenantHeader(h *Handler, d *caddyfile.Dispenser) error {
	if err := parseWord(d, &h.TenantHeader); err != nil {
		return err
	}
	if err := checkTenantHeader(h.TenantHeader); err != nil {
		return d.Errf("tenant_header: %v", err)
	}
	return nil
}

func parseTenant(h *Handler, d *caddyfile.Dispenser) error {
	if err := parseWord(d, &h.Tenant); err != nil {
		return err
	}
	if _, err := parseTemplate(h.Tenant); err != nil {
		return d.Errf("tenant: %v", err)
	}
	return nil
}

func parseTenantPattern(h *Handler, d *caddyfile.Dispenser) error {
	if err := parseWord(d, &h.TenantPattern); err != nil {
		return err
	}
	if err := checkTenantPattern(h.TenantPattern); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// parseTenantAliases takes a block of lines with a value and its tenant each.
func parseTenantAliases(h *Handler, d *caddyfile.Dispenser) error {
	switch args := d.RemainingArgs(); {
	case len(args) == 1 && args[0] == "open":
		h.TenantAliasesOpen = true
	case len(args) > 0:
		return d.Err("tenant_aliases takes no argument but open; put the aliases into its block, such as `shop.example.com acme`")
	}
	h.TenantAliases = make(map[string]string)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		value := d.Val()
		var tenant string
		if value == "{" || !d.AllArgs(&tenant) {
			return d.Err("tenant_aliases: each line has what requests say and the tenant that it means, such as `shop.example.com acme`")
		}
		if _, twice := h.TenantAliases[value]; twice {
			return d.Errf("tenant_aliases: %q is listed twice; keep one of the two", value)
		}
		h.TenantAliases[value] = tenant
	}
	if len(h.TenantAliases) == 0 {
		return d.Err("tenant_aliases lists nothing; add a line to its block, such as `shop.example.com acme`, or remove it")
	}
	return nil
}
