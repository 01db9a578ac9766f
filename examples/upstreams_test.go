package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/assertion"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

const (
	site     = "https://shop.example.com"
	audience = "shop"
)

// djangoServer serves the project, with another middleware if KCA_MIDDLEWARE says so.
const djangoServer = `
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.conf import settings
if "KCA_MIDDLEWARE" in os.environ:
    settings.MIDDLEWARE[-1] = os.environ["KCA_MIDDLEWARE"]
from django.core.wsgi import get_wsgi_application
from wsgiref.simple_server import WSGIRequestHandler, make_server
WSGIRequestHandler.log_message = lambda *_: None
server = make_server("127.0.0.1", 0, get_wsgi_application())
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
`

// upstreamCommands start the examples.
var upstreamCommands = map[string]func(t *testing.T) *exec.Cmd{
	"Django": func(t *testing.T) *exec.Cmd {
		t.Helper()
		return in("django", exec.CommandContext(t.Context(), python(t), "-c", djangoServer))
	},
	"Express": func(t *testing.T) *exec.Cmd {
		t.Helper()
		return in(express(t), exec.CommandContext(t.Context(), "node", "app.js"))
	},
	"Go": func(t *testing.T) *exec.Cmd {
		t.Helper()
		binary := filepath.Join(t.TempDir(), "upstream")
		run(t, in("go", exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/upstream")))
		return exec.CommandContext(t.Context(), binary)
	},
}

// TestUpstreamsTakeWhatCaddySigns gives each of the examples what the module would.
func TestUpstreamsTakeWhatCaddySigns(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := []*assertion.Key{keyOf(t, ed), keyOf(t, ec)}
	first := newSigner(t, keys[0], keys[1])
	second := newSigner(t, keys[1], keys[0]) // after the keys were changed
	caddy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", assertion.JWKSMediaType)
		_, _ = w.Write(first.KeySet()) // the client may be gone
	}))
	t.Cleanup(caddy.Close)
	claims := assertion.Claims{
		Subject: "8d0c", Tenant: "acme", MemberID: "4711", Roles: []string{"editor", "<ü\u2028>"},
		TokenEnd: time.Now().Add(time.Hour), MemberEnd: time.Now().Add(time.Hour),
	}
	over := claims
	over.Subject, over.TokenEnd = "9e1d", time.Now().Add(-time.Minute)

	for name, command := range upstreamCommands {
		t.Run(name, func(t *testing.T) {
			address := startUpstream(t, command(t), caddy.URL)
			for name, test := range map[string]struct {
				text   string
				status int
			}{
				"signed with EdDSA": {sign(t, first, claims), http.StatusOK},
				"signed with ES256": {sign(t, second, claims), http.StatusOK},
				"over":              {sign(t, first, over), http.StatusUnauthorized},
				"signed by another": {sign(t, newSigner(t, keyOf(t, stranger(t))), claims), http.StatusUnauthorized},
			} {
				status, body := get(t, address+"/whoami", test.text)
				if status != test.status {
					t.Errorf("%s: status %d, want %d: %s", name, status, test.status, body)
				}
				if status == http.StatusOK && (!bytes.Contains(body, []byte("4711")) || !bytes.Contains(body, []byte("acme"))) {
					t.Errorf("%s: %s", name, body)
				}
			}
		})
	}
}

// TestOwnTests runs the examples' tests with their own runners.
func TestOwnTests(t *testing.T) {
	t.Run("python-cache", func(t *testing.T) {
		run(t, in("python-cache", exec.CommandContext(t.Context(), python(t), "-m", "unittest")))
	})
	t.Run("django", func(t *testing.T) {
		cmd := in("django", exec.CommandContext(t.Context(), python(t), "manage.py", "test"))
		cmd.Env = append(os.Environ(), postgresVariables(t, servers.Postgres(t))...)
		run(t, cmd)
	})
	t.Run("express", func(t *testing.T) {
		run(t, in(express(t), exec.CommandContext(t.Context(), "node", "--test")))
	})
	t.Run("go", func(t *testing.T) {
		run(t, in("go", exec.CommandContext(t.Context(), "go", "test", "./...")))
	})
	t.Run("resolver", func(t *testing.T) {
		run(t, in("resolver", exec.CommandContext(t.Context(), "go", "test", "./...")))
	})
}

// postgresVariables tell libpq, and so Django, where a database is.
func postgresVariables(t *testing.T, dsn string) []string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return []string{
		"PGHOST=" + u.Hostname(), "PGPORT=" + u.Port(), "PGUSER=" + u.User.Username(), "PGPASSWORD=" + password,
		"PGDATABASE=" + u.Path[1:],
	}
}

func in(dir string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = dir
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// express returns a copy of the example with its packages.
func express(t *testing.T) string {
	t.Helper()
	dir, err := nodeEnvironment()
	if err != nil {
		missing(t)("SKIPPED: %v", err)
	}
	return dir
}

func newNodeEnvironment() (string, error) {
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			return "", fmt.Errorf("%s is not installed: Node.js 20.11 or later is needed", name)
		}
	}
	dir, err := makeDir()
	if err != nil {
		return "", err
	}
	for _, name := range []string{"package.json", "package-lock.json", "app.js", "assertion.js", "assertion.test.js"} {
		text, err := os.ReadFile(filepath.Join("express", name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return "", err
		}
	}
	install := exec.CommandContext(context.Background(), "npm", "ci", "--no-audit", "--no-fund") // no single test's
	if out, err := in(dir, install).CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm cannot install the packages: %w\n%s", err, out)
	}
	return dir, nil
}

// startUpstream starts an example that believes whoever has the keys at a URL, with
// these variables in its environment besides. It returns the address that the command
// prints when it listens.
func startUpstream(t *testing.T, cmd *exec.Cmd, keysURL string, variables ...string) string {
	t.Helper()
	cmd.Env = append(append(os.Environ(), "ASSERTION_ISSUER="+site, "ASSERTION_AUDIENCE="+audience,
		"ASSERTION_JWKS_URL="+keysURL, "PORT=0"), variables...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("%v: it ended at once", cmd.Args)
	}
	return lines.Text()
}

// get sends a request with an assertion.
func get(t *testing.T, address, text string) (int, []byte) {
	t.Helper()
	status, _, body := send(t, address, http.Header{"X-User-Assertion": {text}})
	return status, body
}

func send(t *testing.T, address string, fields http.Header) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = fields
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

func newSigner(t *testing.T, keys ...*assertion.Key) *assertion.Signer {
	t.Helper()
	s, err := assertion.New(assertion.Config{Keys: keys, Issuer: site, Audience: []string{audience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func sign(t *testing.T, s *assertion.Signer, c assertion.Claims) string {
	t.Helper()
	text, _, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func stranger(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyOf(t *testing.T, private crypto.Signer) *assertion.Key {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := assertion.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
