package files

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"acme/8d0c.json":   `{"kc_id": "8d0c", "tenant": "acme", "active": true, "id": "4711", "attributes": {"roles": ["editor"], "plan": "gold"}}`,
		"acme/moved.json":  `{"kc_id": "8d0c", "tenant": "globex", "active": true, "id": "4711"}`,
		"acme/torn.json":   `{"kc_id": "to`,
		"acme/..%2Fx.json": `{"kc_id": "../x", "tenant": "acme", "id": "1"}`,
		"x.json":           `{"kc_id": "../x", "tenant": "acme", "active": true, "id": "2"}`,
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	failure := errors.New("any but member.ErrUnknown")
	for name, tc := range map[string]struct {
		dir, tenant, kcID string
		want              *member.Member
		err               error
	}{
		"a member": {dir, "acme", "8d0c", &member.Member{
			KCID: "8d0c", Tenant: "acme", Active: true, ID: "4711",
			Attributes: map[string]member.Value{"roles": member.List("editor"), "plan": member.Text("gold")},
		}, nil},
		"says what the file says, not what was asked": {dir, "acme", "moved", &member.Member{KCID: "8d0c", Tenant: "globex", Active: true, ID: "4711"}, nil},
		"a user without a file":                       {dir, "acme", "9e1d", nil, member.ErrUnknown},
		"a tenant without a directory":                {dir, "globex", "8d0c", nil, member.ErrUnknown},
		"no directory at all is a failure":            {filepath.Join(dir, "none"), "acme", "8d0c", nil, failure},
		"a file cut short is a failure":               {dir, "acme", "torn", nil, failure},
		"a path for an id stays in the tenant":        {dir, "acme", "../x", &member.Member{KCID: "../x", Tenant: "acme", ID: "1"}, nil},
		"a path for a tenant stays in the directory":  {filepath.Join(dir, "acme"), "..", "x", nil, failure},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := (&Resolver{Dir: tc.dir}).Resolve(t.Context(), member.Query{Tenant: tc.tenant, KCID: tc.kcID})
			if !reflect.DeepEqual(got, tc.want) || (err == nil) != (tc.err == nil) || errors.Is(err, member.ErrUnknown) != (tc.err == member.ErrUnknown) {
				t.Errorf("%+v and %v, want %+v and %v", got, err, tc.want, tc.err)
			}
		})
	}
}

// A Caddyfile that uses it is adapted, and Caddy would run it.
func TestCaddyUsesIt(t *testing.T) {
	const text = `
	:8080 {
		keycloak_cache_auth {
			issuer https://sso.example.com/realms/main
			audience shop
			resolver files /srv/members
		}
	}`
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&parsed); err != nil {
		t.Error(err)
	}
}
