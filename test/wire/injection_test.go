package wire_test

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// canaries are what text that looks like a placeholder would become, and where
// Caddy has them.
type canaries struct {
	env, file, header string
	path              string // of the file
}

// canaryHeader is sent with every request; what it holds belongs nowhere else.
const canaryHeader = "X-Canary"

func newCanaries(t *testing.T) canaries {
	t.Helper()
	c := canaries{
		env: "env-" + rand.Text(), file: "file-" + rand.Text(), header: "header-" + rand.Text(),
		path: filepath.Join(t.TempDir(), "canary"),
	}
	if err := os.WriteFile(c.path, []byte(c.file), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// planted is what comes from outside: all that Caddy would expand in a text of
// its configuration.
func (c canaries) planted() string {
	return "{env.KCA_CANARY}{file." + c.path + "}{http.request.header." + canaryHeader + "}"
}

// in tells which of the canaries a text holds.
func (c canaries) in(text string, without ...string) []string {
	return slices.DeleteFunc([]string{c.env, c.file, c.header}, func(canary string) bool {
		return slices.Contains(without, canary) || !strings.Contains(text, canary)
	})
}

// everywhere shows an identity in every way that Caddy's directives have.
const everywhere = `
	request_header X-Copied "{SHOWN}"
	header X-Shown "{SHOWN}"
	log_append shown "{SHOWN}"
	vars shown "{SHOWN}"
	request_header X-Var "{http.vars.shown}"
	map {http.auth.user.name} {mapped} {
		default "{http.auth.user.name}"
	}
	request_header X-Mapped "{mapped}"
	rewrite * "/of/{http.auth.user.name}?{http.auth.user.name}&{query}"
	reverse_proxy {UPSTREAM}
`

// shown is every placeholder that a case may have planted something in.
const shown = "{http.auth.user.id}|{http.auth.user.name}|{http.auth.user.username}|{http.auth.user.email}|" +
	"{http.auth.user.email_unverified}|{http.auth.user.scope}|{http.auth.user.groups}|{http.auth.user.realm_roles}|" +
	"{http.auth.user.roles}|{http.auth.user.member_id}|{http.auth.user.member.note}|{http.auth.user.claims.deep.note}|" +
	"{http.auth.user.claims.organization}|{http.keycloak_cache_auth.requested_tenant}"

// injection is one way in for text.
type injection struct {
	lines   string // of the handler, besides issuer and audience; {…} as in newInjectionSite
	claims  []kctest.Option
	request func(*http.Request)
	status  int // 0: 200

	// reaches says that the upstream has to get the text as it is, to show that
	// it came as far as it could.
	reaches bool
}

// Text from outside that looks like a placeholder is never expanded: not in
// headers, answers, error pages, rewrites, nor in a log.
func TestTextFromOutsideIsNeverExpanded_SP007(t *testing.T) {
	c := newCanaries(t)
	p := c.planted()
	claim := func(name string) []kctest.Option { return []kctest.Option{kctest.Claim(name, p)} }
	header := func(name string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, p) }
	}
	const static = "resolver static {\n member {TENANT} {KC_ID} {\n id m-1\n }\n}\n"
	application := func(path string) string { return "resolver http {\n url {APP}/" + path + "/{tenant}/{kc_id}\n}\n" }
	sql := func(id string) string {
		return "resolver sql {\n driver postgres\n dsn {DSN}\n query \"select kc_id, tenant, active, note, roles, " + id +
			" from members where kc_id = :kc_id and tenant = :tenant\"\n}\n"
	}
	cases := map[string]injection{
		"a name":                      {lines: static, claims: claim("name"), reaches: true},
		"a user name":                 {lines: static, claims: claim("preferred_username"), reaches: true},
		"an email address":            {lines: static, claims: claim("email"), reaches: true},
		"an unverified email address": {lines: static, claims: append(claim("email"), kctest.Claim("email_verified", false)), reaches: true},
		"a scope":                     {lines: static, claims: []kctest.Option{kctest.Claim("scope", "openid "+p)}, reaches: true},
		"a claim below another":       {lines: static, claims: []kctest.Option{kctest.Claim("deep", map[string]any{"note": p})}, reaches: true},
		"a name of a group":           {lines: static, claims: []kctest.Option{kctest.Claim("groups", []string{p, "/b"})}, reaches: true},
		"a name of a realm role":      {lines: static, claims: []kctest.Option{kctest.Claim("realm_access", map[string]any{"roles": []string{p}})}, reaches: true},
		"an alias of an organization": {lines: static + "tenant_claim organization\n", claims: []kctest.Option{kctest.Claim("organization", []string{p, tenant})}, reaches: true},
		"an alias that is the tenant": {lines: static + "tenant {http.auth.user.claims.organization.0}\n", claims: []kctest.Option{kctest.Claim("organization", []string{p})}, status: 400},
		"an attribute of static's":    {lines: "resolver static {\n member {TENANT} {KC_ID} {\n id m-1\n note {env.KCA_PLANTED}\n roles {env.KCA_PLANTED}\n }\n}\n", reaches: true},
		"an attribute of http's":      {lines: application("good"), reaches: true},
		"an attribute of sql's":       {lines: sql("id"), reaches: true},
		"an attribute of keycloak's":  {lines: "resolver keycloak {\n issuer {ISSUER}\n backchannel_url {APP}/realms/main\n client_id caddy\n client_secret s3cret\n roles realm\n attribute note note\n}\n", reaches: true},
		"an attribute of claims'":     {lines: "resolver claims {\n tenant groups {tenant}\n roles deep.note\n id deep.note\n attribute note deep.note\n}\n", claims: []kctest.Option{kctest.Claim("groups", []string{tenant, p}), kctest.Claim("deep", map[string]any{"note": p})}, reaches: true},
		"a header that is copied":     {lines: static + "header X-Sent \"<{http.request.header.X-From}>\"\n", request: header("X-From"), reaches: true},
		"a query that is copied": {lines: static + "header X-Sent {http.request.uri.query.q}\n", request: func(r *http.Request) {
			r.URL.RawQuery = "q=" + strings.NewReplacer("{", "%7B", "}", "%7D", "/", "%2F").Replace(p)
		}, reaches: true},
		"a tenant header":              {lines: static, request: header(tenantHeader), status: 400},
		"a tenant header, any pattern": {lines: static + "tenant_pattern .*\n", request: header(tenantHeader), status: 400},
		"a tenant in the query":        {lines: static + "tenant {http.request.uri.query.t}\n", request: func(r *http.Request) { r.URL.RawQuery = "t=%7Benv.KCA_CANARY%7D" }, status: 400},
		"a tenant in the path":         {lines: static + "tenant {http.request.uri.path.1}\n", request: func(r *http.Request) { r.URL.Path += "{env.KCA_CANARY}" }, status: 400},
		"a tenant in the host":         {lines: static + "tenant {http.request.host.labels.1}\n", request: func(r *http.Request) { r.Host = "{env.KCA_CANARY}.example" }, status: 400},
		"a token":                      {lines: static, request: func(r *http.Request) { r.Header.Set("Authorization", "Bearer {env.KCA_CANARY}") }, status: 400},
		"a key id":                     {lines: static, claims: []kctest.Option{kctest.Header("kid", p)}, status: 401},
		"a type":                       {lines: static, claims: claim("typ"), status: 401},
		"an issuer":                    {lines: static, claims: claim("iss"), status: 401},
		"an audience":                  {lines: static, claims: claim("aud"), status: 401},
		"a client":                     {lines: static + "authorized_party app\n", claims: claim("azp"), status: 401},
		"an error of http's":           {lines: application("broken"), status: 503},
		"a redirect of http's":         {lines: application("redirect"), status: 503},
		"a user id of http's":          {lines: application("another"), status: 403},
		"an error of sql's":            {lines: sql("note::int as id"), status: 503},
	}
	site := newInjectionSite(t, c, cases)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { site.try(t, name, tc) })
	}
	t.Run("elsewhere such text is expanded", func(t *testing.T) {
		r := site.request(t, "control", nil)
		if got := site.send(t, r); !slices.Equal(c.in(got.body), []string{c.env, c.file, c.header}) {
			t.Errorf("Caddy answers %q: the canaries are none", got.body)
		}
	})
	site.eventually(t, "all requests are logged", func(log string) bool {
		return strings.Count(log, `"msg":"handled request"`) >= len(cases)
	})
	if found := c.in(site.caddy.Log(t), c.header); len(found) > 0 { // which the access log shows where it belongs
		t.Errorf("the log holds %q", found)
	}
}

// injectionSite is a Caddy with a way for each case.
type injectionSite struct {
	caddy    *servers.CaddyServer
	realm    *kctest.Realm
	user     kctest.User
	canaries canaries
	config   *strings.Replacer // makes it out of the template
	template string
}

func newInjectionSite(t *testing.T, c canaries, cases map[string]injection) *injectionSite {
	t.Helper()
	s := &injectionSite{canaries: c, realm: kctest.Start(t).Realm("acme")}
	s.user = s.realm.AddUser(kctest.User{Username: "alice", Email: "alice@example.com", EmailVerified: true, GivenName: "Alice", FamilyName: "Example"})
	dsn := servers.Postgres(t)
	servers.PSQL(t, dsn, fmt.Sprintf("create table members as select '%s' as kc_id, '%s' as tenant, true as active, "+
		"$$%[3]s$$ as note, $$%[3]s$$ as id, array[$$%[3]s$$] as roles", s.user.ID, tenant, c.planted()))
	var ways strings.Builder
	for name, tc := range cases {
		fmt.Fprintf(&ways, "handle /%s/* {\nroute {\nkeycloak_cache_auth {\nissuer {ISSUER}\naudience {AUDIENCE}\n%s}\n%s}\n}\n",
			wayOf(name), tc.lines, everywhere)
	}
	s.config = strings.NewReplacer("{ISSUER}", s.realm.Issuer(), "{AUDIENCE}", audience, "{TENANT}", tenant, "{KC_ID}", s.user.ID,
		"{SHOWN}", shown, "{UPSTREAM}", newMirror(t), "{APP}", newTroublemaker(t, s.user.ID, c.planted()), "{DSN}", dsn)
	s.template = `{
	admin {ADMIN}
	debug
}

http://{ADDR} {
	log
	handle /control/* {
		respond "` + c.planted() + `"
	}
	` + ways.String() + `
	handle_errors {
		header X-Reason "{http.keycloak_cache_auth.reason}"
		respond "{err.status_code} {err.status_text} {err.message} {SHOWN}"
	}
}
`
	return s.node(t)
}

// node starts a Caddy with the site's configuration.
func (s *injectionSite) node(t *testing.T) *injectionSite {
	t.Helper()
	n := *s
	n.caddy = servers.StartCaddy(t, caddyBinary(t), "KCA_CANARY="+s.canaries.env, "KCA_PLANTED="+s.canaries.planted())
	listeners := strings.NewReplacer("{ADMIN}", n.caddy.AdminListen, "{ADDR}", n.caddy.Addr)
	n.caddy.LoadCaddyfile(t, s.config.Replace(listeners.Replace(s.template)))
	return &n
}

// wayOf is the first segment of a case's paths.
func wayOf(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, name)
}

func (s *injectionSite) request(t *testing.T, name string, claims []kctest.Option) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.caddy.URL()+"/"+wayOf(name)+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	token := s.realm.AccessToken(s.user, append([]kctest.Option{kctest.Claim("aud", []string{audience})}, claims...)...)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set(tenantHeader, tenant)
	r.Header.Set(canaryHeader, s.canaries.header)
	return r
}

// reply is what came back, and what the upstream got.
type reply struct {
	status int
	header string
	body   string
	seen   *mirrored // nil if the upstream was not asked
}

func (s *injectionSite) send(t *testing.T, r *http.Request) reply {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{status: resp.StatusCode, header: fmt.Sprint(resp.Header), body: string(body)}
	if resp.Header.Get("X-Mirror") != "" {
		got.seen = new(mirrored)
		if err := json.Unmarshal(body, got.seen); err != nil {
			t.Fatal(err)
		}
		got.body = ""
	}
	return got
}

func (s *injectionSite) try(t *testing.T, name string, tc injection) {
	t.Helper()
	r := s.request(t, name, tc.claims)
	if tc.request != nil {
		tc.request(r)
	}
	got := s.send(t, r)
	if want := cmp.Or(tc.status, http.StatusOK); got.status != want {
		t.Fatalf("status %d, want %d: %s", got.status, want, got.body)
	}
	if found := s.canaries.in(got.header + got.body); len(found) > 0 {
		t.Errorf("the answer holds %q: %s %s", found, got.header, got.body)
	}
	if got.seen == nil {
		return
	}
	got.seen.Header.Del(canaryHeader)
	text := got.seen.URI + fmt.Sprint(got.seen.Header)
	if found := s.canaries.in(text); len(found) > 0 {
		t.Errorf("the upstream got %q: %s", found, text)
	}
	if tc.reaches && !strings.Contains(text, s.canaries.planted()) {
		t.Errorf("the text did not reach the upstream, so this shows nothing: %s", text)
	}
}

func (s *injectionSite) eventually(t *testing.T, what string, holds func(log string) bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds(s.caddy.Log(t)) {
		select {
		case <-deadline:
			t.Fatalf("never came true: %s", what)
		case <-tick.C:
		}
	}
}

// mirrored is what an upstream was asked.
type mirrored struct {
	URI    string
	Header http.Header
}

// newMirror starts an upstream that answers with what it was asked.
func newMirror(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Mirror", "yes")
		_ = json.NewEncoder(w).Encode(mirrored{r.RequestURI, r.Header})
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// newTroublemaker starts an application, and a Keycloak, that say the text
// wherever they can.
func newTroublemaker(t *testing.T, kcID, text string) string {
	t.Helper()
	object := func(values map[string]any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(values)
		}
	}
	list := func(values ...map[string]any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(values)
		}
	}
	record := func(kcID string) map[string]any {
		return map[string]any{"kc_id": kcID, "tenant": tenant, "active": true, "id": text, "note": text, "roles": []string{text}}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /good/", object(record(kcID)))
	mux.Handle("GET /another/", object(record(text)))
	mux.HandleFunc("GET /broken/", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, http.StatusInternalServerError) })
	mux.HandleFunc("GET /redirect/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", text)
		w.WriteHeader(http.StatusFound)
	})
	mux.Handle("POST /realms/main/protocol/openid-connect/token", object(map[string]any{"access_token": "opaque", "expires_in": 60}))
	const admin = "GET /admin/realms/main/"
	mux.Handle(admin+"users/{id}", object(map[string]any{"id": kcID, "enabled": true, "attributes": map[string]any{"note": []string{text}}}))
	mux.Handle(admin+"users/{id}/role-mappings/realm/composite", list(map[string]any{"name": text}))
	mux.Handle(admin+"organizations/members/{id}/organizations",
		list(map[string]any{"alias": text, "enabled": true}, map[string]any{"alias": tenant, "enabled": true}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}
