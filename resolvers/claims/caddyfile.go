package claimsresolver

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
)

// most bounds the claims of one line.
const most = 32

// UnmarshalCaddyfile sets up the resolver from Caddyfile tokens. Syntax:
//
//	resolver claims {
//	    tenant    <claim> [<template>]
//	    id        <claim>
//	    roles     <claim...>
//	    attribute <name> <claim>
//	}
//
// A claim is its name, or a path such as realm_access.roles. The block may be left
// out: the token's organizations are the tenants then, and members have no roles.
func (r *Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	_, err := options.Block(d, options.Lines{
		"tenant": func() error {
			args, err := options.Arguments(d, "<claim> [<template>]", 1, 2)
			if err != nil {
				return err
			}
			r.Tenant, r.TenantTemplate = args[0], ""
			if len(args) == 2 {
				r.TenantTemplate = args[1]
			}
			return nil
		},
		"id": func() error { return options.Argument(d, &r.ID) },
		"roles": func() (err error) {
			r.Roles, err = options.Arguments(d, "<claim...>", 1, most)
			return err
		},
		"attribute": func() error { return options.Attribute(d, &r.Attributes, "<claim>") },
	}, "attribute")
	return err
}
