package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

const (
	audience = "shop"
	password = "correct horse"
)

// frontend is the client that the users log in to.
var frontend = servers.KeycloakClient{ID: "frontend", Audiences: []string{audience}}

// world is everything around Caddy, with these people in the first realm:
// alice is an editor and viewer of acme, bob a member of globex, carol was one
// of acme once, dave is nobody's.
type world struct {
	keycloak *servers.KeycloakServer
	realm    *servers.KeycloakRealm // the one Caddy trusts
	other    *servers.KeycloakRealm // mallory's
	postgres *servers.PostgresServer
	redis    *servers.RedisServer
	upstream string // URL of the application
	ids      map[string]string
	secret   string // the password of Redis
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ids: make(map[string]string), secret: rand.Text()}
	w.keycloak = servers.Keycloak(t)
	w.postgres = servers.StartPostgres(t)
	w.redis = servers.Redis(t, servers.RedisPassword(w.secret))
	w.upstream = newUpstream(t).URL
	w.realm = w.newRealm(t, "alice", "bob", "carol", "dave")
	w.other = w.newRealm(t, "mallory")
	servers.PSQL(t, w.postgres.DSN, `
		create table members (
			kc_id text not null, tenant text not null, active boolean, id bigint generated always as identity,
			roles text[], plan text, primary key (tenant, kc_id));
		create role members_reader login password '`+w.secret+`';
		grant select on members to members_reader`)
	w.addMember(t, w.ids["alice"], "acme", true)
	w.addMember(t, w.ids["bob"], "globex", true)
	w.addMember(t, w.ids["carol"], "acme", false)
	// were the issuer not looked at, mallory would get in
	w.addMember(t, w.ids["mallory"], "acme", true)
	return w
}

func (w *world) newRealm(t *testing.T, users ...string) *servers.KeycloakRealm {
	t.Helper()
	ctx := t.Context()
	realm, err := w.keycloak.CreateRealm(ctx, "e2e-"+strings.ToLower(rand.Text()), map[string]any{"accessTokenLifespan": 3600})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// the test's own context has ended by now
		if err := realm.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := realm.CreateClient(ctx, frontend); err != nil {
		t.Fatal(err)
	}
	for _, user := range users {
		w.ids[user], err = realm.CreateUser(ctx, servers.KeycloakUser{Username: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
	}
	return realm
}

func (w *world) addMember(t *testing.T, id, tenant string, active bool) {
	t.Helper()
	servers.PSQL(t, w.postgres.DSN, fmt.Sprintf(
		"insert into members (kc_id, tenant, active, roles, plan) values ('%s', '%s', %t, '{editor,viewer}', 'gold')", id, tenant, active))
}

// token logs a user of the trusted realm in, as the user's browser would, and
// returns the access token.
func (w *world) token(t *testing.T, user string) string {
	t.Helper()
	return tokenOf(t, w.realm, frontend, user)
}

func tokenOf(t *testing.T, realm *servers.KeycloakRealm, client servers.KeycloakClient, user string) string {
	t.Helper()
	tokens, err := realm.PasswordTokens(t.Context(), client, user, password)
	if err != nil {
		t.Fatal(err)
	}
	return tokens.AccessToken
}

// site is one Caddy in front of the application.
type site struct {
	*servers.CaddyServer
	client *http.Client
}

// newCaddy starts a Caddy without configuration.
func (w *world) newCaddy(t *testing.T) *site {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &site{
		CaddyServer: servers.StartCaddy(t, path, "MEMBERS_DSN="+w.readerDSN(), "REDIS_PASSWORD="+w.secret),
		client:      &http.Client{Transport: transport, Timeout: 20 * time.Second},
	}
}

// readerDSN is the database for somebody who may only read the members.
func (w *world) readerDSN() string {
	_, host, _ := strings.Cut(w.postgres.DSN, "@")
	return "postgres://members_reader:" + w.secret + "@" + host
}

// get sends a request for a page of the application.
func (s *site) get(t *testing.T, path string, changes ...change) answer {
	t.Helper()
	a, err := send(s.client, s.URL()+path, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// eventually waits until a condition holds, and fails the test with what the
// condition says if it does not in time.
func eventually(t *testing.T, limit time.Duration, condition func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", limit, err)
		}
		<-tick.C
	}
}
