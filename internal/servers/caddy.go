package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const caddyStartTimeout = 30 * time.Second

// CaddyServer is a running Caddy whose configuration the test loads through
// its admin API.
type CaddyServer struct {
	Addr        string // host:port, free for a site to listen on
	AdminListen string // what `admin` must say in every configuration that is loaded

	admin *http.Client
	proc  *process
}

// StartCaddy starts a Caddy binary with nothing but its admin API, on a Unix
// socket. The variables are added to its environment as "NAME=value". When the
// test ends it is stopped in its orderly way, and the test fails if its log
// tells of a panic or a data race.
func StartCaddy(tb testing.TB, binary string, variables ...string) *CaddyServer {
	tb.Helper()
	server, err := newCaddy(binary, variables)
	if err != nil {
		tb.Fatalf("starting caddy: %v", err)
	}
	tb.Cleanup(func() {
		server.proc.stop(syscall.SIGTERM)
		log := server.Log(tb)
		server.proc.close()
		for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "panic serving"} {
			if at := strings.Index(log, sign); at >= 0 {
				tb.Errorf("caddy's log tells of a fault:\n%s", log[at:min(len(log), at+4096)])
			}
		}
	})
	return server
}

func newCaddy(binary string, variables []string) (*CaddyServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir("caddy", false)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "admin.sock")
	s := &CaddyServer{
		Addr:        hostPort(port),
		AdminListen: "unix/" + socket,
		admin: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var dialer net.Dialer
				return dialer.DialContext(ctx, "unix", socket)
			},
			// each reload is a new admin server, and cuts the connections of the one before
			DisableKeepAlives: true,
		}},
	}
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte("{\n\tadmin "+s.AdminListen+"\n}\n"), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	env := append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	s.proc = &process{
		name: "caddy", dir: dir, path: binary, env: append(env, variables...), quit: syscall.SIGKILL,
		args: []string{"run", "--config", config, "--adapter", "caddyfile"},
		ready: func(ctx context.Context) error {
			_, err := s.Admin(ctx, http.MethodGet, "/config/", "", "")
			return err
		},
	}
	if err := s.proc.start(caddyStartTimeout); err != nil {
		s.proc.close()
		return nil, err
	}
	return s, nil
}

// URL is where a site that listens on Addr is reached.
func (s *CaddyServer) URL() string { return "http://" + s.Addr }

// PID is the server's process id, 0 while it does not run.
func (s *CaddyServer) PID() int { return s.proc.pid() }

// Admin sends one request to the admin API. An answer of 400 and above is an
// error that holds its body.
func (s *CaddyServer) Admin(ctx context.Context, method, path, contentType, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	// without it a configuration equal to the running one is not loaded
	req.Header.Set("Cache-Control", "must-revalidate")
	resp, err := s.admin.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return "", fmt.Errorf("caddy: %s %s: status %d: %s", method, path, resp.StatusCode, answer)
	}
	return string(answer), nil
}

// LoadCaddyfile makes Caddy use a configuration, even if it has it already.
func (s *CaddyServer) LoadCaddyfile(tb testing.TB, config string) {
	tb.Helper()
	s.load(tb, "text/caddyfile", config)
}

// LoadJSON is LoadCaddyfile for Caddy's own form.
func (s *CaddyServer) LoadJSON(tb testing.TB, config string) {
	tb.Helper()
	s.load(tb, "application/json", config)
}

func (s *CaddyServer) load(tb testing.TB, contentType, config string) {
	tb.Helper()
	answer, err := s.Admin(tb.Context(), http.MethodPost, "/load", contentType, config)
	if err != nil {
		tb.Fatal(err)
	}
	// With warnings, such as that of a Caddyfile that is not formatted, Caddy has
	// answered 200 before it finds out that the configuration is no good.
	if strings.Contains(answer, `{"error":`) {
		tb.Fatalf("caddy: loading the configuration: %s", answer)
	}
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

// Goroutines is how many goroutines the server has.
func (s *CaddyServer) Goroutines(tb testing.TB) int {
	tb.Helper()
	profile, err := s.Admin(tb.Context(), http.MethodGet, "/debug/pprof/goroutine?debug=1", "", "")
	if err != nil {
		tb.Fatal(err)
	}
	match := goroutineTotal.FindStringSubmatch(profile)
	if match == nil {
		tb.Fatalf("caddy: a goroutine profile without a total: %.200q", profile)
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// Metrics is what a Prometheus would scrape.
func (s *CaddyServer) Metrics(tb testing.TB) string {
	tb.Helper()
	metrics, err := s.Admin(tb.Context(), http.MethodGet, "/metrics", "", "")
	if err != nil {
		tb.Fatal(err)
	}
	return metrics
}

// Log is all that the server has logged so far.
func (s *CaddyServer) Log(tb testing.TB) string {
	tb.Helper()
	data, err := os.ReadFile(s.proc.logPath())
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}
