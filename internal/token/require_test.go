package token

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestRequirements(t *testing.T) {
	tok := &Token{
		Scope:       []string{"openid", "write", "xread", "read2", "READ"},
		RealmRoles:  []string{"admin", "write"},
		ClientRoles: map[string][]string{"shop": {"buyer"}, "admin": {"seller"}},
		Groups:      []string{"/staff/admins", "guests"},
		ACR:         "2",
	}
	scope := func(names ...string) Requirement { return Requirement{Kind: RequireScope, AnyOf: names} }
	realm := func(names ...string) Requirement { return Requirement{Kind: RequireRealmRole, AnyOf: names} }
	client := func(id string, names ...string) Requirement {
		return Requirement{Kind: RequireClientRole, Client: id, AnyOf: names}
	}
	group := func(names ...string) Requirement { return Requirement{Kind: RequireGroup, AnyOf: names} }
	acr := func(names ...string) Requirement { return Requirement{Kind: RequireACR, AnyOf: names} }

	for name, test := range map[string]struct {
		requirements []Requirement
		scope        []string // in the challenge
		missing      string   // part of the hint; "" if all is met
	}{
		"nothing is required":                 {},
		"a scope":                             {requirements: []Requirement{scope("write")}},
		"CL-023 a scope that is absent":       {[]Requirement{scope("delete")}, []string{"delete"}, `scope "delete"`},
		"CL-024 part of a scope":              {[]Requirement{scope("read")}, []string{"read"}, `scope "read"`},
		"CL-024 scopes as one text":           {[]Requirement{scope("openid write")}, []string{"openid write"}, "scope"},
		"one of two scopes":                   {requirements: []Requirement{scope("delete", "write")}},
		"none of two scopes":                  {[]Requirement{scope("a", "b")}, []string{"a", "b"}, `one of ["a", "b"]`},
		"two scopes of which one is absent":   {[]Requirement{scope("write"), scope("a"), scope("write")}, []string{"write", "a"}, `scope "a"`},
		"a role that is absent beside scopes": {[]Requirement{scope("write"), realm("x")}, []string{"write"}, `realm role "x"`},
		"a realm role":                        {requirements: []Requirement{realm("admin")}},
		"a realm role in other letters":       {[]Requirement{realm("Admin")}, nil, "realm role"},
		"a client role":                       {requirements: []Requirement{client("shop", "seller", "buyer")}},
		"another client's role":               {[]Requirement{client("shop", "seller")}, nil, `client role of "shop" "seller"`},
		"a realm role asked of a client":      {[]Requirement{client("shop", "admin")}, nil, "client role"},
		"a client role asked of the realm":    {[]Requirement{realm("buyer")}, nil, "realm role"},
		"a client that is not there":          {[]Requirement{client("cart", "buyer")}, nil, "client role"},
		"a group":                             {requirements: []Requirement{group("/staff/admins")}},
		"a group above":                       {[]Requirement{group("/staff")}, nil, "group"},
		"a group's last part":                 {[]Requirement{group("admins")}, nil, "group"},
		"acr":                                 {requirements: []Requirement{acr("2", "3")}},
		"a lower acr does not imply":          {[]Requirement{acr("1")}, nil, `acr "1"`},
		"a kind that does not exist":          {[]Requirement{{Kind: "x", AnyOf: []string{"admin"}}}, nil, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tok.Meet(test.requirements)
			if test.missing == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Reason != ReasonInsufficientScope {
				t.Fatalf("got %v", err)
			}
			if !slices.Equal(refusal.Scope, test.scope) {
				t.Errorf("the challenge names %q, want %q", refusal.Scope, test.scope)
			}
			if !strings.Contains(refusal.Hint, test.missing) {
				t.Errorf("%q is not in %q", test.missing, refusal.Hint)
			}
		})
	}
	if err := (&Token{}).Meet([]Requirement{acr("")}); err == nil {
		t.Error("an acr that is absent passes for an empty one")
	}
}

func TestRequirementsAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		requirement Requirement
		ok          bool
	}{
		"a scope":                  {Requirement{RequireScope, "", []string{"api:read"}}, true},
		"a client role":            {Requirement{RequireClientRole, "shop", []string{"buyer of things"}}, true},
		"no kind":                  {Requirement{"", "", []string{"x"}}, false},
		"another kind":             {Requirement{"role", "", []string{"x"}}, false},
		"no names":                 {Requirement{RequireGroup, "", nil}, false},
		"an empty name":            {Requirement{RequireACR, "", []string{"1", ""}}, false},
		"a client role of nobody":  {Requirement{RequireClientRole, "", []string{"x"}}, false},
		"a realm role of a client": {Requirement{RequireRealmRole, "shop", []string{"x"}}, false},
		"two scopes as one":        {Requirement{RequireScope, "", []string{"read write"}}, false},
		"a scope with a quote":     {Requirement{RequireScope, "", []string{`x", error="y`}}, false},
		"a scope with a backslash": {Requirement{RequireScope, "", []string{`x\`}}, false},
		"a scope beyond ASCII":     {Requirement{RequireScope, "", []string{"lesen-ä"}}, false},
		"a scope with a break":     {Requirement{RequireScope, "", []string{"x\r\ny"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.requirement.Validate(); (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// CL-022: a service account has no session, and no more rights than its roles.
func testARealServiceAccountMeetsOnlyWhatItHas(t *testing.T) {
	s := newStage(t)
	service := s.realm.AddUser(kctest.User{Username: "service-account-app", RealmRoles: []string{"batch"}})
	tok, err := s.verifier.Verify(t.Context(), s.realm.AccessToken(service, kctest.Without("sid"), kctest.Claim("client_id", "app")))
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.Meet([]Requirement{{Kind: RequireRealmRole, AnyOf: []string{"batch"}}}); err != nil {
		t.Errorf("its role: %v", err)
	}
	if err := tok.Meet([]Requirement{{Kind: RequireRealmRole, AnyOf: []string{"admin"}}}); err == nil {
		t.Error("another role is met")
	}
}
