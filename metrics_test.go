package keycloakcacheauth

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// toldWatch is a source that says how its watch is doing.
type toldWatch struct {
	watcher
	identity string
	state    member.WatchState
}

func (w *toldWatch) WatchIdentity() string         { return w.identity }
func (w *toldWatch) WatchState() member.WatchState { return w.state }

// silentWatch is one that cannot say.
type silentWatch struct{ watcher }

func (silentWatch) WatchIdentity() string { return "silent" }

func TestWatchMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var handlers []*metrics
	for range 2 {
		m, err := newMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		handlers = append(handlers, m)
	}
	first := &toldWatch{identity: "a", state: member.WatchState{Connected: true, Changes: 5, Unreadable: 2, Failures: 1}}
	lost := &toldWatch{identity: "b", state: member.WatchState{Failures: 3, Changes: 1}}
	handlers[0].watches.add(first)
	handlers[1].watches.add(first) // another handler watches the same
	handlers[1].watches.add(lost)
	handlers[1].watches.add(&toldWatch{identity: ""}) // without the option
	handlers[1].watches.add(silentWatch{})
	want := func(lines string) {
		t.Helper()
		if err := testutil.GatherAndCompare(reg, strings.NewReader(lines), "caddy_keycloak_cache_auth_watches",
			"caddy_keycloak_cache_auth_watch_failures_total", "caddy_keycloak_cache_auth_watch_changes_total"); err != nil {
			t.Error(err)
		}
	}
	const head = `
		# HELP caddy_keycloak_cache_auth_watches Sources whose changes are watched, by whether they are heard of now.
		# TYPE caddy_keycloak_cache_auth_watches gauge
		# HELP caddy_keycloak_cache_auth_watch_failures_total Connections for watching that could not be made, or were lost.
		# TYPE caddy_keycloak_cache_auth_watch_failures_total counter
		# HELP caddy_keycloak_cache_auth_watch_changes_total Changes that sources have told of, by whether they were understood.
		# TYPE caddy_keycloak_cache_auth_watch_changes_total counter
	`
	want(head + `caddy_keycloak_cache_auth_watches{state="connected"} 1
		caddy_keycloak_cache_auth_watches{state="lost"} 1
		caddy_keycloak_cache_auth_watch_failures_total 4
		caddy_keycloak_cache_auth_watch_changes_total{result="read"} 4
		caddy_keycloak_cache_auth_watch_changes_total{result="unreadable"} 2
	`)
	lost.state.Connected = true
	want(head + `caddy_keycloak_cache_auth_watches{state="connected"} 2
		caddy_keycloak_cache_auth_watches{state="lost"} 0
		caddy_keycloak_cache_auth_watch_failures_total 4
		caddy_keycloak_cache_auth_watch_changes_total{result="read"} 4
		caddy_keycloak_cache_auth_watch_changes_total{result="unreadable"} 2
	`)
}
