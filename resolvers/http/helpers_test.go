package httpresolver

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls" // trust pools

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func load(t *testing.T, config string) (*Resolver, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	module, err := ctx.LoadModuleByID(member.Namespace+".http", json.RawMessage(config))
	if err != nil {
		return nil, err
	}
	return module.(*Resolver), nil
}

// mustLoad loads a configuration in which URL stands for that of the application.
func mustLoad(t *testing.T, url, config string) *Resolver {
	t.Helper()
	r, err := load(t, strings.ReplaceAll(config, "URL", url))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parse(text string) (*Resolver, error) {
	tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
	if err != nil {
		return nil, err
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next() // the word resolver
	d.Next()
	module, err := caddyfile.UnmarshalModule(d, member.Namespace+"."+d.Val())
	if err != nil {
		return nil, err
	}
	return module.(*Resolver), nil
}

func checkError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not hold %q", err, part)
		}
	}
}

// seen is a request as the application got it.
type seen struct {
	method, target, host, body string
	header                     http.Header
}

// app is an application that remembers what it was asked.
type app struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

func newApp(t *testing.T, answer http.HandlerFunc) *app {
	t.Helper()
	a := new(app)
	a.Server = httptest.NewServer(a.record(answer))
	t.Cleanup(a.Close)
	return a
}

func (a *app) record(answer http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		a.seen = append(a.seen, seen{r.Method, r.RequestURI, r.Host, string(body), r.Header.Clone()})
		a.mu.Unlock()
		answer(w, r)
	})
}

// requests returns those that came so far.
func (a *app) requests() []seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]seen(nil), a.seen...)
}

// record answers with a JSON object.
func record(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	}
}

// status answers with a status and nothing else.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

const (
	alice = `{"kc_id":"k1","tenant":"acme","active":true,"id":4711,"roles":["editor"],"plan":"gold"}`
	path  = `{"url":"URL/members/{tenant}/{kc_id}"}`
)

var aliceAtAcme = member.Query{Tenant: "acme", KCID: "k1", Issuer: "https://sso.example.com/realms/main"}
