package wire_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// binary returns the Caddy to test. The tests' own build of it is made when first
// asked for.
var binary func() (path string, err error)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kca-wire-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = sync.OnceValues(func() (string, error) { return servers.CaddyBinary(dir, false) })
	return m.Run()
}
