package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// CaddyBinary returns the path of a Caddy with the module: the one that KCA_CADDY names,
// or one that it builds in dir, with the race detector if the caller's tests have it.
func CaddyBinary(dir string, race bool) (string, error) {
	if path := os.Getenv("KCA_CADDY"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "caddy")
	args := []string{"build", "-o", path}
	if race {
		args = append(args, "-race")
	}
	args = append(args, "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/cmd/caddy")
	if output, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building caddy: %w\n%s", err, output)
	}
	return path, nil
}
