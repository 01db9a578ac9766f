package wire_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binary is where the tests' own build of Caddy goes; it is made when first
// asked for.
var binary struct {
	dir   string
	build func() (string, error)
}

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
	binary.dir = dir
	binary.build = sync.OnceValues(buildCaddy)
	return m.Run()
}

func buildCaddy() (string, error) {
	if path := os.Getenv("KCA_CADDY"); path != "" {
		return path, nil
	}
	path := filepath.Join(binary.dir, "caddy")
	build := exec.Command("go", "build", "-o", path, "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/cmd/caddy")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, output)
	}
	return path, nil
}
