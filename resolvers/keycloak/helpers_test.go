package keycloakresolver

import (
	"context"
	"encoding/json"
	"strings"
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
	module, err := ctx.LoadModuleByID(member.Namespace+".keycloak", json.RawMessage(config))
	if err != nil {
		return nil, err
	}
	r := module.(*Resolver)
	t.Cleanup(func() { _ = r.Cleanup() })
	return r, nil
}

// mustLoad loads settings beside those of the realm and the client.
func mustLoad(t *testing.T, issuer, clientID, more string) *Resolver {
	t.Helper()
	config := `{"issuer":"` + issuer + `","client_id":"` + clientID + `","client_secret":"s3cret"`
	if more != "" {
		config += "," + more
	}
	r, err := load(t, config+"}")
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
