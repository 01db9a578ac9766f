package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// modesCaddyfile has the modes in which answers are changed as little, or told
// apart as little, as can be, in front of an application that checks its users
// by itself.
const modesCaddyfile = `
{
	admin off
	auto_https disable_redirects
	persist_config off
	grace_period 1s
	metrics
	log {
		output stderr
		format json
	}
}

(login) {
	issuer {ISSUER}
	audience {AUDIENCE}
	resolver static {
		member {TENANT} {KC_ID} {
			id {MEMBER_ID}
		}
		member globex somebody {
			id m-2
		}
		member initech {KC_ID} {
			id m-3
			inactive
		}
	}
}

http://:{PORT} {
	bind 127.0.0.1
	handle /metrics {
		metrics
	}
	handle_path /bare/* {
		reverse_proxy {UPSTREAM}
	}
	handle_path /report/* {
		keycloak_cache_auth {
			import login
			report_only
			dpop accepted {
				nonce
			}
		}
		reverse_proxy {UPSTREAM}
	}
	handle_path /compare/* {
		header -X-Member-ID
		keycloak_cache_auth {
			import login
			report_only
			compare_header X-Member-ID
		}
		reverse_proxy {UPSTREAM} {
			flush_interval -1
		}
	}
	handle_path /hide/* {
		keycloak_cache_auth {
			import login
			hide_tenants
			tenant_claim org
			cache_status
		}
		reverse_proxy {UPSTREAM}
	}
	handle_path /status/* {
		keycloak_cache_auth {
			import login
			cache_status
		}
		reverse_proxy {UPSTREAM}
	}
	handle /hosts/* {
		keycloak_cache_auth {
			import login
			tenant {host}
			tenant_aliases {
				shop.example.com {TENANT}
			}
		}
		reverse_proxy {UPSTREAM}
	}
}
`

// modesSite is a running Caddy with that configuration.
type modesSite struct {
	addr  string
	realm *kctest.Realm
	user  kctest.User
	good  string // the token that the application knows
	log   *runningLog
}

func (s *modesSite) token(options ...kctest.Option) string {
	return s.realm.AccessToken(s.user, append(options, kctest.Claim("aud", []string{audience}))...)
}

// application is an upstream that checks its users by itself: by the token as
// such, and the tenant header. It says in its answer what it got.
func application(good string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got-Tenant", strings.Join(r.Header["X-Tenant-Id"], "|"))
		for _, name := range owned {
			if values := r.Header.Values(name); name != tenantHeader && slices.Contains(values, forged) {
				w.Header().Add("X-Forged", name)
			}
		}
		switch {
		case r.Header.Get("Authorization") != "Bearer "+good:
			w.Header().Set("WWW-Authenticate", `Application realm="app"`)
			w.Header().Set("Cache-Control", "private")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "the application does not know you")
		case r.URL.Path == "/hints":
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Member-ID", memberID)
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "hinted")
			w.Header().Set("X-Sum", "42")
		default:
			w.Header().Set("X-Member-ID", memberID)
			w.Header().Set("Cache-Status", "app; hit")
			_, _ = io.WriteString(w, "hello")
		}
	}
}

func startModes(t *testing.T, binary string) *modesSite {
	t.Helper()
	s := &modesSite{addr: freeAddr(t), realm: kctest.Start(t).Realm("acme")}
	s.user = s.realm.AddUser(kctest.User{Username: "alice", Email: "alice@example.com", EmailVerified: true})
	s.good = s.token()
	upstream := httptest.NewServer(application(s.good))
	t.Cleanup(upstream.Close)

	dir := t.TempDir()
	config := filepath.Join(dir, "Caddyfile")
	text := strings.NewReplacer(
		"{PORT}", port(s.addr), "{UPSTREAM}", strings.TrimPrefix(upstream.URL, "http://"), "{ISSUER}", s.realm.Issuer(),
		"{AUDIENCE}", audience, "{TENANT}", tenant, "{KC_ID}", s.user.ID, "{MEMBER_ID}", memberID,
	).Replace(modesCaddyfile)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.log = runCaddy(t, binary, config, s.addr)
	return s
}

var dateLine = regexp.MustCompile(`(?m)^Date: .*\r\n`)

// raw sends a request and returns the whole answer as it was on the wire, but
// for its date.
func (s *modesSite) raw(t *testing.T, path string, fields ...string) string {
	t.Helper()
	conn, err := dial(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	lines := slices.Concat([]string{"GET " + path + " HTTP/1.1", "Host: shop.example.com", "Connection: close"}, fields, []string{"", ""})
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return dateLine.ReplaceAllString(string(answer), "")
}

// metric returns a counter's value, "" if it is not there.
func (s *modesSite) metric(t *testing.T, name, label string) string {
	t.Helper()
	response, err := http.Get("http://" + s.addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body) // not raw, where chunks may begin within a line
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^caddy_keycloak_cache_auth_` + name + `\{` + regexp.QuoteMeta(label) + `\} (\S+)$`).FindStringSubmatch(string(answer))
	if found == nil {
		return ""
	}
	return found[1]
}

// Each has a Caddy of its own, as they count.
func TestModes(t *testing.T) {
	binary := caddyBinary(t)
	for name, test := range map[string]func(*testing.T, *modesSite){
		"report_only changes no answer":                        reportOnlyChangesNoAnswer,
		"compare_header compares what comes through the proxy": compareHeaderThroughReverseProxy,
		"TN-001 TN-013 TN-014 hidden tenants answer alike":     hiddenTenantsAnswerAlike,
		"cache_status stands behind the application's":         cacheStatusBehindTheApplications,
		"TN-016 TN-018 hosts stand for tenants":                hostsStandForTenants,
	} {
		t.Run(name, func(t *testing.T) { test(t, startModes(t, binary)) })
	}
}

// Under report_only every answer is what it would be without the module, to the
// byte; and no forged identity comes through.
func reportOnlyChangesNoAnswer(t *testing.T, s *modesSite) {
	member := "Authorization: Bearer " + s.good
	for name, fields := range map[string][]string{
		"a member":                 {member, "X-Tenant-ID: " + tenant},
		"no credential":            {"X-Tenant-ID: " + tenant},
		"nothing":                  {},
		"a bad token":              {"Authorization: Bearer x.y.z", "X-Tenant-ID: " + tenant},
		"a malformed credential":   {"Authorization: Bearer", "X-Tenant-ID: " + tenant},
		"somebody else's tenant":   {member, "X-Tenant-ID: globex"},
		"TN-003 two tenants":       {member, "X-Tenant-ID: t1", "X-Tenant-ID: t2"},
		"TN-007 a tenant's syntax": {member, "X-Tenant-ID: t1:user:A"},
		"TN-020 a placeholder":     {member, "X-Tenant-ID: {env.HOME}"},
		"a DPoP token":             {"Authorization: DPoP " + s.good, "DPoP: x", "X-Tenant-ID: " + tenant},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/", "/hints"} {
				want, got := s.raw(t, "/bare"+path, fields...), s.raw(t, "/report"+path, fields...)
				if got != want {
					t.Errorf("with the module\n%s\nwithout it\n%s", got, want)
				}
			}
			forgeries := slices.Clone(fields)
			for _, name := range owned {
				if name != tenantHeader {
					forgeries = append(forgeries, name+": "+forged)
				}
			}
			if got := s.raw(t, "/report/", forgeries...); strings.Contains(got, "X-Forged") {
				t.Errorf("a forged identity reached the application:\n%s", got)
			}
		})
	}
	if n := s.metric(t, "reports_total", `outcome="tenant_invalid"`); n != "9" {
		t.Errorf("%s reports of bad tenants, want 9", n)
	}
	if log := s.log.String(); !strings.Contains(log, "nothing is protected") || !strings.Contains(log, "request would have been refused") || strings.Contains(log, s.good) {
		t.Error("the log does not warn, does not tell of reports, or has a token")
	}
}

func compareHeaderThroughReverseProxy(t *testing.T, s *modesSite) {
	member := []string{"Authorization: Bearer " + s.good, "X-Tenant-ID: " + tenant}
	for _, step := range []struct {
		path   string
		fields []string
		result string
		want   string
	}{
		{"/compare/", member, "equal", "1"},
		{"/compare/hints", member, "equal", "2"},
		{"/compare/", []string{member[0], "X-Tenant-ID: globex"}, "only_theirs", "1"},
		{"/compare/", []string{"Authorization: Bearer " + s.token(kctest.Claim("x", 1)), member[1]}, "only_ours", "1"},
		{"/compare/", nil, "neither", "1"},
	} {
		got := s.raw(t, step.path, step.fields...)
		if strings.Contains(got, "X-Member-Id: ") {
			t.Errorf("the client gets the header:\n%s", got)
		}
		if step.path == "/compare/hints" && (!strings.Contains(got, "HTTP/1.1 103 ") || !strings.Contains(got, "X-Sum: 42")) {
			t.Errorf("early hints or trailers are lost:\n%s", got)
		}
		if n := s.metric(t, "comparisons_total", `result="`+step.result+`"`); n != step.want {
			t.Errorf("%s: %q, want %s", step.result, n, step.want)
		}
	}
	if log := s.log.String(); !strings.Contains(log, `"theirs":"`+memberID+`"`) || strings.Contains(log, s.good) {
		t.Error("differences are not logged, or a token is")
	}
}

// TN-001, TN-013, TN-014 with hide_tenants: the same answer to the byte.
func hiddenTenantsAnswerAlike(t *testing.T, s *modesSite) {
	token := "Authorization: Bearer " + s.token(kctest.Claim("org", []string{tenant, "globex", "initech", "nope"}))
	var first string
	for range 2 { // looked up, and remembered
		for _, name := range []string{"nope", "globex", "initech", "not-of-the-token"} {
			got := s.raw(t, "/hide/", token, "X-Tenant-ID: "+name)
			if first == "" {
				first = got
			}
			if got != first || !strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.Contains(got, "Cache-Status") {
				t.Errorf("%s is answered\n%s\nand the first one\n%s", name, got, first)
			}
		}
	}
	for outcome, want := range map[string]string{"tenant_unknown": "2", "not_a_member": "2", "member_inactive": "2", "tenant_mismatch": "2"} {
		if n := s.metric(t, "requests_total", `outcome="`+outcome+`"`); n != want {
			t.Errorf("%s: %q, want %s", outcome, n, want)
		}
	}
	if got := s.raw(t, "/hide/", token, "X-Tenant-ID: "+tenant); strings.HasPrefix(got, "HTTP/1.1 404 ") || !strings.Contains(got, "X-Got-Tenant: "+tenant) {
		t.Errorf("a member's request is answered\n%s", got)
	}
}

func cacheStatusBehindTheApplications(t *testing.T, s *modesSite) {
	fields := []string{"Authorization: Bearer " + s.good, "X-Tenant-ID: " + tenant}
	for _, want := range []string{`keycloak-cache-auth; fwd=uri-miss; detail=resolver`, `keycloak-cache-auth; hit; ttl=\d+; detail=memory`} {
		got := s.raw(t, "/status/", fields...)
		if !regexp.MustCompile(`(?s)Cache-Status: app; hit\r\n.*Cache-Status: ` + want + `\r\n`).MatchString(got) {
			t.Errorf("want %s:\n%s", want, got)
		}
		if regexp.MustCompile(`Cache-Status:.*(` + tenant + `|` + s.user.ID + `|` + memberID + `)`).MatchString(got) {
			t.Errorf("it names somebody:\n%s", got)
		}
	}
	if got := s.raw(t, "/status/", "X-Tenant-ID: "+tenant); strings.Contains(got, "Cache-Status") {
		t.Errorf("a refusal tells of the cache:\n%s", got)
	}
}

// TN-016, TN-018: with aliases of hosts the host decides, and the application
// gets the tenant.
func hostsStandForTenants(t *testing.T, s *modesSite) {
	got := s.raw(t, "/hosts/", "Authorization: Bearer "+s.good, "X-Tenant-ID: globex", "X-Forwarded-Host: evil.example.com")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "X-Got-Tenant: "+tenant+"\r\n") {
		t.Errorf("the answer is\n%s", got)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/hosts/", s.addr), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.good)
	for host, want := range map[string]int{"SHOP.example.com": 200, "shop.example.com:80": 200, "other.example.com": 403, tenant: 403, "shop.example.com.": 400} {
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", host, response.StatusCode, want)
		}
	}
}
