package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// temporary makes the demo's temporary directories land in one that the test sees.
func temporary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, dir)
	}
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("the demo left %v behind", left)
	}
}

func TestEveryPrintedRequestIsAnsweredAsPrinted(t *testing.T) {
	dir := temporary(t)
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"-check", "-ttl", "1s", "-listen", "127.0.0.1:0"}, &stdout, &stderr)
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%s%s", stdout.String(), stderr.String())
	}
	wantEmpty(t, dir)
}

func TestAWrongAnswerFailsTheCheck(t *testing.T) {
	temporary(t)
	d, err := start(t.Context(), options{listen: anyPort, ttl: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	// the member that the other requests need
	if found, err := d.members.setActive(t.Context(), "bob", globex, false); err != nil || !found {
		t.Fatal(found, err)
	}
	var out bytes.Buffer
	if err := d.check(t.Context(), &out); !errors.Is(err, errCheck) {
		t.Errorf("the check ended with %v", err)
	}
	for _, part := range []string{
		"FAIL  expected 200, got 403  bob is a member of globex",
		"the answer was: 403 Forbidden: member_inactive",
		"17 of 18 requests were answered as expected.",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("not shown: %s", part)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestItRunsUntilItIsInterrupted(t *testing.T) {
	dir := temporary(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stdout := &watched{until: "Ctrl-C ends it.", then: interrupt}
	var stderr bytes.Buffer
	if code := run(ctx, []string{"-listen", anyPort}, stdout, &stderr); code != exitOK {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("written to standard error: %s", stderr.String())
	}
	text := stdout.text()
	for _, part := range []string{
		"token() { curl -s http://127.0.0.1:",
		`/orders -H "Authorization: Bearer $(token alice)" -H 'X-Tenant-ID: acme'`,
		"/members/acme/alice/deactivate -X POST",
		"carol  buyer (inactive)  -",
		"The demo has ended.",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("not printed: %s", part)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	wantEmpty(t, dir)
}

func TestItRefusesWhatItCannotDo(t *testing.T) {
	taken, err := listen(t.Context(), anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().String()

	for name, want := range map[string]refusal{
		"a port that is taken":          {[]string{"-listen", busy}, exitFailed, "choose another address with -listen"},
		"an address that is none":       {[]string{"-listen", "nowhere"}, exitFailed, "cannot listen on nowhere"},
		"a ttl of nothing":              {[]string{"-ttl", "0s"}, exitUsage, "-ttl must be positive"},
		"an argument":                   {[]string{"now"}, exitUsage, `unexpected argument "now"`},
		"an unknown flag":               {[]string{"-mysql", "x"}, exitUsage, "not defined: -mysql"},
		"a Redis that is down":          {[]string{"-listen", anyPort, "-redis", "redis://:hunter2@127.0.0.1:1"}, exitFailed, "reaching Redis"},
		"a PostgreSQL that is down":     {[]string{"-listen", anyPort, "-postgres", "postgres://u:hunter2@127.0.0.1:1/d"}, exitFailed, "filling the members' table"},
		"a Redis URL that is none":      {[]string{"-listen", anyPort, "-redis", "hunter2"}, exitFailed, "-redis takes a URL"},
		"a PostgreSQL DSN that is none": {[]string{"-listen", anyPort, "-postgres", "postgres://u:hunter2@h:port/"}, exitFailed, "-postgres takes a DSN"},
	} {
		t.Run(name, want.test)
	}
}

// refusal is what a command line leads to that cannot be followed.
type refusal struct {
	args []string
	code int
	says string
}

func (want refusal) test(t *testing.T) {
	dir := temporary(t)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), want.args, &stdout, &stderr); code != want.code {
		t.Errorf("exit code %d, want %d", code, want.code)
	}
	if !strings.Contains(stderr.String(), want.says) {
		t.Errorf("it says %q, not %q", stderr.String(), want.says)
	}
	if strings.Contains(stderr.String()+stdout.String(), "hunter2") {
		t.Error("it shows what may be a secret")
	}
	wantEmpty(t, dir)
}

func TestWithoutTheDefaultPortItTakesAFreeOne(t *testing.T) {
	if taken, err := listen(t.Context(), defaultListen); err == nil {
		defer taken.Close()
	} // else something else has it
	address, err := listenAddress(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "127.0.0.1" || port == "0" || address == defaultListen {
		t.Errorf("%s, %v", address, err)
	}
}

func TestKeysAreWithdrawnOnceTheirTokensHaveExpired(t *testing.T) {
	server := kctest.Start(t)
	keys := newKeyRing(server.Realm(realmName), "ES256") // quicker to make than RS256
	first := keys.keys[0]
	published := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.Realm(realmName).JWKSURL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := (&checker{client: http.DefaultClient}).do(req)
		if err != nil {
			t.Fatal(err)
		}
		return string(got.body)
	}
	for range passiveKeys {
		keys.rotate()
	}
	if !strings.Contains(published(), first.ID) {
		t.Error("a key whose tokens may still be good is not published")
	}
	keys.rotate()
	if strings.Contains(published(), first.ID) {
		t.Error("a key is published for ever")
	}
}

func TestPlainHTTPToOtherMachinesIsRecognised(t *testing.T) {
	for address, want := range map[string]bool{
		"http://localhost:8080/realms/a":      false,
		"http://127.0.0.1/realms/a":           false,
		"http://[::1]:8080/realms/a":          false,
		"https://sso.example.com/realms/a":    false,
		"http://sso.example.com/realms/a":     true,
		"http://192.0.2.1:8080/realms/a":      true,
		"http://localhost.example.com/realms": true,
	} {
		if got := isPlainRemote(address); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}

func TestTheCaddyfileOfEveryKindOfDemoLoads(t *testing.T) {
	kinds := map[string]site{
		"embedded":              {Issuer: "http://127.0.0.1:1/realms/a", Driver: "sqlite", DSN: "/tmp/a b.db"},
		"verbose":               {Issuer: "http://127.0.0.1:1/realms/a", Driver: "sqlite", DSN: "/tmp/a.db", Verbose: true},
		"with Redis":            {Issuer: "http://127.0.0.1:1/realms/a", Driver: "sqlite", DSN: "/tmp/a.db", Redis: "redis://127.0.0.1:1", Namespace: "run-1"},
		"a remote Keycloak":     {Issuer: "http://192.0.2.1/realms/a", InsecureHTTP: true, Driver: "sqlite", DSN: "/tmp/a.db"},
		"Keycloak behind proxy": {Issuer: "https://sso.example.com/realms/a", Backchannel: "http://127.0.0.1:1/realms/a", Driver: "sqlite", DSN: "/tmp/a.db"},
	}
	for name, s := range kinds {
		t.Run(name, func(t *testing.T) {
			admin, err := freeAddress(t.Context(), anyPort)
			if err != nil {
				t.Fatal(err)
			}
			at, err := freeAddress(t.Context(), anyPort)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			s.Host, s.Port, _ = net.SplitHostPort(at)
			s.Admin, s.Upstream, s.Storage, s.Audience, s.TTL, s.Query = admin, "127.0.0.1:1", dir, audience, time.Second, membersQuery
			running, err := startCaddy(s, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := running.close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestParametersAreNumberedForPostgreSQL(t *testing.T) {
	const statement = "update t set a = ? where b = ? and c = ?"
	if got := (&members{driver: "postgres"}).bind(statement); got != "update t set a = $1 where b = $2 and c = $3" {
		t.Error(got)
	}
	if got := (&members{driver: "sqlite"}).bind(statement); got != statement {
		t.Error(got)
	}
}

func TestEveryMemberIsAUser(t *testing.T) {
	for _, m := range memberships {
		if !slices.Contains(users, m.user) {
			t.Errorf("%s cannot log in", m.user)
		}
	}
}

// watched is a writer that calls then once it has seen a text.
type watched struct {
	until string
	then  func()

	mu      sync.Mutex
	written strings.Builder
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.written.String(), w.until)
	w.written.Write(p)
	if !before && strings.Contains(w.written.String(), w.until) {
		w.then()
	}
	return len(p), nil
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written.String()
}
