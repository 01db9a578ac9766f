package main

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/coreos/go-oidc/v3/oidc"
)

func init() {
	caddy.RegisterModule(Verify{})
	httpcaddyfile.RegisterHandlerDirective("bench_verify", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		v := new(Verify)
		return v, v.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_verify", httpcaddyfile.After, "forward_auth")
}

// Verify verifies the bearer token of every request with go-oidc as it comes, and
// passes the token's subject on as X-User-ID. It is what the first sight of a token
// is compared with.
type Verify struct {
	Issuer   string `json:"issuer,omitempty"`
	JWKS     string `json:"jwks,omitempty"`
	Audience string `json:"audience,omitempty"`

	verifier *oidc.IDTokenVerifier
}

// CaddyModule returns the Caddy module information.
func (Verify) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_verify", New: func() caddy.Module { return new(Verify) }}
}

// UnmarshalCaddyfile reads `bench_verify <issuer> <jwks> <audience>`.
func (v *Verify) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&v.Issuer, &v.JWKS, &v.Audience) {
		return d.ArgErr()
	}
	return nil
}

// Provision implements [caddy.Provisioner].
func (v *Verify) Provision(ctx caddy.Context) error {
	keys := oidc.NewRemoteKeySet(ctx, v.JWKS)
	v.verifier = oidc.NewVerifier(v.Issuer, keys, &oidc.Config{ClientID: v.Audience})
	return nil
}

func (v *Verify) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return caddyhttp.Error(http.StatusUnauthorized, errors.New("no bearer token"))
	}
	token, err := v.verifier.Verify(r.Context(), raw)
	if err != nil {
		return caddyhttp.Error(http.StatusUnauthorized, err)
	}
	r.Header.Set("X-User-ID", token.Subject)
	return next.ServeHTTP(w, r)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Verify)(nil)
	_ caddyhttp.MiddlewareHandler = (*Verify)(nil)
)
