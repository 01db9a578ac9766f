package keycloakresolver

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
)

// UnmarshalCaddyfile sets up the resolver from Caddyfile tokens. Syntax:
//
//	resolver keycloak {
//	    issuer             <url>
//	    backchannel_url    <url>
//	    client_id          <client_id>
//	    client_secret      <secret>
//	    private_key        <key_file> [<key_id>]
//	    members            organizations | groups [<template>] | realm_roles <template>
//	    roles              realm | client <client_id> | groups
//	    attribute          <name> <user_attribute>
//	    timeout            <duration>
//	    trust_pool         <module> [...]
//	    client_certificate <certificate_file> <key_file>
//	    insecure_http
//	}
//
// `attribute` may be repeated.
func (r *Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	given, err := options.Block(d, options.Lines{
		"issuer":          func() error { return options.Argument(d, &r.Issuer) },
		"backchannel_url": func() error { return options.Argument(d, &r.BackchannelURL) },
		"client_id":       func() error { return options.Argument(d, &r.ClientID) },
		"client_secret":   func() error { return options.Argument(d, &r.ClientSecret) },
		"private_key":     func() error { return pair(d, &r.PrivateKeyFile, &r.KeyID, "<key_file> [<key_id>]") },
		"members": func() error {
			return pair(d, &r.Members, &r.Template, "organizations | groups [<template>] | realm_roles <template>")
		},
		"roles": func() error {
			return pair(d, &r.Roles, &r.RolesClient, "realm | client <client_id> | groups")
		},
		"attribute": func() error { return options.Attribute(d, &r.Attributes, "<user_attribute>") },
		"timeout":   func() error { return options.Duration(d, &r.Timeout) },
		"trust_pool": func() (err error) {
			r.TrustPoolRaw, err = options.TrustPool(d)
			return err
		},
		"client_certificate": func() error {
			return pair(d, &r.ClientCertificateFile, &r.ClientKeyFile, "<certificate_file> <key_file>")
		},
		"insecure_http": func() error { return options.Flag(d, &r.InsecureHTTP) },
	}, "attribute")
	if err != nil {
		return err
	}
	for _, option := range []string{"issuer", "client_id"} {
		if !given[option] {
			return d.Errf("resolver keycloak has no %s; add the line: %[1]s …", option)
		}
	}
	if given["client_secret"] == given["private_key"] {
		return d.Err("resolver keycloak needs one of client_secret and private_key; add the line: client_secret …")
	}
	return nil
}

// pair stores one argument or two.
func pair(d *caddyfile.Dispenser, first, second *string, usage string) error {
	args, err := options.Arguments(d, usage, 1, 2)
	if err != nil {
		return err
	}
	*first = args[0]
	if len(args) == 2 {
		*second = args[1]
	}
	return nil
}
