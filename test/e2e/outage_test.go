package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// Whoever is known goes on working while a dependency is down; whoever is not
// gets an answer that tells an outage from a refusal; and everything passes
// again soon after the dependency is back, without a reload.
func TestKnownMembersOutliveEveryOutage(t *testing.T) {
	w := newWorld(t)
	s := w.newCaddy(t)
	s.LoadCaddyfile(t, w.caddyfile(s, ordinary()))
	o := &outage{world: w, site: s, alice: w.token(t, "alice")}
	bob := w.token(t, "bob")
	for token, name := range map[string]string{o.alice: "acme", bob: "globex"} {
		if a := s.get(t, "/page", bearer(token), tenant(name)); a.status != http.StatusOK {
			t.Fatalf("before any outage: %v", a)
		}
	}
	o.traffic = startTraffic(t, s,
		[]change{bearer(o.alice), tenant("acme")},
		[]change{bearer(bob), tenant("globex")},
	)
	o.traffic.during(t, "all is well", 100)

	t.Run("Redis is killed", o.redisKilled)
	t.Run("Redis is frozen", o.redisFrozen)
	t.Run("PostgreSQL is stopped", o.postgresStopped)
	t.Run("Redis and PostgreSQL are killed", o.bothKilled)
	t.Run("Keycloak is killed", o.keycloakKilled)
	o.traffic.finish(t)
}

type outage struct {
	*world
	site    *site
	alice   string
	traffic *traffic
	tenants int
}

// newcomer makes alice a member of a tenant that no cache knows of.
func (o *outage) newcomer(t *testing.T) []change {
	t.Helper()
	o.tenants++
	name := "tenant" + strconv.Itoa(o.tenants)
	o.addMember(t, o.ids["alice"], name, true)
	return []change{bearer(o.alice), tenant(name)}
}

func (o *outage) redisKilled(t *testing.T) {
	o.redis.Kill()
	o.traffic.during(t, "Redis is dead", 200)
	if a := o.site.get(t, "/page", o.newcomer(t)...); a.status != http.StatusOK || a.cache() != "resolver" {
		t.Errorf("a member in no cache gets %v", a)
	}
	o.redis.Start(t)
	o.wantRedisUsed(t)
}

func (o *outage) redisFrozen(t *testing.T) {
	o.redis.Stop(t)
	o.traffic.during(t, "Redis is frozen", 200)
	for range 3 {
		began := time.Now()
		if a := o.site.get(t, "/page", o.newcomer(t)...); a.status != http.StatusOK || a.cache() != "resolver" {
			t.Errorf("a member in no cache gets %v", a)
		}
		// 50ms is the budget; the rest is room for a busy machine
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	o.redis.Cont(t)
	o.wantRedisUsed(t)
}

// wantRedisUsed waits until members that are resolved get into Redis again.
func (o *outage) wantRedisUsed(t *testing.T) {
	t.Helper()
	before := o.redis.Command(t, "DBSIZE")
	eventually(t, 20*time.Second, func() error {
		if a := o.site.get(t, "/page", o.newcomer(t)...); a.status != http.StatusOK {
			return fmt.Errorf("a newcomer gets %v", a)
		}
		if o.redis.Command(t, "DBSIZE") == before {
			return errors.New("nothing new is in Redis")
		}
		return nil
	})
}

func (o *outage) postgresStopped(t *testing.T) {
	// the frozen Redis may have missed alice's entry at acme: put it there again
	other := o.newCaddy(t)
	other.LoadCaddyfile(t, o.caddyfile(other, ordinary()))
	if a := other.get(t, "/page", bearer(o.alice), tenant("acme")); a.status != http.StatusOK {
		t.Fatalf("on another node: %v", a)
	}
	waiting := o.newcomer(t)
	o.postgres.Stop()
	o.traffic.during(t, "PostgreSQL is stopped", 200)
	wantUnavailable(t, o.site.get(t, "/page", waiting...))

	// a node that has just started knows what is in Redis
	fresh := o.newCaddy(t)
	fresh.LoadCaddyfile(t, o.caddyfile(fresh, ordinary()))
	if a := fresh.get(t, "/page", bearer(o.alice), tenant("acme")); a.status != http.StatusOK || a.cache() != "redis" {
		t.Errorf("on a fresh node a member in Redis gets %v", a)
	}
	if a := fresh.get(t, "/page", bearer("rubbish"), tenant("acme")); a.status != http.StatusUnauthorized {
		t.Errorf("a bad token gets %v", a)
	}
	o.postgres.Start(t)
	o.wantBack(t, o.site, waiting)
}

func (o *outage) bothKilled(t *testing.T) {
	waiting := o.newcomer(t)
	o.redis.Kill()
	o.postgres.Kill()
	o.traffic.during(t, "Redis and PostgreSQL are dead", 200)
	wantUnavailable(t, o.site.get(t, "/page", waiting...))
	o.postgres.Start(t)
	o.redis.Start(t)
	o.wantBack(t, o.site, waiting)
}

func (o *outage) keycloakKilled(t *testing.T) {
	o.keycloak.Kill()
	defer o.keycloak.Start(t) // for the tests after this one, should it fail
	o.traffic.during(t, "Keycloak is dead", 200)
	if a := o.site.get(t, "/page", o.newcomer(t)...); a.status != http.StatusOK {
		t.Errorf("a newcomer with a good token gets %v", a)
	}
	fresh := o.newCaddy(t)
	fresh.LoadCaddyfile(t, o.caddyfile(fresh, ordinary()))
	known := []change{bearer(o.alice), tenant("acme")}
	wantUnavailable(t, fresh.get(t, "/page", known...))
	o.keycloak.Start(t)
	o.wantBack(t, fresh, known)
}

// wantBack waits until a request succeeds that failed during the outage.
func (o *outage) wantBack(t *testing.T, s *site, changes []change) {
	t.Helper()
	began := time.Now()
	eventually(t, 15*time.Second, func() error {
		if a := s.get(t, "/page", changes...); a.status != http.StatusOK {
			return fmt.Errorf("still %v", a)
		}
		return nil
	})
	t.Logf("it passes %s after the dependency's return", time.Since(began).Round(10*time.Millisecond))
}

// wantUnavailable checks that an answer says "later" and not "no".
func wantUnavailable(t *testing.T, a answer) {
	t.Helper()
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != http.StatusServiceUnavailable || err != nil || seconds < 1 {
		t.Errorf("gets %v, want status 503 with Retry-After", a)
	}
	if a.header.Get("WWW-Authenticate") != "" {
		t.Errorf("an outage is no reason to log in again: %v", a)
	}
}

// Tokens signed by a key that Keycloak made a moment ago are good at once, and
// those of the key before stay so; so are tokens of every default algorithm.
func TestNewKeysAreGoodAtOnce(t *testing.T) {
	w := newWorld(t)
	s := w.newCaddy(t)
	s.LoadCaddyfile(t, w.caddyfile(s, ordinary()))
	ctx := t.Context()
	before := w.token(t, "alice")
	if a := s.get(t, "/page", bearer(before), tenant("acme")); a.status != http.StatusOK {
		t.Fatalf("before: %v", a)
	}
	old, _, err := w.realm.RotateKey(ctx, "RS256")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.realm.SetKeyState(ctx, old, false, true); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"the new key": w.token(t, "alice"), "the passive key": before} {
		if a := s.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
			t.Errorf("a token of %s gets %v", name, a)
		}
	}
	for _, algorithm := range []string{"ES256", "PS256", "EdDSA"} {
		client := servers.KeycloakClient{ID: algorithm, Audiences: []string{audience}, SigningAlgorithm: algorithm}
		if _, err := w.realm.AddKey(ctx, algorithm, 100); err != nil {
			t.Fatal(err)
		}
		if err := w.realm.CreateClient(ctx, client); err != nil {
			t.Fatal(err)
		}
		if a := s.get(t, "/page", bearer(tokenOf(t, w.realm, client, "alice")), tenant("acme")); a.status != http.StatusOK {
			t.Errorf("a token signed with %s gets %v", algorithm, a)
		}
	}
}
