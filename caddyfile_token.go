package keycloakcacheauth

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

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
		"trust_pool":      func() error { return parseTrustPool(&i.TrustPoolRaw, d) },
		"client_certificate": func() error {
			return parseClientCertificate(d, &i.ClientCertificateFile, &i.ClientKeyFile)
		},
		"tenants": func() error {
			return parseNames(d, &i.Tenants, "the tenants that this issuer's tokens are good for")
		},
		"insecure_http": func() error { return parseFlag(d, &i.InsecureHTTP) },
		"introspect":    func() error { return parseIntrospect(i, d) },
	}
}

func parseClientCertificate(d *caddyfile.Dispenser, certificate, key *string) error {
	files := d.RemainingArgs()
	if len(files) != 2 || files[0] == "" || files[1] == "" {
		return d.Err("client_certificate takes two arguments: the certificate's file and its key's")
	}
	*certificate, *key = files[0], files[1]
	return nil
}

func parseTrustPool(dst *json.RawMessage, d *caddyfile.Dispenser) error {
	name, mod, err := parseModule(d, "trust_pool", "tls.ca_pool.source", "such as `file`")
	if err != nil {
		return err
	}
	authority, ok := mod.(caddytls.CA)
	if !ok {
		return d.Errf("trust_pool: %s is no source of certificate authorities; use another, such as file", name)
	}
	*dst = caddyconfig.JSONModuleObject(authority, "provider", name, nil)
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
