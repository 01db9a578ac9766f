package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// versionHeader shows the application which version of a member it got.
const versionHeader = "header X-User-ID {http.auth.user.id}\nheader X-Version {http.auth.user.member.plan}"

// database connects to the members, to write them.
func (w *world) database(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.postgres.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (w *world) setVersion(t *testing.T, conn *pgx.Conn, user string, version int) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "update members set plan = $1 where kc_id = $2", strconv.Itoa(version), w.ids[user]); err != nil {
		t.Fatal(err)
	}
}

// versionAt returns which version of alice a node shows.
func versionAt(t *testing.T, s *site, token string) int {
	t.Helper()
	a := s.get(t, "/page", bearer(token), tenant("acme"))
	version, err := strconv.Atoi(a.seen.Header.Get("X-Version"))
	if a.status != http.StatusOK || err != nil {
		t.Fatalf("alice gets %v (%v)", a, err)
	}
	return version
}

// Three nodes share one Redis. After a flush, the node that was called never
// shows what was there before, and the others follow.
func TestFlushesReachEveryNode(t *testing.T) {
	w := newWorld(t)
	conn := w.database(t)
	w.setVersion(t, conn, "alice", 0)
	token := w.token(t, "alice")
	nodes := []*site{w.newCaddy(t), w.newCaddy(t), w.newCaddy(t)}
	for _, s := range nodes {
		s.LoadCaddyfile(t, w.variant(s, "", versionHeader))
		versionAt(t, s, token)
	}
	flushes := 1000
	if testing.Short() {
		flushes = 100
	}
	scopes := []string{`{"tenant":"acme"}`, `{"kc_id":"` + w.ids["alice"] + `"}`, `{"tenant":"acme","kc_id":"` + w.ids["alice"] + `"}`, `{"all":true}`}
	var delays []time.Duration
	for version := 1; version <= flushes; version++ {
		w.setVersion(t, conn, "alice", version)
		called := nodes[version%len(nodes)]
		answer, err := called.Admin(t.Context(), http.MethodPost, "/keycloak_cache_auth/flush", "application/json", scopes[version%len(scopes)])
		if err != nil || !strings.Contains(answer, `"shared":"done"`) {
			t.Fatalf("flush %d: %s (%v)", version, answer, err)
		}
		returned := time.Now()
		if got := versionAt(t, called, token); got != version {
			t.Fatalf("IV-004 after flush %d the node that was called shows version %d", version, got)
		}
		for _, s := range nodes {
			for versionAt(t, s, token) != version {
				if time.Since(returned) > 10*time.Second {
					t.Fatalf("after flush %d another node does not follow", version)
				}
			}
			if s != called {
				delays = append(delays, time.Since(returned))
			}
		}
	}
	slices.Sort(delays)
	at := func(share float64) time.Duration { return delays[int(math.Ceil(share*float64(len(delays))))-1] }
	t.Logf("until another node showed the new version, %d flushes: p50 %s, p90 %s, p99 %s, at most %s",
		flushes, at(.5), at(.9), at(.99), at(1))
}

// The command does what the API does.
func TestFlushByTheCommand(t *testing.T) {
	w := newWorld(t)
	conn := w.database(t)
	w.setVersion(t, conn, "alice", 1)
	token := w.token(t, "alice")
	s := w.newCaddy(t)
	s.LoadCaddyfile(t, w.variant(s, "", versionHeader))
	versionAt(t, s, token)
	w.setVersion(t, conn, "alice", 2)
	if got := versionAt(t, s, token); got != 1 {
		t.Fatalf("version %d is cached", got)
	}
	run := func(args ...string) string {
		t.Helper()
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		args = append(append([]string{"keycloak-cache-auth"}, args...), "--address", s.AdminListen)
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	if out := run("show", "acme", w.ids["alice"], "--attributes"); !strings.Contains(out, `"level": "memory"`) || !strings.Contains(out, `"level": "redis"`) || !strings.Contains(out, `"plan"`) {
		t.Errorf("show says %s", out)
	}
	if out := run("stats"); !strings.Contains(out, `"redis": "up"`) || strings.Contains(out, w.secret) {
		t.Errorf("stats says %s", out)
	}
	t.Run("AD-001 the API is not on the site", func(t *testing.T) {
		resp, err := s.client.Post(s.URL()+"/keycloak_cache_auth/flush", "application/json", strings.NewReader(`{"all":true}`))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d, as for any request without a token", resp.StatusCode)
		}
	})
	t.Run("AD-008 the configuration shows no secret", func(t *testing.T) {
		config, err := s.Admin(t.Context(), http.MethodGet, "/config/", "", "")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(config, w.secret) || !strings.Contains(config, "{env.REDIS_PASSWORD}") {
			t.Error("a placeholder was expanded in what the admin API shows")
		}
	})
	if out := run("flush", "--tenant", "acme", "--kc-id", w.ids["alice"]); !strings.Contains(out, `"shared": "done"`) {
		t.Errorf("flush says %s", out)
	}
	if got := versionAt(t, s, token); got != 2 {
		t.Errorf("after the flush version %d is shown", got)
	}
}

// PostgreSQL tells of a change by itself, and what was changed while nobody
// listened is found out when somebody does again.
func TestDatabaseTellsOfChanges(t *testing.T) {
	w := newWorld(t)
	conn := w.database(t)
	triggers, err := os.ReadFile("../../deploy/postgres/notify.sql")
	if err != nil {
		t.Fatal(err)
	}
	servers.PSQL(t, w.postgres.DSN, string(triggers))
	w.setVersion(t, conn, "alice", 0)
	token := w.token(t, "alice")
	nodes := []*site{w.newCaddy(t), w.newCaddy(t)}
	for _, s := range nodes {
		config := w.variant(s, "", versionHeader)
		s.LoadCaddyfile(t, strings.Replace(config, "driver postgres", "driver postgres\n\t\t\tinvalidate_on_notify members_changed", 1))
		eventually(t, 10*time.Second, func() error { return listening(t, conn) })
		versionAt(t, s, token)
	}
	follow := func(version int) time.Duration {
		t.Helper()
		start := time.Now()
		for _, s := range nodes {
			eventually(t, 10*time.Second, func() error {
				if got := versionAt(t, s, token); got != version {
					return fmt.Errorf("version %d is shown, not %d", got, version)
				}
				return nil
			})
		}
		return time.Since(start)
	}
	for version := 1; version <= 20; version++ {
		w.setVersion(t, conn, "alice", version)
		took := follow(version)
		if version == 20 {
			t.Logf("from COMMIT to both nodes showing it (polled every 50 ms): %s", took)
		}
	}
	t.Run("IV-008 a listener that was cut off", func(t *testing.T) {
		_, err := conn.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'")
		if err != nil {
			t.Fatal(err)
		}
		w.setVersion(t, conn, "alice", 100)
		t.Logf("with the listeners cut off: %s", follow(100))
	})
	t.Run("IV-009 a hundred thousand members at once", func(t *testing.T) {
		if _, err := conn.Exec(t.Context(), "insert into members (kc_id, tenant, active) select 'user-' || i, 'acme', true from generate_series(1, 100000) i"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "update members set plan = '101' where tenant = 'acme'"); err != nil {
			t.Fatal(err)
		}
		t.Logf("after an update of 100,000 members: %s", follow(101))
	})
}

// listening tells whether at least one connection listens.
func listening(t *testing.T, conn *pgx.Conn) error {
	t.Helper()
	var count int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_stat_activity where query ilike 'listen%'").Scan(&count); err != nil {
		t.Fatal(err)
	}
	if count == 0 {
		return fmt.Errorf("nobody listens yet")
	}
	return nil
}

// Maintenance: with the database stopped, known members go on working beyond
// their ttl, also on a node that has just started.
func TestMaintenanceMode(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "alice")
	maintained := func(s *site) string {
		return strings.Replace(w.variant(s, "", "stale_if_error 1h"), "ttl 1h", "ttl 1s", 1)
	}
	s := w.newCaddy(t)
	s.LoadCaddyfile(t, maintained(s))
	if a := s.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
		t.Fatalf("before: %v", a)
	}
	w.postgres.Stop()
	stale := time.Now().Add(3 * time.Second)
	fresh := w.newCaddy(t)
	fresh.LoadCaddyfile(t, maintained(fresh))
	for name, node := range map[string]*site{"the node that knew her": s, "a node that has just started": fresh} {
		for time.Now().Before(stale) {
			if a := node.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
				t.Fatalf("on %s alice gets %v", name, a)
			}
		}
		if a := node.get(t, "/page", bearer(token), tenant("acme")); a.status != http.StatusOK {
			t.Errorf("on %s alice, whose ttl has passed, gets %v", name, a)
		}
		if a := node.get(t, "/page", bearer(w.token(t, "bob")), tenant("globex")); a.status != http.StatusServiceUnavailable {
			t.Errorf("on %s somebody who is in no cache gets %v", name, a)
		}
	}
	w.postgres.Start(t)
	eventually(t, 10*time.Second, func() error {
		if a := s.get(t, "/page", bearer(w.token(t, "bob")), tenant("globex")); a.status != http.StatusOK {
			return fmt.Errorf("with the database back: %v", a)
		}
		return nil
	})
}
