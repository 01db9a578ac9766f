package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Floor{})
	httpcaddyfile.RegisterHandlerDirective("bench_floor", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(Floor), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_floor", httpcaddyfile.After, "forward_auth")
}

// Floor does the least that anybody must do who remembers tokens by a digest and tells
// the upstream who the user is by headers: the digest, a look-up of the token and one of
// the member, placeholders, removing the client's headers and setting as many as the
// module does. It decides nothing: it takes what any token says for true, never
// forgets, and knows neither time nor key, logout, flush, metric nor bound.
type Floor struct {
	known *atomic.Pointer[map[[sha256.Size]byte]map[string][]string]
}

// CaddyModule returns the Caddy module information.
func (Floor) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_floor", New: func() caddy.Module { return new(Floor) }}
}

// Provision implements [caddy.Provisioner].
func (f *Floor) Provision(caddy.Context) error {
	f.known = new(atomic.Pointer[map[[sha256.Size]byte]map[string][]string])
	f.known.Store(&map[[sha256.Size]byte]map[string][]string{})
	return nil
}

// floorHeaders are the module's default ones.
var floorHeaders = []string{
	"X-User-Id", "X-Member-Id", "X-User-Name", "X-User-Email", "X-User-Roles", "X-Auth-Status", "X-Tenant-Id",
}

func (f *Floor) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	raw, tenant := strings.TrimPrefix(r.Header["Authorization"][0], "Bearer "), r.Header["X-Tenant-Id"][0]
	for _, name := range floorHeaders {
		delete(r.Header, name)
	}
	id := sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw)))
	texts := (*f.known.Load())[id][tenant]
	if texts == nil {
		var err error
		if texts, err = f.learn(id, raw, tenant); err != nil {
			return caddyhttp.Error(http.StatusUnauthorized, err)
		}
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Map(func(key string) (any, bool) {
		if key == "http.auth.user.id" {
			return texts[0], true
		}
		return nil, false
	})
	values := make([]string, len(floorHeaders))
	for i, name := range floorHeaders {
		values[i] = texts[i]
		r.Header[name] = values[i : i+1 : i+1]
	}
	return next.ServeHTTP(w, r)
}

// learn makes the headers of a token in a tenant.
func (f *Floor) learn(id [sha256.Size]byte, raw, tenant string) ([]string, error) {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		return nil, err
	}
	var claims struct {
		Subject string `json:"sub"`
		Name    string `json:"preferred_username"`
		Email   string `json:"email"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, err
	}
	texts := []string{claims.Subject, "m-" + claims.Subject, claims.Name, claims.Email, "editor,viewer", "member", tenant}
	known := maps.Clone(*f.known.Load())
	known[id] = map[string][]string{tenant: texts}
	f.known.Store(&known)
	return texts, nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Floor)(nil)
	_ caddyhttp.MiddlewareHandler = (*Floor)(nil)
)
