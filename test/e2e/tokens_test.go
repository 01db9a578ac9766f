package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// variant is a site whose directive has other lines than the ordinary one.
// Beside `issuer`'s block they may be anything.
func (w *world) variant(s *site, inIssuer, more string) string {
	return strings.NewReplacer(
		"<admin>", s.AdminListen, "<addr>", s.Addr, "<issuer>", w.realm.Issuer(), "<audience>", audience,
		"<redis>", w.redis.Addr, "<query>", membersQuery, "<upstream>", w.upstream,
		"<in issuer>", inIssuer, "<more>", more,
	).Replace(`{
	admin <admin>
}

http://<addr> {
	keycloak_cache_auth {
		issuer <issuer> {
			<in issuer>
		}
		audience <audience>
		ttl 1h
		store redis://:{env.REDIS_PASSWORD}@<redis>/0
		resolver sql {
			driver postgres
			dsn {env.MEMBERS_DSN}
			query "<query>"
		}
		<more>
	}
	reverse_proxy <upstream>
}
`)
}

// A lightweight access token says neither whose it is nor whom it is for; with
// introspection it is as good as any other.
func TestLightweightTokens(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	light := servers.KeycloakClient{ID: "light", Audiences: []string{audience}, Attributes: map[string]string{
		"client.use.lightweight.access.token.enabled": "true",
	}}
	gateway := servers.KeycloakClient{ID: audience, Secret: rand.Text(), ServiceAccount: true}
	for _, client := range []servers.KeycloakClient{light, gateway} {
		if err := w.realm.CreateClient(ctx, client); err != nil {
			t.Fatal(err)
		}
	}
	addIntrospectedAudience(t, w.realm, light.ID)
	without, with := w.newCaddy(t), w.newCaddy(t)
	without.LoadCaddyfile(t, w.variant(without, "", ""))
	with.LoadCaddyfile(t, w.variant(with, "introspect {\n client_id "+gateway.ID+"\n client_secret "+gateway.Secret+"\n}", ""))

	tokens, err := w.realm.PasswordTokens(ctx, light, "alice", password)
	if err != nil {
		t.Fatal(err)
	}
	if a := without.get(t, "/page", bearer(tokens.AccessToken), tenant("acme")); a.status != http.StatusUnauthorized {
		t.Errorf("without introspection alice gets %v", a)
	}
	a := with.get(t, "/page", bearer(tokens.AccessToken), tenant("acme"))
	if a.status != http.StatusOK {
		t.Fatalf("with introspection alice gets %v", a)
	}
	if got := a.seen.Header.Get("X-User-ID"); got != w.ids["alice"] {
		t.Errorf("the application sees user %q, want %q", got, w.ids["alice"])
	}
	if a := with.get(t, "/page", bearer(w.token(t, "alice")), tenant("acme")); a.status != http.StatusOK {
		t.Errorf("with an ordinary token alice gets %v", a)
	}
	for name, token := range map[string]string{"the ID token": tokens.IDToken, "the refresh token": tokens.RefreshToken} {
		if a := with.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusUnauthorized {
			t.Errorf("with %s alice gets %v", name, a)
		}
	}
}

// addIntrospectedAudience lets introspection answers name our audience: mappers
// of lightweight tokens say so apart.
func addIntrospectedAudience(t *testing.T, realm *servers.KeycloakRealm, clientID string) {
	t.Helper()
	id := clientUUID(t, realm, clientID)
	err := realm.Call(t.Context(), http.MethodPost, "/clients/"+id+"/protocol-mappers/models", map[string]any{
		"name": "introspected audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
		"config": map[string]string{
			"included.custom.audience": audience, "access.token.claim": "false", "introspection.token.claim": "true",
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func clientUUID(t *testing.T, realm *servers.KeycloakRealm, clientID string) string {
	t.Helper()
	var found []struct {
		ID string `json:"id"`
	}
	if err := realm.Call(t.Context(), http.MethodGet, "/clients?clientId="+url.QueryEscape(clientID), nil, &found); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 {
		t.Fatalf("%d clients are called %s", len(found), clientID)
	}
	return found[0].ID
}

// A machine is a member like anybody, under the id of its service account.
func TestServiceAccounts(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	machine := servers.KeycloakClient{ID: "machine", Secret: rand.Text(), ServiceAccount: true, Audiences: []string{audience}}
	if err := w.realm.CreateClient(ctx, machine); err != nil {
		t.Fatal(err)
	}
	var account struct {
		ID string `json:"id"`
	}
	at := "/clients/" + clientUUID(t, w.realm, machine.ID) + "/service-account-user"
	if err := w.realm.Call(ctx, http.MethodGet, at, nil, &account); err != nil {
		t.Fatal(err)
	}
	s := w.newCaddy(t)
	s.LoadCaddyfile(t, w.variant(s, "", ""))
	tokens, err := w.realm.Tokens(ctx, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {machine.ID}, "client_secret": {machine.Secret},
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := s.get(t, "/page", bearer(tokens.AccessToken), tenant("globex")); a.status != http.StatusForbidden {
		t.Errorf("a machine that is nobody's member gets %v", a)
	}
	w.addMember(t, account.ID, "acme", true)
	a := s.get(t, "/page", bearer(tokens.AccessToken), tenant("acme"))
	if a.status != http.StatusOK || a.seen.Header.Get("X-User-ID") != account.ID {
		t.Errorf("the machine gets %v, as %q", a, a.seen.Header.Get("X-User-ID"))
	}
}

// The token's own organization claim, as Keycloak writes it, must name the
// tenant.
func TestOrganizationClaim(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := w.realm.Call(ctx, http.MethodPut, "", map[string]any{"realm": w.realm.Name, "organizationsEnabled": true}, nil); err != nil {
		t.Fatal(err)
	}
	for alias, members := range map[string][]string{"acme": {"alice"}, "globex": {"bob"}} {
		organization := map[string]any{
			"name": alias, "alias": alias, "enabled": true,
			"domains": []map[string]any{{"name": alias + ".example", "verified": true}},
		}
		if err := w.realm.Call(ctx, http.MethodPost, "/organizations", organization, nil); err != nil {
			t.Fatal(err)
		}
		var found []struct {
			ID string `json:"id"`
		}
		if err := w.realm.Call(ctx, http.MethodGet, "/organizations?exact=true&search="+alias, nil, &found); err != nil || len(found) != 1 {
			t.Fatalf("%d organizations are called %s (%v)", len(found), alias, err)
		}
		for _, user := range members {
			if err := w.realm.Call(ctx, http.MethodPost, "/organizations/"+found[0].ID+"/members", w.ids[user], nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	// the database believes that alice is a member of globex, too
	w.addMember(t, w.ids["alice"], "globex", true)
	s := w.newCaddy(t)
	s.LoadCaddyfile(t, w.variant(s, "", "tenant_claim organization"))
	for _, scope := range []string{"organization", "organization:acme", "organization:*"} {
		tokens, err := w.realm.PasswordTokens(ctx, frontend, "alice", password, scope)
		if err != nil {
			t.Fatal(err)
		}
		for name, status := range map[string]int{"acme": http.StatusOK, "globex": http.StatusForbidden} {
			if a := s.get(t, "/page", bearer(tokens.AccessToken), tenant(name)); a.status != status {
				t.Errorf("with scope %s alice at %s gets %v, want %d", scope, name, a, status)
			}
		}
	}
	if a := s.get(t, "/page", bearer(w.token(t, "alice")), tenant("acme")); a.status != http.StatusForbidden {
		t.Errorf("with a token that names no organization alice gets %v", a)
	}
}

// A disabled key is published no more: with the next regular fetch, tokens
// that it has signed are refused. Time is the verifier's own here.
func TestDisabledKeysEndTheirTokens(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	now := time.Now()
	keys, err := token.NewKeySet(token.KeySetConfig{Issuer: w.realm.Issuer(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	verifier, err := token.New(token.Config{
		Issuer: w.realm.Issuer(), Keys: keys, Audiences: []string{audience}, Leeway: time.Minute, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	before := w.token(t, "alice")
	verify := func() token.Reason {
		_, err := verifier.Verify(ctx, before)
		if err != nil && token.ReasonOf(err) == "" {
			t.Fatal(err)
		}
		return token.ReasonOf(err)
	}
	if reason := verify(); reason != "" {
		t.Fatalf("before: %s", reason)
	}
	old, _, err := w.realm.RotateKey(ctx, "RS256")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.realm.SetKeyState(ctx, old, false, true); err != nil {
		t.Fatal(err)
	}
	now = now.Add(6 * time.Minute)
	eventually(t, 10*time.Second, func() error { // the fetch is made in the background
		if reason := verify(); reason != "" {
			t.Fatalf("a passive key's token: %s", reason)
		}
		return nil
	})
	if err := w.realm.SetKeyState(ctx, old, false, false); err != nil {
		t.Fatal(err)
	}
	now = now.Add(6 * time.Minute)
	eventually(t, 10*time.Second, func() error {
		if reason := verify(); reason != token.ReasonUnknownKey {
			return fmt.Errorf("a disabled key's token: %q", reason)
		}
		return nil
	})
}

// Keycloak tells the site of each session that ends, and every node with the
// same store refuses its tokens from then on.
func TestBackchannelLogoutByKeycloak(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	one, two := w.newCaddy(t), w.newCaddy(t)
	const path = "/oidc/backchannel-logout"
	for _, s := range []*site{one, two} {
		s.LoadCaddyfile(t, w.variant(s, "", "logout_path "+path+" "+frontend.ID))
	}
	for name, value := range map[string]string{
		"backchannel.logout.url":              one.URL() + path,
		"backchannel.logout.session.required": "true",
	} {
		if err := w.realm.SetClientAttribute(ctx, frontend.ID, name, value); err != nil {
			t.Fatal(err)
		}
	}
	first, err := w.realm.PasswordTokens(ctx, frontend, "alice", password)
	if err != nil {
		t.Fatal(err)
	}
	second := w.token(t, "alice")
	for _, s := range []*site{one, two} {
		for _, token := range []string{first.AccessToken, second} {
			if a := s.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
				t.Fatalf("before the logout alice gets %v", a)
			}
		}
	}

	t.Run("one session, by the browser", func(t *testing.T) {
		logOut(t, w.realm, first.RefreshToken)
		for name, s := range map[string]*site{"the node that was called": one, "another node": two} {
			eventually(t, 5*time.Second, func() error {
				if a := s.get(t, "/page", bearer(first.AccessToken), tenant("acme")); a.status != http.StatusUnauthorized {
					return fmt.Errorf("at %s the session's token still gets %v", name, a)
				}
				return nil
			})
			if a := s.get(t, "/page", bearer(second), tenant("acme")); a.status != http.StatusOK {
				t.Errorf("at %s another session's token gets %v", name, a)
			}
			if a := s.get(t, "/page", bearer(w.token(t, "alice")), tenant("acme")); a.status != http.StatusOK {
				t.Errorf("at %s a new login gets %v", name, a)
			}
		}
	})
	t.Run("all sessions, by an administrator", func(t *testing.T) {
		if err := w.realm.Logout(ctx, w.ids["alice"]); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*site{one, two} {
			eventually(t, 5*time.Second, func() error {
				if a := s.get(t, "/page", bearer(second), tenant("acme")); a.status != http.StatusUnauthorized {
					return fmt.Errorf("the token still gets %v", a)
				}
				return nil
			})
			if a := s.get(t, "/page", bearer(w.token(t, "alice")), tenant("acme")); a.status != http.StatusOK {
				t.Errorf("a new login gets %v", a)
			}
		}
	})
	t.Run("a node that starts later knows", func(t *testing.T) {
		three := w.newCaddy(t)
		three.LoadCaddyfile(t, w.variant(three, "", ""))
		eventually(t, 5*time.Second, func() error {
			if a := three.get(t, "/page", bearer(second), tenant("acme")); a.status != http.StatusUnauthorized {
				return fmt.Errorf("the token still gets %v", a)
			}
			return nil
		})
	})
	t.Run("BL-017 a disabled user is not logged out by Keycloak", func(t *testing.T) {
		token := w.token(t, "alice")
		if a := one.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
			t.Fatalf("before alice gets %v", a)
		}
		var user map[string]any
		if err := w.realm.Call(ctx, http.MethodGet, "/users/"+w.ids["alice"], nil, &user); err != nil {
			t.Fatal(err)
		}
		user["enabled"] = false
		if err := w.realm.Call(ctx, http.MethodPut, "/users/"+w.ids["alice"], user, nil); err != nil {
			t.Fatal(err)
		}
		if a := one.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
			t.Errorf("alice gets %v: docs/configuration.md says that no logout comes", a)
		}
	})
}

// logOut ends a session as a browser's logout does.
func logOut(t *testing.T, realm *servers.KeycloakRealm, refreshToken string) {
	t.Helper()
	form := url.Values{"client_id": {frontend.ID}, "refresh_token": {refreshToken}}
	if err := post(t.Context(), realm.Issuer()+"/protocol/openid-connect/logout", form, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// post sends a form, with header fields, and decodes the answer, if it is to go
// anywhere.
func post(ctx context.Context, address string, form url.Values, fields map[string]string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range fields {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
