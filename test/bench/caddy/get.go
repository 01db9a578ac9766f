package main

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func init() {
	caddy.RegisterModule(Get{})
	httpcaddyfile.RegisterHandlerDirective("bench_get", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		g := new(Get)
		return g, g.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_get", httpcaddyfile.After, "forward_auth")
}

// Get does one GET in Redis for every request and decodes the member it finds, as
// the module writes it, with the module's JSON library. It looks at no token: the
// user's id comes in X-Bench-User. It is what a look-up in Redis is compared with.
type Get struct {
	Addr string `json:"addr,omitempty"`

	// What stands in the key before the tenant, and between tenant and user.
	Prefix string `json:"prefix,omitempty"`
	Middle string `json:"middle,omitempty"`

	client *redis.Client
}

// CaddyModule returns the Caddy module information.
func (Get) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_get", New: func() caddy.Module { return new(Get) }}
}

// UnmarshalCaddyfile reads `bench_get <host:port> <prefix> <middle>`.
func (g *Get) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&g.Addr, &g.Prefix, &g.Middle) {
		return d.ArgErr()
	}
	return nil
}

// Provision implements [caddy.Provisioner].
func (g *Get) Provision(caddy.Context) error {
	g.client = redis.NewClient(&redis.Options{
		Addr: g.Addr, ContextTimeoutEnabled: true, DisableIdentity: true,
		ReadTimeout: time.Second, WriteTimeout: time.Second, MaxRetries: -1,
	})
	return nil
}

// Cleanup implements [caddy.CleanerUpper].
func (g *Get) Cleanup() error { return g.client.Close() }

// stored is a member as it stands in Redis.
type stored struct {
	Version  int64  `json:"v"`
	Gen      string `json:"gen"`
	Pos      string `json:"pos"`
	Tenant   string `json:"tenant"`
	Issuer   string `json:"issuer"`
	KCID     string `json:"kc_id"`
	LoadedAt int64  `json:"loaded_at"`
	Expires  int64  `json:"expires"`
	Keep     int64  `json:"keep"`
	Member   struct {
		KCID       string                  `json:"kc_id"`
		Tenant     string                  `json:"tenant"`
		Issuer     string                  `json:"issuer"`
		Active     bool                    `json:"active"`
		ID         string                  `json:"id"`
		Attributes map[string]member.Value `json:"attributes"`
	} `json:"member"`
}

func (g *Get) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	key := g.Prefix + r.Header.Get("X-Tenant-ID") + g.Middle + r.Header.Get("X-Bench-User")
	value, err := g.client.Get(r.Context(), key).Bytes()
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	var found stored
	if err := json.Unmarshal(value, &found); err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	r.Header.Set("X-User-ID", found.Member.KCID)
	r.Header.Set("X-Member-ID", found.Member.ID)
	return next.ServeHTTP(w, r)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Get)(nil)
	_ caddy.CleanerUpper          = (*Get)(nil)
	_ caddyhttp.MiddlewareHandler = (*Get)(nil)
)
