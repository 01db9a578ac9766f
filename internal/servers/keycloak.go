package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// KeycloakVersion is the Keycloak that the tests are written for. Its
// distribution is looked for in $KCA_KEYCLOAK_HOME and then in
// ~/.cache/keycloak-cache-auth/keycloak-<version>, where .ci/install-servers
// puts it; that script reads the version from this line.
const KeycloakVersion = "26.7.3"

// keycloakStartTimeout leaves room for a slow machine: a start takes 10 to 20
// seconds on two cores, and as much again the first time from a distribution
// that was never built.
const keycloakStartTimeout = 4 * time.Minute

// KeycloakServer is a running Keycloak, and its administrator. Its realms and
// keys survive Kill and Start.
type KeycloakServer struct {
	*KeycloakAdmin
	proc *process
}

var sharedKeycloak = sync.OnceValues(newKeycloak)

// Keycloak returns the Keycloak that all tests of the test binary share. Tests
// make realms of their own there. Tests that stop the server take
// StartKeycloak. The janitor ends it with the test binary.
func Keycloak(tb testing.TB) *KeycloakServer {
	tb.Helper()
	server, err := sharedKeycloak()
	if err != nil {
		giveUp(tb, err)
	}
	return server
}

// StartKeycloak starts a Keycloak of the test's own. It takes 10 to 20 seconds.
func StartKeycloak(tb testing.TB) *KeycloakServer {
	tb.Helper()
	server, err := newKeycloak()
	if err != nil {
		giveUp(tb, err)
	}
	tb.Cleanup(server.proc.close)
	return server
}

func newKeycloak() (*KeycloakServer, error) {
	dist, err := keycloakHome()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir("keycloak", false)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "home")
	if err := cloneKeycloak(dist, home); err != nil {
		return nil, errors.Join(fmt.Errorf("copying %s: %w", dist, err), os.RemoveAll(dir))
	}
	s := &KeycloakServer{KeycloakAdmin: NewKeycloakAdmin("http://"+hostPort(port), "admin", rand.Text())}
	s.proc = &process{
		name: "keycloak", dir: dir, path: filepath.Join(home, "bin", "kc.sh"), quit: syscall.SIGKILL,
		// `start` and not `start-dev`: the same server, but installed once it need not be built again for each start
		args: []string{
			"start", "--db=dev-file", "--cache=local", "--http-enabled=true", "--hostname-strict=false",
			// else the last half second before a Kill would be lost
			"--db-url-properties=;WRITE_DELAY=0",
			"--http-host=" + loopback, "--http-port=" + strconv.Itoa(port),
		},
		env: keycloakEnv(s.KeycloakAdmin),
		// the password is random: no other server lets this administrator in
		ready: s.login,
	}
	if err := s.proc.start(keycloakStartTimeout); err != nil {
		s.proc.close()
		return nil, err
	}
	return s, nil
}

// keycloakHome finds the unpacked distribution.
func keycloakHome() (string, error) {
	home := os.Getenv("KCA_KEYCLOAK_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		home = filepath.Join(user, ".cache", "keycloak-cache-auth", "keycloak-"+KeycloakVersion)
	}
	if _, err := os.Stat(filepath.Join(home, "bin", "kc.sh")); err != nil {
		return "", fmt.Errorf("keycloak %s is %w in %s: run .ci/install-servers, or unpack its distribution and name it in KCA_KEYCLOAK_HOME",
			KeycloakVersion, errNotInstalled, home)
	}
	if os.Getenv("JAVA_HOME") == "" {
		if _, err := exec.LookPath("java"); err != nil {
			return "", fmt.Errorf("java, which keycloak needs, is %w: apt-get install openjdk-17-jre-headless, or brew install openjdk", errNotInstalled)
		}
	}
	return home, nil
}

// cloneKeycloak makes a home for one server: it writes its data there, and its
// build where the distribution was not built. Only the libraries, which are
// nearly all of its size, are linked.
func cloneKeycloak(dist, home string) error {
	dist, err := filepath.Abs(dist)
	if err != nil {
		return err
	}
	for _, part := range []string{"bin", "conf", "providers", "themes", "lib/app", "lib/quarkus"} {
		if err := os.CopyFS(filepath.Join(home, part), os.DirFS(filepath.Join(dist, part))); err != nil {
			return err
		}
	}
	for _, file := range []string{"version.txt", "lib/quarkus-run.jar"} {
		data, err := os.ReadFile(filepath.Join(dist, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(home, file), data, 0o600); err != nil {
			return err
		}
	}
	return os.Symlink(filepath.Join(dist, "lib", "lib"), filepath.Join(home, "lib", "lib"))
}

// keycloakEnv is the whole environment of the server: settings for another
// Keycloak on this machine must not reach it.
func keycloakEnv(admin *KeycloakAdmin) []string {
	env := []string{
		"KC_BOOTSTRAP_ADMIN_USERNAME=" + admin.username,
		"KC_BOOTSTRAP_ADMIN_PASSWORD=" + admin.password,
		// a small heap, and a compiler that is done sooner rather than better
		"JAVA_OPTS=-Xms64m -Xmx512m -XX:MaxMetaspaceSize=256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 " +
			"-XX:+ExitOnOutOfMemoryError -Dfile.encoding=UTF-8 -Djava.security.egd=file:/dev/urandom",
	}
	for _, variable := range os.Environ() {
		switch name, _, _ := strings.Cut(variable, "="); name {
		case "PATH", "HOME", "JAVA_HOME", "TMPDIR":
			env = append(env, variable)
		}
	}
	return env
}

// PID is the process id of the server's launcher, 0 while it does not run.
func (s *KeycloakServer) PID() int { return s.proc.pid() }

// Kill ends the server at once, as a crash would.
func (s *KeycloakServer) Kill() { s.proc.stop(syscall.SIGKILL) }

// Stop freezes the server: connections stay open and nothing answers.
func (s *KeycloakServer) Stop(tb testing.TB) { tb.Helper(); s.signal(tb, syscall.SIGSTOP) }

// Cont lets a frozen server go on.
func (s *KeycloakServer) Cont(tb testing.TB) { tb.Helper(); s.signal(tb, syscall.SIGCONT) }

func (s *KeycloakServer) signal(tb testing.TB, sig syscall.Signal) {
	tb.Helper()
	if err := s.proc.signal(sig); err != nil {
		tb.Fatalf("keycloak: %v: %v", sig, err)
	}
}

// Start starts a server that was killed, at the same address and with the same
// realms.
func (s *KeycloakServer) Start(tb testing.TB) {
	tb.Helper()
	if err := s.proc.start(keycloakStartTimeout); err != nil {
		tb.Fatal(err)
	}
}

// login gets a token of the administrator, for ready.
func (s *KeycloakServer) login(ctx context.Context) error {
	_, err := s.adminToken(ctx, true)
	return err
}
