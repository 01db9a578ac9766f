package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// The same site, by Caddyfile and by JSON, decides the same.
func TestMembersGetInAndNobodyElse(t *testing.T) {
	w := newWorld(t)
	for name, load := range map[string]func(*testing.T, *site){
		"Caddyfile": func(t *testing.T, s *site) {
			s.LoadCaddyfile(t, w.caddyfile(s, settings{keyPrefix: "caddyfile", memory: 16}))
		},
		"JSON": func(t *testing.T, s *site) { s.LoadJSON(t, w.json(t, s, settings{keyPrefix: "json", memory: 16})) },
	} {
		t.Run(name, func(t *testing.T) {
			s := w.newCaddy(t)
			load(t, s)
			t.Run("a member gets in", func(t *testing.T) { memberGetsIn(t, w, s) })
			t.Run("others are refused", func(t *testing.T) { othersAreRefused(t, w, s) })
			t.Run("nobody forges an identity", func(t *testing.T) { nobodyForges(t, w, s) })
			t.Run("the log and the metrics keep secrets", func(t *testing.T) { secretsAreKept(t, w, s) })
		})
	}
}

func memberGetsIn(t *testing.T, w *world, s *site) {
	token := w.token(t, "alice")
	for _, level := range []string{"resolver", "memory"} {
		a := s.get(t, "/page", bearer(token), tenant("acme"))
		if a.status != http.StatusOK {
			t.Fatalf("alice at acme gets %v", a)
		}
		if a.cache() != level {
			t.Errorf("the member came from %q, want %s", a.cache(), level)
		}
		want := map[string]string{
			"X-User-ID": w.ids["alice"], "X-User-Name": "alice", "X-User-Email": "alice@example.com",
			"X-User-Roles": "editor,viewer", "X-Tenant-ID": "acme",
			"X-Member-ID":   servers.PSQL(t, w.postgres.DSN, "select id from members where kc_id = '"+w.ids["alice"]+"'"),
			"X-Auth-Status": "member",
		}
		for name, value := range want {
			if got := a.seen.Header.Values(name); len(got) != 1 || got[0] != value {
				t.Errorf("from %s: the application sees %s %q, want %q", level, name, got, value)
			}
		}
	}
}

func othersAreRefused(t *testing.T, w *world, s *site) {
	alice := w.token(t, "alice")
	elsewhere := servers.KeycloakClient{ID: "elsewhere"}
	if err := w.realm.CreateClient(t.Context(), elsewhere); err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
	tampered := []byte(alice)
	// another character of base64url in the first place of the signature
	if first := &tampered[strings.LastIndex(alice, ".")+1]; *first == 'A' {
		*first = 'B'
	} else {
		*first = 'A'
	}
	idToken, err := w.realm.PasswordTokens(t.Context(), frontend, "alice", password)
	if err != nil {
		t.Fatal(err)
	}
	const invalid = `error="invalid_token"`
	for name, test := range map[string]struct {
		changes   []change
		status    int
		challenge string // the whole header if it has no quote in it, else a part
	}{
		"a member of another tenant":         {[]change{bearer(w.token(t, "bob")), tenant("acme")}, http.StatusForbidden, ""},
		"a member at another tenant":         {[]change{bearer(alice), tenant("globex")}, http.StatusForbidden, ""},
		"a member at a tenant that is not":   {[]change{bearer(alice), tenant("initech")}, http.StatusForbidden, ""},
		"a tenant in other letters":          {[]change{bearer(alice), tenant("ACME")}, http.StatusForbidden, ""},
		"a member who is not active":         {[]change{bearer(w.token(t, "carol")), tenant("acme")}, http.StatusForbidden, ""},
		"a user without membership":          {[]change{bearer(w.token(t, "dave")), tenant("acme")}, http.StatusForbidden, ""},
		"a user of another realm":            {[]change{bearer(tokenOf(t, w.other, frontend, "mallory")), tenant("acme")}, http.StatusUnauthorized, invalid},
		"a token for another application":    {[]change{bearer(tokenOf(t, w.realm, elsewhere, "alice")), tenant("acme")}, http.StatusUnauthorized, invalid},
		"a token with another signature":     {[]change{bearer(string(tampered)), tenant("acme")}, http.StatusUnauthorized, invalid},
		"an ID token":                        {[]change{bearer(idToken.IDToken), tenant("acme")}, http.StatusUnauthorized, invalid},
		"a refresh token":                    {[]change{bearer(idToken.RefreshToken), tenant("acme")}, http.StatusUnauthorized, invalid},
		"rubbish":                            {[]change{bearer("rubbish"), tenant("acme")}, http.StatusUnauthorized, invalid},
		"no token":                           {[]change{tenant("acme")}, http.StatusUnauthorized, "Bearer"},
		"a password":                         {[]change{header("Authorization", "Basic YWxpY2U6c2VjcmV0"), tenant("acme")}, http.StatusUnauthorized, "Bearer"},
		"two tokens":                         {[]change{header("Authorization", "Bearer "+alice, "Bearer "+alice), tenant("acme")}, http.StatusBadRequest, `error="invalid_request"`},
		"no tenant":                          {[]change{bearer(alice)}, http.StatusBadRequest, ""},
		"a tenant that is no name":           {[]change{bearer(alice), tenant("acme:*")}, http.StatusBadRequest, ""},
		"two tenants":                        {[]change{bearer(alice), header("X-Tenant-ID", "acme", "globex")}, http.StatusBadRequest, ""},
		"a bad token for a malformed tenant": {[]change{bearer("rubbish"), tenant("acme:*")}, http.StatusUnauthorized, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.get(t, "/page", test.changes...)
			if a.status != test.status {
				t.Errorf("gets %v, want status %d", a, test.status)
			}
			challenge := a.header.Get("WWW-Authenticate")
			exact := !strings.Contains(test.challenge, `"`)
			if exact && challenge != test.challenge || !strings.Contains(challenge, test.challenge) {
				t.Errorf("the challenge is %q, want %q", challenge, test.challenge)
			}
			if !strings.HasPrefix(a.body, "refused with ") {
				t.Errorf("the error route did not answer: %v", a)
			}
		})
	}
}

// ownedHeaders are what the application believes about its user.
var ownedHeaders = []string{"X-User-ID", "X-User-Name", "X-User-Email", "X-User-Roles", "X-Tenant-ID", "X-Member-ID", "X-Auth-Status", "X-User-Assertion"}

// A client that sends identity headers itself must not become who they name,
// on any route through the handler, in any spelling that an application may
// take for the same name.
func nobodyForges(t *testing.T, w *world, s *site) {
	token := w.token(t, "alice")
	spellings := map[string]func(string) string{
		"as it is":         func(name string) string { return name },
		"in lower case":    strings.ToLower,
		"with underscores": func(name string) string { return strings.ReplaceAll(name, "-", "_") },
		"with dots":        func(name string) string { return strings.ReplaceAll(name, "-", ".") },
		"in a mixture":     func(name string) string { return strings.Replace(strings.ToUpper(name), "-", "_", 1) },
	}
	const forged = "forged"
	for spelling, spell := range spellings {
		t.Run(spelling, func(t *testing.T) {
			for _, route := range []struct {
				path    string
				changes []change
			}{
				{"/page", []change{bearer(token), tenant("acme")}},
				{"/open/page", nil},
			} {
				for _, name := range ownedHeaders {
					if name == "X-Tenant-ID" && route.path == "/page" {
						continue // this one is asked for, and a second is an error
					}
					a := s.get(t, route.path, append(route.changes, header(spell(name), forged))...)
					wantNoForgery(t, a, route.path, name, forged)
				}
			}
		})
	}
	t.Run("through Connection", func(t *testing.T) {
		sent := s.get(t, "/page", bearer(token), tenant("acme")).seen.Header
		for _, name := range ownedHeaders {
			if sent.Get(name) == "" {
				if name != "X-User-Assertion" { // which this site does not send
					t.Errorf("the application does not get %s", name)
				}
				continue
			}
			a := s.get(t, "/page", bearer(token), tenant("acme"), header("Connection", strings.ToLower(name)))
			if a.status != http.StatusOK {
				t.Fatalf("gets %v", a)
			}
			if got := a.seen.Header.Get(name); got == "" {
				t.Errorf("Connection: %s removed that header on its way to the application", name)
			}
		}
	})
	t.Run("as trailers", func(t *testing.T) {
		for _, path := range []string{"/page", "/open/page"} {
			for _, name := range ownedHeaders {
				a := s.get(t, path, bearer(token), tenant("acme"), func(r *http.Request) {
					r.Method = http.MethodPost
					r.ContentLength = -1
					r.Trailer = http.Header{name: {forged}}
					r.Body = io.NopCloser(strings.NewReader("some text"))
				})
				wantNoForgery(t, a, path, name, forged)
			}
		}
	})
}

func wantNoForgery(t *testing.T, a answer, path, name, forged string) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Errorf("%s with a forged %s gets %v", path, name, a)
		return
	}
	for field, values := range a.seen.Header {
		if strings.Contains(strings.Join(values, " "), forged) {
			t.Errorf("%s: the application sees %s %q", path, field, values)
		}
	}
	// even a trailer without its value, which is what some versions of Caddy make of it, could hide a header
	for field, values := range a.seen.Trailer {
		if http.CanonicalHeaderKey(name) == http.CanonicalHeaderKey(field) {
			t.Errorf("%s: the application sees a trailer %s %q", path, field, values)
		}
	}
}

// Nothing that would let somebody in may show up where operators look.
func secretsAreKept(t *testing.T, w *world, s *site) {
	alice := w.token(t, "alice")
	for _, token := range []string{alice, alice[:len(alice)-8] + "AAAAAAAA"} {
		s.get(t, "/page", bearer(token), tenant("acme"))
	}
	payload := strings.Split(alice, ".")[1]
	outputs := map[string]string{"log": s.Log(t), "metrics": s.Metrics(t)}
	if !strings.Contains(outputs["metrics"], "caddy_keycloak_cache_auth_requests_total") {
		t.Error("the metrics do not count requests")
	}
	for where, text := range outputs {
		for what, secret := range map[string]string{"the password of Redis and PostgreSQL": w.secret, "a token": payload} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s shows %s", where, what)
			}
		}
	}
	for _, of := range []string{w.ids["alice"], "acme", w.realm.Name} {
		if strings.Contains(outputs["metrics"], of) {
			t.Errorf("the metrics have %s for a label", of)
		}
	}
}
