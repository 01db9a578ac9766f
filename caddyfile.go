package keycloakcacheauth

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/dustin/go-humanize"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
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
//	    resource           <url>
//	    resource_metadata  [<path>]
//	    optional
//	    preflight  authenticate | pass
//	    strip_only
//
//	    tenant_header  <name>
//	    tenant         <placeholder>
//	    tenant_default <name>
//	    tenant_pattern <regexp>
//	    tenant_claim   organization | <path>
//
//	    ttl <duration>
//	    memory {
//	        max_size <size>
//	    }
//	    store <url> {
//	        key_prefix <name>
//	        namespace  <name>
//	        timeout    <duration>
//	    }
//
//	    resolver <module> [...]
//	    timeout  <duration>
//
//	    header <name> <placeholder> | off
//	    strip_token
//	}
//
// `issuer`, `token_from`, `header`, `resolver` and the lines of `require` may be
// repeated. Each line of `require` must be met, by one of its names.
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
		"tenant_claim":       func() error { return parseWord(d, &h.TenantClaim) },
		"resource":           func() error { return parseWord(d, &h.Resource) },
		"resource_metadata":  func() error { return parseResourceMetadata(h, d) },
		"optional":           func() error { return parseFlag(d, &h.Optional) },
		"preflight":          func() error { return parsePreflight(h, d) },
		"strip_only":         func() error { return parseFlag(d, &h.StripOnly) },
		"tenant_header":      func() error { return parseTenantHeader(h, d) },
		"tenant":             func() error { return parseTenant(h, d) },
		"tenant_default":     func() error { return parseWord(d, &h.TenantDefault) },
		"tenant_pattern":     func() error { return parseTenantPattern(h, d) },
		"ttl":                func() error { return parseDuration(d, &h.TTL, maxTTL) },
		"memory":             func() error { return parseMemory(h, d) },
		"store":              func() error { return parseStore(h, d) },
		"resolver":           func() error { return parseResolver(h, d) },
		"timeout":            func() error { return parseDuration(d, &h.Timeout, maxTimeout) },
		"header":             func() error { return parseHeader(h, d) },
		"strip_token":        func() error { return parseFlag(d, &h.StripToken) },
	}
}

func parseIssuer(h *Handler, d *caddyfile.Dispenser) error {
	issuer := new(Issuer)
	line := d.Token()
	if err := parseWord(d, &issuer.URL); err != nil {
		return err
	}
	given, err := parseBlock(d, "issuer", issuer.options(d))
	if err != nil {
		return err
	}
	h.Issuers = append(h.Issuers, issuer)
	return errorAt(given, line, issuer.checkUnexpanded())
}

// options parse the lines of the issuer's block.
func (i *Issuer) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"jwks_url":        func() error { return parseWord(d, &i.JWKSURL) },
		"backchannel_url": func() error { return parseWord(d, &i.BackchannelURL) },
		"trust_pool":      func() error { return parseTrustPool(i, d) },
		"client_certificate": func() error {
			files := d.RemainingArgs()
			if len(files) != 2 || files[0] == "" || files[1] == "" {
				return d.Err("client_certificate takes two arguments: the certificate's file and its key's")
			}
			i.ClientCertificateFile, i.ClientKeyFile = files[0], files[1]
			return nil
		},
		"tenants": func() error {
			return parseNames(d, &i.Tenants, "the tenants that this issuer's tokens are good for")
		},
		"insecure_http": func() error { return parseFlag(d, &i.InsecureHTTP) },
	}
}

// parseNames takes the option's arguments, of which there must be one.
func parseNames(d *caddyfile.Dispenser, dst *[]string, what string) error {
	option := d.Val()
	names := d.RemainingArgs()
	if len(names) == 0 || slices.Contains(names, "") {
		return d.Errf("%s needs %s, on the same line", option, what)
	}
	*dst = names
	return nil
}

func parseTokenFrom(h *Handler, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	source := TokenSource{}
	switch len(args) {
	case 2:
		source.From, source.Name = args[0], args[1]
	case 1:
		source.From = args[0]
	default:
		return d.Err("token_from takes a place and a name: header [<name>], cookie <name> or query <name>")
	}
	if err := source.check(); err != nil {
		return d.Errf("token_from: %v", err)
	}
	h.TokenFrom = append(h.TokenFrom, source)
	return nil
}

func parseResourceMetadata(h *Handler, d *caddyfile.Dispenser) error {
	switch args := d.RemainingArgs(); {
	case len(args) == 0:
		h.ResourceMetadata = resourceMetadataDefault
	case len(args) == 1 && isPlainPath(args[0]):
		h.ResourceMetadata = args[0]
	default:
		return d.Err("resource_metadata takes one plain path, such as /.well-known/oauth-protected-resource, or nothing for the one of RFC 9728")
	}
	return nil
}

func parseRequire(h *Handler, d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Err("require takes a block with lines such as `scope read`, and no argument")
	}
	options := make(map[string]func() error)
	for _, kind := range []token.RequirementKind{
		token.RequireScope, token.RequireRealmRole, token.RequireClientRole, token.RequireGroup, token.RequireACR,
	} {
		options[string(kind)] = func() error {
			requirement := Requirement{Kind: string(kind), AnyOf: d.RemainingArgs()}
			if kind == token.RequireClientRole && len(requirement.AnyOf) > 0 {
				requirement.Client, requirement.AnyOf = requirement.AnyOf[0], requirement.AnyOf[1:]
			}
			if err := requirement.token().Validate(); err != nil {
				return d.Errf("require: %v", err)
			}
			h.Require = append(h.Require, requirement)
			return nil
		}
	}
	_, err := parseBlock(d, "require", options)
	if err == nil && len(h.Require) == 0 {
		return d.Err("require needs a block with at least one line, such as `scope read`")
	}
	return err
}

func parseTrustPool(issuer *Issuer, d *caddyfile.Dispenser) error {
	name, mod, err := parseModule(d, "trust_pool", "tls.ca_pool.source", "such as `file`")
	if err != nil {
		return err
	}
	authority, ok := mod.(caddytls.CA)
	if !ok {
		return d.Errf("trust_pool: %s is no source of certificate authorities; use another, such as file", name)
	}
	issuer.TrustPoolRaw = caddyconfig.JSONModuleObject(authority, "provider", name, nil)
	return nil
}

func parseAudience(h *Handler, d *caddyfile.Dispenser) error {
	names := d.RemainingArgs()
	switch {
	case len(names) == 0:
		return d.Err("audience needs the names of which a token must carry one in `aud`, or `off`")
	case len(names) == 1 && names[0] == "off":
		h.AudienceOff = true
		return nil
	}
	for _, name := range names {
		if name == "off" {
			return d.Err("audience: off excludes names of audiences; keep one of the two")
		}
		if name == "" {
			return d.Err("audience: a name is empty; write what `aud` must contain")
		}
	}
	h.Audiences = names
	return nil
}

func parseAlgorithms(h *Handler, d *caddyfile.Dispenser) error {
	names := d.RemainingArgs()
	if len(names) == 0 {
		return d.Errf("algorithms needs at least one of %s", strings.Join(signingAlgorithms, " "))
	}
	for _, name := range names {
		if err := checkAlgorithm(name); err != nil {
			return d.Errf("algorithms: %v", err)
		}
	}
	h.Algorithms = names
	return nil
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
		"max_size": func() error {
			var text string
			if err := parseWord(d, &text); err != nil {
				return err
			}
			size, err := humanize.ParseBytes(text)
			if err != nil || size < minMaxSize || size > maxMaxSize {
				return d.Errf("max_size is a size between 1MiB and 1TiB, such as 64MiB, not %q", text)
			}
			m.MaxSize = int64(size)
			return nil
		},
	}
}

func parseStore(h *Handler, d *caddyfile.Dispenser) error {
	shared := new(Store)
	line := d.Token()
	if err := parseWord(d, &shared.URL); err != nil {
		return err
	}
	given, err := parseBlock(d, "store", shared.options(d))
	if err != nil {
		return err
	}
	h.Stores = append(h.Stores, shared)
	return errorAt(given, line, shared.checkUnexpanded())
}

// options parse the lines of the store's block.
func (s *Store) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"key_prefix": func() error { return parseWord(d, &s.KeyPrefix) },
		"namespace":  func() error { return parseWord(d, &s.Namespace) },
		"timeout":    func() error { return parseDuration(d, &s.Timeout, maxRedisTimeout) },
	}
}

func parseResolver(h *Handler, d *caddyfile.Dispenser) error {
	name, mod, err := parseModule(d, "resolver", member.Namespace, "`sql` or `static`")
	if err != nil {
		return err
	}
	if _, ok := mod.(member.Resolver); !ok {
		return d.Errf("resolver: %s does not implement member.Resolver; use another, such as sql", name)
	}
	h.ResolversRaw = append(h.ResolversRaw, caddyconfig.JSONModuleObject(mod, "resolver", name, nil))
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
