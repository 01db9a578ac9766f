package keycloakcacheauth

import (
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	keycloak "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/keycloak"
)

// Who gives a key where its file's path belongs is told so, without the key.
func TestKeysInPlaceOfPathsAreNotTold(t *testing.T) {
	text, err := os.ReadFile(assertionKey(t))
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(string(text), "\n")[1]
	t.Setenv("KCA_TEST_KEY", string(text))
	const given = "{env.KCA_TEST_KEY}"
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	handler := func(change func(*Handler)) func() error {
		return func() error {
			_, err := ctx.LoadModuleByID("http.handlers.keycloak_cache_auth", caddyconfig.JSON(newSite(t).config(change), nil))
			return err
		}
	}
	for name, load := range map[string]func() error{
		"the keycloak resolver's": func() error {
			return (&keycloak.Resolver{Issuer: "https://sso.example.com/realms/x", ClientID: "c", PrivateKeyFile: given}).Provision(ctx)
		},
		"introspection's": handler(func(h *Handler) {
			h.Issuers[0].Introspect = &Introspect{ClientID: "c", PrivateKeyFile: given}
		}),
		"the client certificate's": handler(func(h *Handler) {
			h.Issuers[0].ClientCertificateFile, h.Issuers[0].ClientKeyFile = given, given
		}),
		"the assertion's": handler(func(h *Handler) {
			h.Assertion = &Assertion{Keys: []string{given + "x"}, Audiences: []string{"app"}, Issuer: "site"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			if err := load(); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
