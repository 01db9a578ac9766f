package keycloakcacheauth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Credentials as attackers and broken clients write them. Each is sent twice,
// before and after the good token is remembered: the verdict must not change.
func TestMalformedCredentials(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	good := s.token("alice")
	for name, tc := range map[string]struct {
		value   string
		status  int
		outcome outcome
	}{
		"HS-005 the scheme and spaces":            {"Bearer    ", 400, outcomeMalformedAuthorization},
		"HS-008 two credentials, one field":       {"Bearer " + good + ", Bearer " + good, 400, outcomeMalformedAuthorization},
		"HS-011 a tab after the scheme":           {"Bearer\t" + good, 400, outcomeMalformedAuthorization},
		"HS-011 several spaces after the scheme":  {"Bearer   " + good, 0, outcomeMember},
		"HS-012 a parameter after the token":      {"Bearer " + good + ";x=1", 400, outcomeMalformedAuthorization},
		"HS-012 a comma after the token":          {"Bearer " + good + ",", 400, outcomeMalformedAuthorization},
		"HS-016 a megabyte in a single segment":   {"Bearer " + strings.Repeat("A", 1<<20), 401, "token_too_large"},
		"HS-017 a NUL, should a server let it by": {"Bearer " + good + "\x00", 400, outcomeMalformedAuthorization},
	} {
		t.Run(name, func(t *testing.T) {
			fields := http.Header{"Authorization": {tc.value}, "X-Tenant-Id": {"t1"}}
			for _, when := range []string{"cold", "warm"} {
				got := send(t, h, fields)
				if got.status != tc.status || got.placeholder("http.keycloak_cache_auth.reason") != string(tc.outcome) {
					t.Errorf("%s: status %d, %s; want %d, %s", when, got.status,
						got.placeholder("http.keycloak_cache_auth.reason"), tc.status, tc.outcome)
				}
				send(t, h, bearer(good, "t1"))
			}
		})
	}
}

// HS-013: a user with 150 roles has a token of some 9,000 bytes.
func TestBigTokensPass(t *testing.T) {
	t.Run("HS-013", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config())
		var roles []string
		for i := range 150 {
			roles = append(roles, "a-role-with-a-name-of-some-length-"+strconv.Itoa(i))
		}
		token := s.token("alice", kctest.Claim("realm_access", map[string]any{"roles": roles}))
		if len(token) < 8700 {
			t.Fatalf("the token has %d bytes: not the one to be tried", len(token))
		}
		if got := send(t, h, bearer(token, "t1")); got.status != 0 {
			t.Errorf("status %d: %v", got.status, got.err)
		}
	})
}

// HS-019: a preflight needs no token if so configured, and brings no identity
// with it in any case.
func TestPreflightBringsNoIdentity(t *testing.T) {
	s := newSite(t)
	for name, tc := range map[string]struct {
		preflight string
		status    int
	}{
		"HS-019 passed on":     {preflightPass, 0},
		"HS-019 authenticated": {preflightAuthenticate, 401},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(func(h *Handler) { h.Preflight = tc.preflight }))
			r := httptest.NewRequest(http.MethodOptions, "http://site.example/", nil)
			r.Header.Set("Origin", "https://x.example")
			r.Header.Set("Access-Control-Request-Method", http.MethodGet)
			r.Header.Set("X-User-ID", "forged")
			r.Header.Set("X-User-Roles", "admin")
			r.Header.Set("X-Tenant-ID", "t1")
			got := sendRequest(t, h, r)
			if got.status != tc.status {
				t.Fatalf("status %d, want %d", got.status, tc.status)
			}
			for _, name := range []string{"X-User-Id", "X-User-Roles", "X-Tenant-Id"} {
				if value := got.request.Get(name); value != "" {
					t.Errorf("%s %q went on", name, value)
				}
			}
		})
	}
}

// Tenants that nobody can have, and that must not get as far as a look-up.
func TestMalformedTenants(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	token := s.token("alice")
	for id, tenants := range map[string][]string{
		"TN-004 lists":            {"t1, t2", "t1,t2", "t1;t2", "t1 t2"},
		"TN-009 glob and hash":    {"*", "t?", "[a-z]", "{t2}", "t1}{t2", `t\1`},
		"TN-010 control and more": {"t1%0d%0aX-Admin: 1", "t1\r\nX-Admin: 1", "t1\t", "té", "t1 ", "t1\x00", "t1\u200b"},
		"TN-012 far too long":     {strings.Repeat("t", 64), strings.Repeat("t", 8<<10)},
		"TN-017 reserved names":   {"_meta", "__lock", "_"},
	} {
		for _, tenant := range tenants {
			t.Run(id+"/"+strconv.Quote(tenant)[:min(20, len(strconv.Quote(tenant)))], func(t *testing.T) {
				before := s.source.called()
				got := send(t, h, bearer(token, tenant))
				if got.status != 400 || got.placeholder("http.keycloak_cache_auth.reason") != string(outcomeTenantInvalid) {
					t.Errorf("status %d, %s", got.status, got.placeholder("http.keycloak_cache_auth.reason"))
				}
				if got.placeholder("http.keycloak_cache_auth.requested_tenant") != "" {
					t.Error("the malformed tenant became a placeholder")
				}
				if s.source.called() != before {
					t.Error("the resolver was asked")
				}
			})
		}
	}
	t.Run("TN-017 reserved names that are well-formed are tenants like others", func(t *testing.T) {
		for _, tenant := range []string{"flush", "version", "log", "m"} {
			if got := send(t, h, bearer(token, tenant)); got.status != 403 {
				t.Errorf("%s: status %d, want 403", tenant, got.status)
			}
		}
		if got := send(t, h, bearer(token, "t1")); got.status != 0 {
			t.Errorf("t1 then got status %d", got.status)
		}
	})
}

// TN-012: whoever has one good token can name any number of tenants.
func TestInventedTenantsLeaveNothingBehind(t *testing.T) {
	t.Run("TN-012", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config())
		h.logger, h.members.logger = zap.NewNop(), zap.NewNop() // the recorded log would grow
		token := s.token("alice")
		ask := func(from, to int) {
			for i := from; i < to; i++ {
				if got := send(t, h, bearer(token, "invented-"+strconv.Itoa(i))); got.status != 403 {
					t.Fatalf("status %d", got.status)
				}
			}
		}
		ask(0, 2_000)
		before := heap()
		ask(2_000, 22_000)
		if grown := int64(heap()) - int64(before); grown > 8<<20 {
			t.Errorf("20,000 invented tenants left %d KiB", grown>>10)
		}
		runtime.KeepAlive(h)
	})
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TN-016: only the configured place tells the tenant.
func TestOnlyTheConfiguredPlaceTellsTheTenant(t *testing.T) {
	s := newSite(t)
	request := func(host string, fields map[string]string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "http://"+host+"/", nil)
		r.Header.Set("Authorization", "Bearer "+s.token("alice"))
		for name, value := range fields {
			r.Header.Set(name, value)
		}
		return r
	}
	for name, tc := range map[string]struct {
		edit    func(*Handler)
		request *http.Request
		tenant  string
	}{
		"TN-016 the header, whatever the hosts": {
			func(*Handler) {},
			request("t2.example", map[string]string{"X-Tenant-ID": "t1", "X-Forwarded-Host": "t2.example"}), "t1",
		},
		"TN-016 the host, whatever the headers": {
			func(h *Handler) { h.Tenant = "{http.request.host.labels.1}" },
			request("t2.example", map[string]string{"X-Tenant-ID": "t1", "X-Forwarded-Host": "t1.example", "Forwarded": "host=t1.example"}), "t2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(tc.edit))
			got := sendRequest(t, h, tc.request)
			if got.status != 0 || got.placeholder("http.auth.user.tenant") != tc.tenant {
				t.Errorf("status %d, tenant %q; want %q", got.status, got.placeholder("http.auth.user.tenant"), tc.tenant)
			}
		})
	}
}

// TM-013: a token that ends while its member is looked up was good when it was
// looked at; the next request finds it expired.
func TestTokenThatEndsDuringTheLookup(t *testing.T) {
	t.Run("TM-013", func(t *testing.T) {
		s := newSite(t)
		none := caddy.Duration(0)
		h, _ := load(t, s.config(func(h *Handler) { h.Leeway = &none }))
		end := time.Now().Add(2 * time.Second).Truncate(time.Second) // exp has whole seconds
		token := s.token("alice", kctest.Claim("exp", end.Unix()))
		s.source.respond(func(ctx context.Context, q member.Query) (*member.Member, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Until(end) + 10*time.Millisecond):
				return &member.Member{Tenant: q.Tenant, KCID: q.KCID, ID: "m", Active: true}, nil
			}
		})
		if got := send(t, h, bearer(token, "t1")); got.status != 0 {
			t.Errorf("the request got status %d, %s", got.status, reasonOf(got))
		}
		if got := send(t, h, bearer(token, "t1")); got.status != 401 || reasonOf(got) != "expired" {
			t.Errorf("the next got status %d, %s", got.status, reasonOf(got))
		}
	})
}
