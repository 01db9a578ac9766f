package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// site is a running Caddy with a realm and upstreams.
type site struct {
	plain string // HTTP/1.1 and h2c
	open  string // likewise, with Caddy's own filters for aliases off as far as it lets them be
	tls   string // h2 over TLS
	token string // of a member
	user  kctest.User
}

const (
	audience   = "shop"
	tenant     = "t1"
	memberID   = "m-1"
	memberPlan = "gold"
	memberRole = "editor"
)

// caddyfile is filled in by [startSite]. Under each way through the handler
// there is the same set of upstreams. Upstreams of error routes get a header
// that says so.
const caddyfile = `
{
	admin off
	auto_https disable_redirects
	persist_config off
	grace_period 1s
	servers {
		protocols h1 h2 h2c
	}
	servers {OPEN} {
		protocols h1 h2c
		{FILTERS_OFF}
	}
}

(upstreams) {
	@h1 path */h1
	@h2 path */h2
	@fcgi path */fcgi
	reverse_proxy @h1 {UPSTREAM_H1} {
		header_up X-Route {args[0]}
		transport http {
			versions 1.1
		}
	}
	reverse_proxy @h2 {UPSTREAM_H2} {
		header_up X-Route {args[0]}
		transport http {
			versions h2c
		}
	}
	reverse_proxy @fcgi {UPSTREAM_FCGI} {
		header_up X-Route {args[0]}
		transport fastcgi
	}
}

(login) {
	issuer {ISSUER}
	audience {AUDIENCE}
	resolver static {
		member {TENANT} {KC_ID} {
			id {MEMBER_ID}
			roles {ROLE}
			plan {PLAN}
		}
	}
}

(site) {
	handle /bare/* {
		import upstreams normal
	}
	handle /member/* {
		keycloak_cache_auth {
			import login
		}
		import upstreams normal
	}
	handle /custom/* {
		keycloak_cache_auth {
			import login
			header X-Plan {http.auth.user.member.plan}
		}
		import upstreams normal
	}
	handle /optional/* {
		keycloak_cache_auth {
			import login
			optional
		}
		import upstreams normal
	}
	handle /preflight/* {
		keycloak_cache_auth {
			import login
			preflight pass
		}
		import upstreams normal
	}
	handle /strip_only/* {
		keycloak_cache_auth {
			strip_only
		}
		import upstreams normal
	}
	handle /refused/* {
		keycloak_cache_auth {
			import login
		}
		import upstreams normal
	}
	# what stands before the handler here hands on a copy of the request, so
	# that the error route does not get the one that the handler saw
	handle /refused_copy/* {
		forward_auth {UPSTREAM_H1} {
			uri /allow
		}
		keycloak_cache_auth {
			import login
		}
		import upstreams normal
	}
	handle /failed/* {
		route {
			keycloak_cache_auth {
				import login
			}
			error "something behind the handler" 404
		}
	}
	handle /failed_copy/* {
		route {
			forward_auth {UPSTREAM_H1} {
				uri /allow
			}
			keycloak_cache_auth {
				import login
			}
			error "something behind the handler" 404
		}
	}
	handle_errors {
		import upstreams error
	}
}

http://:{PLAIN_PORT} {
	bind 127.0.0.1
	import site
}

http://:{OPEN_PORT} {
	bind 127.0.0.1
	import site
}

https://:{TLS_PORT} {
	bind 127.0.0.1
	tls {CERT} {KEY}
	import site
}
`

// filtersOff are the options with which an operator lets aliases through that
// Caddy would drop. Versions before 2.11.6 have neither options nor the filter
// for dots.
func filtersOff() string {
	var underscores, dots []string
	for _, name := range owned {
		if name != tenantHeader { // allowing an alias of it would drop the header itself
			underscores = append(underscores, strings.ReplaceAll(strings.ToLower(name), "-", "_"))
			dots = append(dots, strings.ReplaceAll(strings.ToLower(name), "-", "."))
		}
	}
	return "expected_underscore_headers " + strings.Join(underscores, " ") +
		"\n\t\texpected_dot_headers " + strings.Join(dots, " ")
}

// startSite starts everything and waits until Caddy answers.
func startSite(tb testing.TB) *site {
	tb.Helper()
	binary := caddyBinary(tb)
	realm := kctest.Start(tb).Realm("acme")
	s := &site{plain: freeAddr(tb), open: freeAddr(tb), tls: freeAddr(tb)}
	s.user = realm.AddUser(kctest.User{Username: "alice", Email: "alice@example.com", EmailVerified: true})
	s.token = realm.AccessToken(s.user, kctest.Claim("aud", []string{audience}), kctest.Claim("exp", time.Now().Add(time.Hour).Unix()))
	dir := tb.TempDir()
	cert, key := certificate(tb, dir)

	values := []string{
		"{PLAIN_PORT}", port(s.plain), "{OPEN_PORT}", port(s.open), "{TLS_PORT}", port(s.tls),
		"{UPSTREAM_H1}", upstream(tb, serveHTTP1), "{UPSTREAM_H2}", upstream(tb, serveHTTP2),
		"{UPSTREAM_FCGI}", upstream(tb, serveFastCGI),
		"{ISSUER}", realm.Issuer(), "{AUDIENCE}", audience, "{TENANT}", tenant, "{KC_ID}", s.user.ID,
		"{MEMBER_ID}", memberID, "{ROLE}", memberRole, "{PLAN}", memberPlan, "{CERT}", cert, "{KEY}", key,
	}
	config := filepath.Join(dir, "Caddyfile")
	write := func(filters string) {
		text := strings.NewReplacer(append(values, "{FILTERS_OFF}", filters, "{OPEN}", s.open)...).Replace(caddyfile)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	write(filtersOff())
	if exec.Command(binary, "adapt", "--config", config).Run() != nil {
		write("")
	}

	runCaddy(tb, binary, config, s.plain, s.open, s.tls)
	return s
}

// runCaddy runs Caddy until the test ends, and returns its log once it listens at all
// addresses. What it stores, it stores beside its configuration.
func runCaddy(tb testing.TB, binary, config string, addrs ...string) *runningLog {
	tb.Helper()
	dir, log := filepath.Dir(config), new(runningLog)
	caddy := exec.Command(binary, "run", "--config", config)
	caddy.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	caddy.Stdout, caddy.Stderr = log, log
	if err := caddy.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = caddy.Wait() // how it ended shows in its log
		close(ended)
	}()
	tb.Cleanup(func() {
		_ = caddy.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = caddy.Process.Kill()
			<-ended
		}
		if tb.Failed() {
			text := log.String()
			tb.Logf("Caddy's log ends in:\n%s", text[max(0, len(text)-4000):])
		}
	})
	for _, addr := range addrs {
		if err := waitFor(addr, ended); err != nil {
			tb.Fatal(err)
		}
	}
	return log
}

// runningLog is the log of a process that still writes it.
type runningLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *runningLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what has been written so far.
func (l *runningLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitFor waits until somebody listens at addr.
func waitFor(addr string, ended <-chan struct{}) error {
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("Caddy ended before it listened on %s", addr)
		case <-deadline:
			return fmt.Errorf("Caddy does not listen: %w", err)
		case <-tick.C:
		}
	}
}

// caddyBinary returns the path of the Caddy to test.
func caddyBinary(tb testing.TB) string {
	tb.Helper()
	path, err := binary()
	if err != nil {
		tb.Fatal(err)
	}
	version, err := exec.Command(path, "version").CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v\n%s", path, err, version)
	}
	tb.Logf("Caddy under test: %s", version)
	return path
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func port(addr string) string {
	_, port, _ := strings.Cut(addr, ":")
	return port
}

// certificate writes a certificate for localhost and its key.
func certificate(tb testing.TB, dir string) (certFile, keyFile string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return certFile, keyFile
}

// localhostTLS trusts whatever stands in for localhost.
func localhostTLS() *tls.Config {
	return &tls.Config{ServerName: "localhost", NextProtos: []string{"h2"}, InsecureSkipVerify: true}
}
