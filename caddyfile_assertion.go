package keycloakcacheauth

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/assertion"
)

func parseAssertion(h *Handler, d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Err("assertion takes no argument; put key and audience into its block")
	}
	line := d.Token()
	h.Assertion = new(Assertion)
	given, err := parseBlock(d, "assertion", h.Assertion.options(d))
	if err != nil {
		return err
	}
	return errorAt(given, line, h.Assertion.check())
}

// options parse the lines of assertion's block.
func (a *Assertion) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"algorithm": func() error { return parseWord(d, &a.Algorithm) },
		"key":       func() error { return parseAssertionKey(a, d) },
		"audience":  func() error { return parseNames(d, &a.Audiences, "the upstreams, as they expect to be named in `aud`") },
		"issuer":    func() error { return parseOnce(d, &a.Issuer) },
		"ttl":       func() error { return parseDuration(d, &a.TTL, assertion.MaxTTL) },
		"header":    func() error { return parseOnce(d, &a.Header) },
		"jwks_path": func() error { return parseWord(d, &a.JWKSPath) },
	}
}

// parseOnce is parseWord for an option whose name may be repeated elsewhere.
func parseOnce(d *caddyfile.Dispenser, dst *string) error {
	if *dst != "" {
		return d.Errf("%s is given twice; keep one of the two", d.Val())
	}
	return parseWord(d, dst)
}

// parseAssertionKey checks each key at its own line.
func parseAssertionKey(a *Assertion, d *caddyfile.Dispenser) error {
	var key string
	if err := parseWord(d, &key); err != nil {
		return err
	}
	if err := checkAssertionKey(key); err != nil {
		return d.Errf("key: %v", err)
	}
	a.Keys = append(a.Keys, key)
	return nil
}
