package main

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Null{})
	httpcaddyfile.RegisterHandlerDirective("bench_null", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return Null{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_null", httpcaddyfile.After, "forward_auth")
}

// Null does nothing. What it costs, Caddy takes for calling one handler more.
type Null struct{}

// CaddyModule returns the Caddy module information.
func (Null) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_null", New: func() caddy.Module { return new(Null) }}
}

func (Null) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// Interface guard.
var _ caddyhttp.MiddlewareHandler = Null{}
