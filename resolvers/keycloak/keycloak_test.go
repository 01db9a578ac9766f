package keycloakresolver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// site is a realm of a real Keycloak.
type site struct {
	*servers.KeycloakRealm
	alice, bob, disabled string // ids of users
}

const management = "realm-management"

func newSite(t *testing.T) *site {
	t.Helper()
	server := servers.Keycloak(t)
	ctx := t.Context()
	realm, err := server.CreateRealm(ctx, "members of tenants", map[string]any{"organizationsEnabled": true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := realm.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s := &site{KeycloakRealm: realm}
	for _, user := range []struct {
		id *string
		servers.KeycloakUser
	}{
		{&s.alice, servers.KeycloakUser{Username: "alice", RealmRoles: []string{"tenant-acme", "tenant-other", "editor"}, Attributes: map[string][]string{
			"plan": {"{env.HOME}"}, "teams": {"red", "blue"},
		}}},
		{&s.bob, servers.KeycloakUser{Username: "bob"}},
		{&s.disabled, servers.KeycloakUser{Username: "disabled", Disabled: true}},
	} {
		if *user.id, err = realm.CreateUser(ctx, user.KeycloakUser); err != nil {
			t.Fatal(err)
		}
	}
	for _, organization := range []servers.KeycloakOrganization{
		{Alias: "acme", Members: []string{s.alice, s.disabled}},
		{Alias: "{env.HOME}", Members: []string{s.alice}},
		{Alias: "off", Disabled: true, Members: []string{s.alice}},
		{Alias: "ACME"},
	} {
		if _, err := realm.CreateOrganization(ctx, organization); err != nil {
			t.Fatal(err)
		}
	}
	s.makeGroups(t)
	s.makeClient(t, "app", "viewer")
	if err := realm.AssignClientRoles(ctx, s.alice, "app", "viewer"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) makeGroups(t *testing.T) {
	t.Helper()
	group := func(parent, name string, users ...string) string {
		id, err := s.CreateGroup(t.Context(), parent, name, users...)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	tenants := group("", "tenants")
	acme := group(tenants, "acme", s.alice)
	editors := group(acme, "editors", s.alice)
	group(editors, "seniors", s.alice)
	group(tenants, "below", s.bob)
	group(tenants, "acme2", s.bob)
	// names that look like the paths of others
	group("", "tenants/forged", s.bob)
	group(tenants, "forged/editors", s.bob)
	group(tenants, "{env.HOME}", s.alice)

	var role map[string]any
	for _, name := range []string{"by-group"} {
		if err := s.Call(t.Context(), http.MethodPost, "/roles", map[string]any{"name": name}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Call(t.Context(), http.MethodGet, "/roles/"+name, nil, &role); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Call(t.Context(), http.MethodPost, "/groups/"+acme+"/role-mappings/realm", []any{role}, nil); err != nil {
		t.Fatal(err)
	}
}

func (s *site) makeClient(t *testing.T, clientID string, roles ...string) {
	t.Helper()
	ctx := t.Context()
	if err := s.CreateClient(ctx, servers.KeycloakClient{ID: clientID, Secret: "s3cret", ServiceAccount: true}); err != nil {
		t.Fatal(err)
	}
	var found []map[string]any
	if err := s.Call(ctx, http.MethodGet, "/clients?clientId="+clientID, nil, &found); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		if err := s.Call(ctx, http.MethodPost, "/clients/"+found[0]["id"].(string)+"/roles", map[string]any{"name": role}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// asker makes a client with these rights and no others, and returns its id.
func (s *site) asker(t *testing.T, rights ...string) string {
	t.Helper()
	clientID := "caddy-" + strings.Join(rights, "-")
	s.makeClient(t, clientID)
	user, err := s.ServiceAccount(t.Context(), clientID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AssignClientRoles(t.Context(), user, management, rights...); err != nil {
		t.Fatal(err)
	}
	return clientID
}

func (s *site) query(tenant, kcID string) member.Query {
	return member.Query{Tenant: tenant, KCID: kcID, Issuer: s.Issuer()}
}

// TestKeycloak tries the resolver on a real Keycloak, with no more rights than are
// documented.
func TestKeycloak(t *testing.T) {
	s := newSite(t)
	askers := map[string]string{}
	for need, rights := range map[string][]string{
		viewUsers:         {"view-users"},
		viewOrganizations: {"view-users", "view-organizations"},
		viewClients:       {"view-users", "view-clients"},
	} {
		askers[need] = s.asker(t, rights...)
	}
	t.Run("members", func(t *testing.T) { s.members(t, askers) })
	t.Run("rights", func(t *testing.T) { s.rights(t, askers) })
	t.Run("changes count at the next look-up", func(t *testing.T) { s.changes(t, askers[viewOrganizations]) })
	t.Run("a wrong secret", func(t *testing.T) {
		r, err := load(t, `{"issuer":"`+s.Issuer()+`","client_id":"app","client_secret":"wrong"}`)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Resolve(t.Context(), s.query("acme", s.alice))
		checkError(t, err, "client_id and client_secret")
	})
	t.Run("a private key instead of a secret", func(t *testing.T) { s.privateKey(t) })
	t.Run("a realm that does not exist", func(t *testing.T) {
		issuer := s.Issuer() + "x"
		_, err := mustLoad(t, issuer, "app", "").Resolve(t.Context(), member.Query{Tenant: "acme", KCID: s.alice, Issuer: issuer})
		checkError(t, err, "check the realm's name")
	})
	t.Run("tokens that Keycloak does not take any more are renewed", func(t *testing.T) { s.renewal(t, askers[viewUsers]) })
}

// privateKey has a client of which Keycloak knows nothing but its public key.
func (s *site) privateKey(t *testing.T) {
	write := func(name string) (*ecdsa.PrivateKey, string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return key, file
	}
	key, file := write("key.pem")
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "mine", Use: "sig", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	const clientID = "with a key"
	err = s.Call(t.Context(), http.MethodPost, "/clients", map[string]any{
		"clientId": clientID, "enabled": true, "publicClient": false, "serviceAccountsEnabled": true,
		"clientAuthenticatorType": "client-jwt",
		"attributes":              map[string]string{"use.jwks.string": "true", "jwks.string": string(keys)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	user, err := s.ServiceAccount(t.Context(), clientID)
	if err == nil {
		err = s.AssignClientRoles(t.Context(), user, management, "view-users", "view-organizations")
	}
	if err != nil {
		t.Fatal(err)
	}
	with := func(file string) *Resolver {
		r, err := load(t, fmt.Sprintf(`{"issuer":%q,"client_id":%q,"private_key_file":%q,"key_id":"mine"}`, s.Issuer(), clientID, file))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	good := with(file)
	for range 2 { // Keycloak takes no assertion twice
		if m, err := good.Resolve(t.Context(), s.query("acme", s.alice)); err != nil || !m.Active {
			t.Errorf("got %+v, %v", m, err)
		}
		good.realm.tokens.drop(good.realm.tokens.known)
	}
	_, other := write("other.pem")
	_, err = with(other).Resolve(t.Context(), s.query("acme", s.alice))
	checkError(t, err, "check client_id")
}

func (s *site) members(t *testing.T, askers map[string]string) {
	const byGroup, byRole = `"members":"groups"`, `"members":"realm_roles","template":"tenant-{tenant}"`
	type attributes = map[string]member.Value
	standard := []string{"by-group", "default-roles-members of tenants", "editor", "offline_access", "uma_authorization"}
	withTenants := slices.Sorted(slices.Values(append([]string{"tenant-acme", "tenant-other"}, standard...)))
	tests := map[string]struct {
		need, config string
		tenant, kcID string
		want         *member.Member // nil for nobody
	}{
		"an organization":                     {viewOrganizations, ``, "acme", s.alice, &member.Member{Active: true}},
		"an organization like a placeholder":  {viewOrganizations, ``, "{env.HOME}", s.alice, &member.Member{Active: true}},
		"a disabled organization":             {viewOrganizations, ``, "off", s.alice, &member.Member{}},
		"a disabled user":                     {viewOrganizations, ``, "acme", s.disabled, &member.Member{}},
		"an organization in other letters":    {viewOrganizations, ``, "ACME", s.alice, nil},
		"an organization that does not exist": {viewOrganizations, ``, "nope", s.alice, nil},
		"a user of no organization":           {viewOrganizations, ``, "acme", s.bob, nil},
		"a user who does not exist":           {viewOrganizations, ``, "acme", "00000000-0000-0000-0000-000000000000", nil},
		"a user's id and more":                {viewOrganizations, ``, "acme", s.alice + "/groups", nil},
		"a user's id with a parameter":        {viewOrganizations, ``, "acme", s.alice + ";x=y", nil},
		"a user's name":                       {viewOrganizations, ``, "acme", "alice", nil},
		"attributes": {viewOrganizations, `"attributes":{"plan":"plan","teams":"teams","none":"none"}`, "acme", s.alice, &member.Member{Active: true, Attributes: attributes{
			"plan": member.Text("{env.HOME}"), "teams": member.List("red", "blue"),
		}}},
		"realm roles":        {viewOrganizations, `"roles":"realm"`, "acme", s.alice, &member.Member{Active: true, Attributes: attributes{"roles": member.List(withTenants...)}}},
		"all groups":         {viewOrganizations, `"roles":"groups"`, "off", s.disabled, nil},
		"a client's roles":   {viewClients, byGroup + `,"roles":"client","roles_client":"app"`, "acme", s.alice, &member.Member{Active: true, Attributes: attributes{"roles": member.List("viewer")}}},
		"a group":            {viewUsers, byGroup, "acme", s.alice, &member.Member{Active: true}},
		"groups below":       {viewUsers, byGroup + `,"roles":"groups"`, "acme", s.alice, &member.Member{Active: true, Attributes: attributes{"roles": member.List("editors", "editors/seniors")}}},
		"no group below":     {viewUsers, byGroup + `,"roles":"groups"`, "below", s.bob, &member.Member{Active: true, Attributes: attributes{"roles": member.List()}}},
		"a placeholder's":    {viewUsers, byGroup, "{env.HOME}", s.alice, &member.Member{Active: true}},
		"another group":      {viewUsers, byGroup, "acme", s.bob, nil},
		"a forged path":      {viewUsers, byGroup, "forged", s.bob, nil},
		"a group in another": {viewUsers, byGroup, "acme/editors", s.alice, nil},
		"a role":             {viewUsers, byRole, "acme", s.alice, &member.Member{Active: true}},
		"a role and the rest": {viewUsers, byRole + `,"roles":"realm"`, "acme", s.alice, &member.Member{Active: true, Attributes: attributes{
			"roles": member.List(standard...),
		}}},
		"a role by a group": {viewUsers, `"members":"realm_roles","template":"by-{tenant}"`, "group", s.alice, &member.Member{Active: true}},
		"no such role":      {viewUsers, byRole, "acme", s.bob, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, s.Issuer(), askers[test.need], test.config)
			got, err := r.Resolve(t.Context(), s.query(test.tenant, test.kcID))
			if test.want == nil {
				if !errors.Is(err, member.ErrUnknown) || got != nil {
					t.Fatalf("got %+v, %v, want ErrUnknown", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.KCID != test.kcID || got.ID != test.kcID || got.Tenant != test.tenant || got.Issuer != s.Issuer() || got.Active != test.want.Active {
				t.Errorf("got %+v", got)
			}
			if !maps.EqualFunc(got.Attributes, test.want.Attributes, member.Value.Equal) {
				t.Errorf("attributes are %v, want %v", got.Attributes, test.want.Attributes)
			}
		})
	}
}

// rights shows that what is documented suffices, and that what lacks is named.
func (s *site) rights(t *testing.T, askers map[string]string) {
	tests := map[string]struct{ asker, config, want string }{
		"organizations":                    {askers[viewOrganizations], ``, ""},
		"organizations, no right to them":  {askers[viewUsers], ``, "needs view-users and view-organizations"},
		"groups":                           {askers[viewUsers], `"members":"groups"`, ""},
		"groups, no right to users":        {"app", `"members":"groups"`, "needs view-users of realm-management"},
		"realm roles":                      {askers[viewUsers], `"members":"realm_roles","template":"t-{tenant}"`, ""},
		"a client's roles":                 {askers[viewClients], `"members":"groups","roles":"client","roles_client":"app"`, ""},
		"a client's roles, no right to it": {askers[viewUsers], `"members":"groups","roles":"client","roles_client":"app"`, "needs view-users and view-clients"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := mustLoad(t, s.Issuer(), test.asker, test.config).Check(t.Context())
			if test.want == "" && err != nil {
				t.Error(err)
			}
			if test.want != "" {
				checkError(t, err, test.want)
			}
		})
	}
	for name, test := range map[string]struct{ asker, config, want string }{
		"a client's roles, no right to clients": {askers[viewUsers], `"members":"groups","roles":"client","roles_client":"app"`, "needs view-users and view-clients"},
		"the roles of no client":                {askers[viewClients], `"members":"groups","roles":"client","roles_client":"nope"`, "no client of the configured name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mustLoad(t, s.Issuer(), test.asker, test.config).Resolve(t.Context(), s.query("acme", s.alice))
			checkError(t, err, test.want)
		})
	}
	t.Run("organizations of a realm that has none", func(t *testing.T) {
		realm, err := servers.Keycloak(t).CreateRealm(t.Context(), "no organizations", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = realm.Delete(context.Background()) })
		other := &site{KeycloakRealm: realm}
		asker := other.asker(t, "view-users", "view-organizations")
		checkError(t, mustLoad(t, realm.Issuer(), asker, "").Check(t.Context()), "switch Organizations on")
	})
}

func (s *site) changes(t *testing.T, asker string) {
	ctx := t.Context()
	user, err := s.CreateUser(ctx, servers.KeycloakUser{Username: "carol"})
	if err != nil {
		t.Fatal(err)
	}
	organization, err := s.CreateOrganization(ctx, servers.KeycloakOrganization{Alias: "changing", Members: []string{user}})
	if err != nil {
		t.Fatal(err)
	}
	r := mustLoad(t, s.Issuer(), asker, "")
	if m, err := r.Resolve(ctx, s.query("changing", user)); err != nil || !m.Active {
		t.Fatalf("got %+v, %v", m, err)
	}
	if err := s.Call(ctx, http.MethodDelete, "/organizations/"+organization+"/members/"+user, nil, nil); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Resolve(ctx, s.query("changing", user)); !errors.Is(err, member.ErrUnknown) {
		t.Errorf("after leaving: %+v, %v", m, err)
	}
}

func (s *site) renewal(t *testing.T, asker string) {
	r := mustLoad(t, s.Issuer(), asker, `"members":"groups"`)
	if _, err := r.Resolve(t.Context(), s.query("acme", s.alice)); err != nil {
		t.Fatal(err)
	}
	r.realm.tokens.mu.Lock()
	good := r.realm.tokens.known.text
	r.realm.tokens.known.text += "x"
	r.realm.tokens.mu.Unlock()
	if _, err := r.Resolve(t.Context(), s.query("acme", s.alice)); err != nil {
		t.Fatal(err)
	}
	if known := r.realm.tokens.known; known.text == good || strings.HasSuffix(known.text, "x") {
		t.Error("the token was not renewed")
	}
}
