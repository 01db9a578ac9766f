package keycloakresolver

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// fake is what a test needs of Keycloak, for what the real one cannot be made to do.
type fake struct {
	*httptest.Server
	*http.ServeMux
	logins, calls atomic.Int64
	login         http.HandlerFunc // instead of a token
	life          int              // of tokens, in seconds

	mu   sync.Mutex
	good string // the token that is taken
}

const admin = "/admin/realms/main"

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{ServeMux: http.NewServeMux(), life: 300}
	f.HandleFunc("POST /realms/main/protocol/openid-connect/token", f.token)
	f.HandleFunc("GET "+admin+"/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(`{"id":"`+r.PathValue("id")+`","enabled":true,"ENABLED":false}`)(w, r)
	})
	f.HandleFunc("GET "+admin+"/organizations/members/{id}/organizations", answer(`[{"alias":"acme","enabled":true}]`))
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/admin/") {
			f.calls.Add(1)
			f.mu.Lock()
			good := f.good
			f.mu.Unlock()
			if r.Header.Get("Authorization") != "Bearer "+good {
				w.WriteHeader(401)
				return
			}
		}
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Server.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.ServeMux.ServeHTTP(w, r) }

func (f *fake) token(w http.ResponseWriter, r *http.Request) {
	n := f.logins.Add(1)
	if f.login != nil {
		f.login(w, r)
		return
	}
	id, secret, ok := r.BasicAuth()
	if !ok || id != "caddy" || secret != "s3cret" || r.PostFormValue("grant_type") != "client_credentials" {
		w.WriteHeader(401)
		return
	}
	text := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"self"}`)) + fmt.Sprint(".", n)
	f.mu.Lock()
	f.good = text
	f.mu.Unlock()
	answer(fmt.Sprintf(`{"access_token":%q,"expires_in":%d,"token_type":"Bearer"}`, text, f.life))(w, r)
}

// revoke makes all tokens so far be refused.
func (f *fake) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.good = "none"
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	}
}

func status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}
}

func (f *fake) resolver(t *testing.T, more string) *Resolver {
	t.Helper()
	return mustLoad(t, f.issuer(), "caddy", more)
}

func (f *fake) issuer() string { return f.URL + "/realms/main" }

func (f *fake) query() member.Query {
	return member.Query{Tenant: "acme", KCID: "k1", Issuer: f.issuer()}
}
