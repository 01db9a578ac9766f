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
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binary is where the tests' own build of Caddy goes; it is made when first
// asked for, so that a run that skips everything builds nothing.
var binary struct {
	dir   string
	build func() (string, error)
}

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
	binary.dir = dir
	binary.build = sync.OnceValues(buildCaddy)
	return m.Run()
}

func buildCaddy() (string, error) {
	if path := os.Getenv("KCA_CADDY"); path != "" {
		return path, nil
	}
	path := filepath.Join(binary.dir, "caddy")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/cmd/caddy")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building caddy: %w\n%s", err, out)
	}
	return path, nil
}
