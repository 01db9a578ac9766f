// Package e2e runs Caddy with the module as its users do: a real Keycloak
// issues the tokens, a real PostgreSQL knows the members, a real Redis shares
// them.
//
// KCA_CADDY names a Caddy binary built with the module, for example by xcaddy.
// Without it the tests build cmd/caddy, with the race detector if they have it
// themselves. The tests of this package do not run in parallel: they stop the
// servers they share, and measure.
package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// binary returns the Caddy to test. The tests' own build of it is made when first
// asked for, so that a run that skips everything builds nothing.
var binary func() (path string, err error)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kca-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = sync.OnceValues(func() (string, error) { return servers.CaddyBinary(dir, raceEnabled) })
	return m.Run()
}
