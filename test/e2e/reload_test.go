package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// A reload fails no request, keeps warm what it need not throw away, and
// leaves nothing behind: after 200 of them, some with other settings, Caddy
// has as many goroutines and connections as before.
func TestReloadsLeakNothingAndFailNobody(t *testing.T) {
	const reloads = 200
	w := newWorld(t)
	s := w.newCaddy(t)
	alice, bob := w.token(t, "alice"), w.token(t, "bob")
	requests := [][]change{
		{bearer(alice), tenant("acme")},
		{bearer(bob), tenant("globex")},
		{bearer(alice), tenant("acme")},
		{bearer(bob), tenant("globex")},
	}
	warmUp := func() {
		t.Helper()
		tr := startTraffic(t, s, requests...)
		tr.during(t, "warming up", 200)
		tr.finish(t)
		s.client.CloseIdleConnections()
	}
	load := func(i int) {
		t.Helper()
		o := ordinary()
		o.version = i
		switch i % 10 {
		case 3:
			o.keyPrefix = "kca" + strconv.Itoa(i) // another store, with a client of its own
		case 7:
			o.memory = 17 + i%5 // another cache in memory
		}
		if i%2 == 0 {
			s.LoadCaddyfile(t, w.caddyfile(s, o))
		} else {
			s.LoadJSON(t, w.json(t, s, o))
		}
	}
	for i := range 5 {
		load(-10 - 10*i) // with the ordinary settings
	}
	warmUp()
	before := w.usage(t, s)

	tr := startTraffic(t, s, requests...)
	peak := usage{}
	for i := 1; i <= reloads; i++ {
		load(i)
		tr.during(t, "reload "+strconv.Itoa(i), 4)
		if i%20 == 0 {
			peak = peak.max(w.usage(t, s))
			a := s.get(t, "/page", requests[0]...)
			if a.status != http.StatusOK || a.cache() != "memory" || a.header.Get("X-Config-Version") != strconv.Itoa(i) {
				t.Errorf("after reload %d with unchanged settings a known member gets %v", i, a)
			}
		}
	}
	tr.finish(t)
	warmUp()

	// Slack is for pools, which hold what the busiest moment needed. A leak with
	// each of the reloads, or with each of the 40 that changed settings, exceeds it.
	limit := usage{goroutines: before.goroutines + 25, redis: before.redis + 10, postgres: before.postgres + 5}
	var after usage
	eventually(t, time.Minute, func() error {
		after = w.usage(t, s)
		if after != after.min(limit) {
			return fmt.Errorf("%d reloads leave %v, before them %v", reloads, after, before)
		}
		return nil
	})
	t.Logf("before %v, at most %v, after %d reloads %v", before, peak, reloads, after)
}

// usage is what a Caddy holds.
type usage struct {
	goroutines int
	redis      int // connections
	postgres   int // connections
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d connections to Redis, %d to PostgreSQL", u.goroutines, u.redis, u.postgres)
}

func (u usage) max(v usage) usage {
	return usage{max(u.goroutines, v.goroutines), max(u.redis, v.redis), max(u.postgres, v.postgres)}
}

func (u usage) min(v usage) usage {
	return usage{min(u.goroutines, v.goroutines), min(u.redis, v.redis), min(u.postgres, v.postgres)}
}

func (w *world) usage(t *testing.T, s *site) usage {
	t.Helper()
	clients := strings.Split(strings.TrimSpace(w.redis.Command(t, "CLIENT", "LIST")), "\n")
	n, err := strconv.Atoi(servers.PSQL(t, w.postgres.DSN, "select count(*) from pg_stat_activity where usename = 'members_reader'"))
	if err != nil {
		t.Fatal(err)
	}
	return usage{goroutines: s.Goroutines(t), redis: len(clients) - 1, postgres: n} // one client is this question's own
}
