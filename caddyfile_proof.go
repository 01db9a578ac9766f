package keycloakcacheauth

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func parseIntrospect(issuer *Issuer, d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Err("introspect takes no argument; put client_id and client_secret into its block")
	}
	line := d.Token()
	issuer.Introspect = new(Introspect)
	given, err := parseBlock(d, "introspect", issuer.Introspect.options(d))
	if err != nil {
		return err
	}
	return errorAt(given, line, issuer.Introspect.check())
}

// options parse the lines of introspect's block.
func (i *Introspect) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"client_id":     func() error { return parseWord(d, &i.ClientID) },
		"client_secret": func() error { return parseWord(d, &i.ClientSecret) },
		"auth_method":   func() error { return parseWord(d, &i.AuthMethod) },
		"private_key": func() error {
			switch args := d.RemainingArgs(); {
			case len(args) == 0 || len(args) > 2 || slices.Contains(args, ""):
				return d.Err("private_key takes the path of a PEM file and, if need be, the key's id")
			case len(args) == 2:
				i.KeyID = args[1]
				fallthrough
			default:
				i.PrivateKeyFile = args[0]
			}
			return nil
		},
		"url":     func() error { return parseWord(d, &i.URL) },
		"timeout": func() error { return parseDuration(d, &i.Timeout, maxIntrospectTimeout) },
		"life":    func() error { return parseDuration(d, &i.Life, maxIntrospectLife) },
	}
}

func parseDPoP(h *Handler, d *caddyfile.Dispenser) error {
	line := d.Token()
	h.DPoP = new(DPoP)
	if !d.AllArgs(&h.DPoP.Mode) {
		return d.Err("dpop takes one of off, accepted and required, on the same line")
	}
	given, err := parseBlock(d, "dpop", h.DPoP.options(d))
	if err != nil {
		return err
	}
	return errorAt(given, line, h.DPoP.check())
}

// options parse the lines of dpop's block.
func (p *DPoP) options(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"origin": func() error {
			return parseNames(d, &p.Origins, "the origins under which clients know this site, such as https://app.example.com")
		},
		"max_age": func() error { return parseDuration(d, &p.MaxAge, maxProofAge) },
		"nonce": func() error {
			p.Nonce = true
			switch args := d.RemainingArgs(); {
			case len(args) == 0:
			case len(args) == 1 && args[0] != "":
				p.NonceSecret = args[0]
			default:
				return d.Err("nonce takes one secret, such as {env.DPOP_SECRET}, or nothing")
			}
			return nil
		},
	}
}

func parseLogoutPath(h *Handler, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 || slices.Contains(args, "") || !isPlainPath(args[0]) {
		return d.Err("logout_path takes a plain path, such as /oidc/backchannel-logout, and the ids of the clients whose logouts count here")
	}
	h.LogoutPath, h.LogoutClients = args[0], args[1:]
	return nil
}
