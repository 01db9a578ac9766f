package keycloakcacheauth

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

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
		"tenants":    func() error { return parseNames(d, &s.Tenants, "the tenants whose members are in this store") },
		"key_prefix": func() error { return parseWord(d, &s.KeyPrefix) },
		"namespace":  func() error { return parseWord(d, &s.Namespace) },
		"timeout":    func() error { return parseDuration(d, &s.Timeout, maxRedisTimeout) },
		"max_blind":  func() error { return parseDuration(d, &s.MaxBlind, maxMaxBlind) },
		"secret": func() error {
			var secret string
			if err := parseWord(d, &secret); err != nil {
				return err
			}
			s.Secrets = append(s.Secrets, secret)
			return nil
		},
		"trust_pool": func() error { return parseTrustPool(&s.TrustPoolRaw, d) },
		"client_certificate": func() error {
			return parseClientCertificate(d, &s.ClientCertificateFile, &s.ClientKeyFile)
		},
		"server_name": func() error { return parseWord(d, &s.ServerName) },
	}
}

func parseMaxLookups(h *Handler, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.Err("max_lookups takes how many calls to the resolvers there may be at a time, in all and, if need be, for each tenant")
	}
	for i, dst := range []*int{&h.MaxLookups, &h.MaxLookupsPerTenant}[:len(args)] {
		number, err := strconv.Atoi(args[i])
		if err != nil || number < 1 || number > maxMaxLookups {
			return d.Errf("max_lookups takes numbers from 1 to %d, not %q", maxMaxLookups, args[i])
		}
		*dst = number
	}
	return nil
}
