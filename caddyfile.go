package keycloakcacheauth

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const directive = "keycloak_cache_auth"

func init() {
	httpcaddyfile.RegisterHandlerDirective(directive, parseCaddyfile)
	// before request_header and whatever else uses the identity
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.After, "forward_auth")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	keycloak_cache_auth [<matcher>] {
//	    issuer <url> {
//	        jwks_url           <url>
//	        backchannel_url    <url>
//	        trust_pool         <module> [...]
//	        client_certificate <certificate_file> <key_file>
//	        tenants            <name...>
//	        insecure_http
//	        introspect {
//	            client_id     <client_id>
//	            client_secret <secret>
//	            auth_method   client_secret_basic | client_secret_post | private_key_jwt
//	            private_key   <key_file> [<key_id>]
//	            url           <url>
//	            timeout       <duration>
//	            life          <duration>
//	        }
//	    }
//	    audience           <name...> | off
//	    authorized_party   <client_id...>
//	    algorithms         <algorithm...>
//	    leeway             <duration>
//	    max_token_lifetime <duration>
//	    token_from header [<name>] | cookie <name> | query <name>
//	    require {
//	        scope       <name...>
//	        realm_role  <name...>
//	        client_role <client> <name...>
//	        group       <name...>
//	        acr         <name...>
//	    }
//	    dpop off | accepted | required {
//	        origin  <origin...>
//	        max_age <duration>
//	        nonce   [<secret>]
//	    }
//	    logout_path        <path> [<client_id...>]
//	    resource           <url>
//	    resource_metadata  [<path>]
//	    optional
//	    preflight  authenticate | pass
//	    strip_only
//	    report_only
//	    compare_header <name> [<placeholder>]
//
//	    tenant_header  <name>
//	    tenant         <placeholder>
//	    tenant_default <name>
//	    tenant_pattern <regexp>
//	    tenant_claim   organization | <path>
//	    tenant_aliases [open] {
//	        <value> <tenant>
//	    }
//	    hide_tenants
//
//	    ttl            <duration>
//	    negative_ttl   <duration>
//	    stale_if_error <duration>
//	    refresh_ahead  <duration>
//	    memory {
//	        max_size        <size>
//	        max_tokens_size <size>
//	    }
//	    store <url> {
//	        tenants            <name...>
//	        key_prefix         <name>
//	        namespace          <name>
//	        timeout            <duration>
//	        max_blind          <duration>
//	        secret             <secret>
//	        trust_pool         <module> [...]
//	        client_certificate <certificate_file> <key_file>
//	        server_name        <name>
//	    }
//
//	    resolver    <module> [...]
//	    timeout     <duration>
//	    max_lookups <number> [<number per tenant>]
//
//	    header <name> <placeholder> | off
//	    assertion {
//	        algorithm EdDSA | ES256
//	        key       <key>
//	        audience  <name...>
//	        issuer    <name>
//	        ttl       <duration>
//	        header    <name>
//	        jwks_path <path>
//	    }
//	    strip_token
//	    cache_status [<name>]
//	}
//
// `issuer`, `token_from`, `header`, `resolver`, `store`, its `secret`, the `key` of `assertion` and the
// lines of `require` may be repeated. Each line of `require` must be met, by one of its names.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	line := d.Token()
	if d.NextArg() {
		return d.Errf("%s takes no argument besides a matcher; put options into the block", directive)
	}
	given, err := parseBlock(d, directive, h.options(d))
	if err != nil {
		return err
	}
	return errorAt(given, line, h.check())
}

// options parse the lines of the directive's block, each with the dispenser at
// the option's name.
func (h *Handler) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"issuer":     func() error { return parseIssuer(h, d) },
		"audience":   func() error { return parseAudience(h, d) },
		"algorithms": func() error { return parseAlgorithms(h, d) },
		"leeway": func() error {
			h.Leeway = new(caddy.Duration)
			return parseDuration(d, h.Leeway, maxLeeway)
		},
		"authorized_party": func() error {
			return parseNames(d, &h.AuthorizedParties, "the ids of the clients that tokens may be issued to")
		},
		"max_token_lifetime": func() error { return parseDuration(d, &h.MaxTokenLifetime, maxTokenLifetime) },
		"token_from":         func() error { return parseTokenFrom(h, d) },
		"require":            func() error { return parseRequire(h, d) },
		"dpop":               func() error { return parseDPoP(h, d) },
		"logout_path":        func() error { return parseLogoutPath(h, d) },
		"tenant_claim":       func() error { return parseWord(d, &h.TenantClaim) },
		"resource":           func() error { return parseWord(d, &h.Resource) },
		"resource_metadata":  func() error { return parseResourceMetadata(h, d) },
		"optional":           func() error { return parseFlag(d, &h.Optional) },
		"preflight":          func() error { return parsePreflight(h, d) },
		"strip_only":         func() error { return parseFlag(d, &h.StripOnly) },
		"report_only":        func() error { return parseFlag(d, &h.ReportOnly) },
		"compare_header":     func() error { return parseCompareHeader(h, d) },
		"tenant_header":      func() error { return parseTenantHeader(h, d) },
		"tenant":             func() error { return parseTenant(h, d) },
		"tenant_default":     func() error { return parseWord(d, &h.TenantDefault) },
		"tenant_pattern":     func() error { return parseTenantPattern(h, d) },
		"tenant_aliases":     func() error { return parseTenantAliases(h, d) },
		"hide_tenants":       func() error { return parseFlag(d, &h.HideTenants) },
		"ttl":                func() error { return parseDuration(d, &h.TTL, maxTTL) },
		"negative_ttl":       func() error { return parseDuration(d, &h.NegativeTTL, maxTTL) },
		"stale_if_error":     func() error { return parseDuration(d, &h.StaleIfError, maxStale) },
		"refresh_ahead":      func() error { return parseDuration(d, &h.RefreshAhead, maxTTL) },
		"memory":             func() error { return parseMemory(h, d) },
		"store":              func() error { return parseStore(h, d) },
		"resolver":           func() error { return parseResolver(h, d) },
		"timeout":            func() error { return parseDuration(d, &h.Timeout, maxTimeout) },
		"max_lookups":        func() error { return parseMaxLookups(h, d) },
		"header":             func() error { return parseHeader(h, d) },
		"assertion":          func() error { return parseAssertion(h, d) },
		"strip_token":        func() error { return parseFlag(d, &h.StripToken) },
		"cache_status":       func() error { return parseCacheStatus(h, d) },
	}
}

func parsePreflight(h *Handler, d *caddyfile.Dispenser) error {
	if err := parseWord(d, &h.Preflight); err != nil {
		return err
	}
	if h.Preflight != preflightAuthenticate && h.Preflight != preflightPass {
		return d.Errf("preflight is %s or %s, not %q", preflightAuthenticate, preflightPass, h.Preflight)
	}
	return nil
}

func parseMemory(h *Handler, d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Err("memory takes no argument; put max_size into its block")
	}
	_, err := parseBlock(d, "memory", h.Memory.options(d))
	return err
}

// options parse the lines of the memory's block.
func (m *Memory) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"max_size":        func() error { return parseSize(d, &m.MaxSize) },
		"max_tokens_size": func() error { return parseSize(d, &m.MaxTokensSize) },
	}
}

// parseSize parses the size that is an option's only argument.
func parseSize(d *caddyfile.Dispenser, to *int64) error {
	option, text := d.Val(), ""
	if err := parseWord(d, &text); err != nil {
		return err
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size < minMaxSize || size > maxMaxSize {
		return d.Errf("%s is a size between 1MiB and 1TiB, such as 64MiB, not %q", option, text)
	}
	*to = int64(size)
	return nil
}

func parseResolver(h *Handler, d *caddyfile.Dispenser) error {
	name, mod, err := parseModule(d, "resolver", member.Namespace, "such as `sql`, `http`, `keycloak`, `claims` or `static`")
	if err != nil {
		return err
	}
	if _, ok := mod.(member.Resolver); !ok {
		return d.Errf("resolver: %s does not implement member.Resolver; use another, such as sql", name)
	}
	h.ResolversRaw = append(h.ResolversRaw, caddyconfig.JSONModuleObject(mod, "resolver", name, nil))
	return nil
}

func parseCompareHeader(h *Handler, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.Err("compare_header takes the name of a response header and, if it is not to be compared with the member's id, a placeholder")
	}
	h.CompareHeader = &CompareHeader{Name: args[0]}
	if len(args) == 2 {
		h.CompareHeader.Value = args[1]
	}
	if err := h.CompareHeader.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func parseCacheStatus(h *Handler, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) > 1 {
		return d.Err("cache_status takes the name of a header, or nothing for Cache-Status")
	}
	h.CacheStatus = defaultCacheStatus
	if len(args) == 1 {
		h.CacheStatus = args[0]
	}
	if err := h.checkCacheStatus(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func parseHeader(h *Handler, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch off := len(args) == 1 && args[0] == "off"; {
	case !off && len(args) != 2:
		return d.Err("header takes a name and a placeholder, such as `header X-User {http.auth.user.id}`, or off")
	case h.HeadersOff, off && len(h.Headers) > 0:
		return d.Err("header: off excludes every other header line; keep one of the two")
	case off:
		h.HeadersOff = true
		return nil
	}
	h.Headers = append(h.Headers, Header{Name: args[0], Value: args[1]})
	if _, err := newHeaderSet(h.Headers, false, ""); err != nil {
		return d.Errf("header: %v", err)
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
