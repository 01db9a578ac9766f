package token

import (
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func testATokenNamesItsTenant(t *testing.T) {
	s := newStage(t)
	type object = map[string]any
	for name, test := range map[string]struct {
		path  string
		claim any // of organization; nil: absent
		want  bool
	}{
		"a list":                       {"organization", []string{"t1"}, true},
		"a list of several":            {"organization", []string{"t0", "t1"}, true},
		"an object with ids":           {"organization", object{"t1": object{"id": "x"}, "t2": object{}}, true},
		"a string":                     {"organization", "t1", true},
		"an empty object":              {"organization", object{}, false},
		"an empty list":                {"organization", []string{}, false},
		"absent":                       {"organization", nil, false},
		"a list of others":             {"organization", []string{"t10", "T1", "t", " t1"}, false},
		"an object of others":          {"organization", object{"t2": object{"t1": object{}}}, false},
		"another string":               {"organization", "t1 ", false},
		"a string with several":        {"organization", "t1,t2", false},
		"true":                         {"organization", true, false},
		"a number":                     {"organization", 1, false},
		"a list with a number":         {"organization", []any{"t1", 1}, false},
		"a list of lists":              {"organization", []any{[]any{"t1"}}, false},
		"a list of objects":            {"organization", []any{object{"t1": 1}}, false},
		"a path to a string":           {"organization.tenant", object{"tenant": "t1"}, true},
		"a path to a list":             {"organization.tenants", object{"tenants": []string{"t2", "t1"}}, true},
		"a path to an object":          {"organization.tenants", object{"tenants": object{"t1": 1}}, false},
		"a path to nothing":            {"organization.x", object{"tenant": "t1"}, false},
		"a path that names the tenant": {"organization.t1", object{"t1": object{"id": "x"}}, false},
		"no path":                      {"", "t1", false},
		"the empty name":               {"organization", "", false},
		"the empty name in a list":     {"organization", []string{""}, false},
		"the empty name in an object":  {"organization", object{"": 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			claim := kctest.Claim("organization", test.claim)
			if test.claim == nil {
				claim = kctest.Without("organization")
			}
			tok, err := s.verifier.Verify(t.Context(), s.realm.AccessToken(s.alice, claim))
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.NamesTenant(test.path, "t1"); got != test.want {
				t.Errorf("got %t", got)
			}
			if tok.NamesTenant(test.path, "") {
				t.Error("no tenant is named")
			}
		})
	}
}

func testOrganizationsOfARealKeycloak(t *testing.T) {
	for file, want := range map[string][2]bool{ // tenant-a, tenant-b
		"token-password-org-one.json":        {true, false},
		"token-password-org-star.json":       {true, true},
		"token-org-with-id.json":             {true, true},
		"token-password-org.json":            {false, false},
		"token-password-org-carol-none.json": {false, false},
	} {
		t.Run(file, func(t *testing.T) {
			access := decodeFile[keycloakFile](t, "keycloak", file).Access
			v, _ := verifierOf(t, keycloakIssuer, readFile(t, "keycloak", "jwks-after-rotation.json"),
				time.Unix(access.Decoded.Payload.Issued+1, 0))
			tok, err := v.Verify(t.Context(), access.Raw)
			if err != nil {
				t.Fatal(err)
			}
			for i, tenant := range []string{"tenant-a", "tenant-b"} {
				if got := tok.NamesTenant(OrganizationClaim, tenant); got != want[i] {
					t.Errorf("%s: %t", tenant, got)
				}
			}
		})
	}
}
