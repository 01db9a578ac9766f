package main

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func init() {
	caddy.RegisterModule(Resolver{})
}

// Resolver says of everybody that he is an active member, at once: it fills caches
// and asks nobody. Each member has an id of his own and eight attributes.
type Resolver struct{}

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: member.Namespace + ".bench", New: func() caddy.Module { return new(Resolver) }}
}

// UnmarshalCaddyfile reads `resolver bench`.
func (*Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Identity implements [member.Resolver].
func (*Resolver) Identity() string { return "bench" }

// Resolve implements [member.Resolver]. Its texts are made anew for each member, as
// a database's would be: shared ones would make the cache look smaller than it is.
func (*Resolver) Resolve(_ context.Context, q member.Query) (*member.Member, error) {
	text := func(name string) member.Value { return member.Text(fmt.Sprintf("%s of %.8s", name, q.KCID)) }
	return &member.Member{
		KCID: string([]byte(q.KCID)), Tenant: string([]byte(q.Tenant)), Active: true, ID: "m-" + q.KCID,
		Attributes: map[string]member.Value{
			"roles":      member.List(string([]byte("editor")), string([]byte("viewer"))),
			"plan":       text("plan"),
			"team":       text("team"),
			"region":     text("region"),
			"department": text("department"),
			"language":   text("language"),
			"cost_code":  text("cost"),
			"manager":    text("manager"),
		},
	}, nil
}

// Interface guards.
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)
