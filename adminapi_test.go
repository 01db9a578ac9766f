package keycloakcacheauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// callAPI sends a request to the admin API as Caddy's admin endpoint routes it.
func callAPI(tb testing.TB, method, path, kind, body string) (status int, answer string) {
	tb.Helper()
	mux := http.NewServeMux()
	for _, route := range (AdminAPI{}).Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			err := route.Handler.ServeHTTP(w, r)
			var refusal caddy.APIError
			switch {
			case errors.As(err, &refusal):
				http.Error(w, refusal.Error(), refusal.HTTPStatus)
			case err != nil:
				tb.Errorf("not an APIError: %v", err)
			}
		})
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

func postFlush(tb testing.TB, body string) (int, string) {
	tb.Helper()
	return callAPI(tb, http.MethodPost, adminPath+"flush", "application/json", body)
}

func TestFlushByTheAdminAPI(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	alice, bob := s.users["alice"].ID, s.users["bob"].ID
	members := []struct{ user, tenant string }{{"alice", "t1"}, {"alice", "t2"}, {"bob", "t1"}}
	for name, tc := range map[string]struct {
		body    string
		flushed []string // of the members above
	}{
		"everybody":           {`{"all":true}`, []string{"alice t1", "alice t2", "bob t1"}},
		"a tenant":            {`{"tenant":"t1"}`, []string{"alice t1", "bob t1"}},
		"a user in a tenant":  {`{"tenant":"t1","kc_id":"` + alice + `"}`, []string{"alice t1"}},
		"a user everywhere":   {`{"kc_id":"` + alice + `"}`, []string{"alice t1", "alice t2"}},
		"a user of a realm":   {`{"issuer":"` + s.realm.Issuer() + `","kc_id":"` + bob + `"}`, []string{"bob t1"}},
		"a user of another":   {`{"issuer":"https://other.example","kc_id":"` + bob + `"}`, nil},
		"a member":            {`{"tenant":"t1","member_id":"m-bob"}`, []string{"bob t1"}},
		"AD-005 nobody":       {`{"tenant":"t-nope","kc_id":"nobody"}`, nil},
		"AD-005 no such":      {`{"tenant":"t1","member_id":"m-nope"}`, nil},
		"a member, elsewhere": {`{"tenant":"t2","member_id":"m-bob"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range members {
				if got := send(t, h, bearer(s.token(m.user), m.tenant)); got.status != 0 {
					t.Fatalf("status %d", got.status)
				}
			}
			status, answer := postFlush(t, tc.body)
			if status != 200 || !strings.Contains(answer, `"node":true`) || !strings.Contains(answer, `"shared":"none"`) {
				t.Fatalf("status %d: %s", status, answer)
			}
			for _, m := range members {
				want := "memory"
				if slices.Contains(tc.flushed, m.user+" "+m.tenant) {
					want = "resolver"
				}
				if from := cacheOf(send(t, h, bearer(s.token(m.user), m.tenant))); from != want {
					t.Errorf("%s in %s comes from %s, want %s", m.user, m.tenant, from, want)
				}
			}
		})
	}
}

// What is not understood flushes nothing.
func TestAdminAPIRefuses(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	alice := bearer(s.token("alice"), "t1")
	const jsonKind = "application/json"
	for name, tc := range map[string]struct {
		method, path, kind, body string
		status                   int
	}{
		"AD-002 GET":                   {"GET", "flush", "", "", 405},
		"AD-002 DELETE":                {"DELETE", "flush", jsonKind, `{"all":true}`, 405},
		"AD-004 a huge body":           {"POST", "flush", jsonKind, `{"tenant":"` + strings.Repeat("a", 1<<20) + `"}`, 400},
		"AD-004 no JSON":               {"POST", "flush", jsonKind, `all`, 400},
		"AD-004 an unknown name":       {"POST", "flush", jsonKind, `{"tenant":"t1","user":"../"}`, 400},
		"AD-004 a name in other case":  {"POST", "flush", jsonKind, `{"All":true}`, 400},
		"AD-004 a name twice":          {"POST", "flush", jsonKind, `{"tenant":"t9","tenant":"t1"}`, 400},
		"AD-004 all tenants by a star": {"POST", "flush", jsonKind, `{"tenant":"*"}`, 400},
		"AD-004 plain text":            {"POST", "flush", "text/plain", `{"all":true}`, 400},
		"AD-004 a form":                {"POST", "flush", "application/x-www-form-urlencoded", `all=true`, 400},
		"AD-004 nothing":               {"POST", "flush", jsonKind, ``, 400},
		"AD-004 nobody":                {"POST", "flush", jsonKind, `{}`, 400},
		"AD-004 all and somebody":      {"POST", "flush", jsonKind, `{"all":true,"tenant":"t9"}`, 400},
		"AD-004 a member of no tenant": {"POST", "flush", jsonKind, `{"member_id":"m-alice-1"}`, 400},
		"AD-004 trailing data":         {"POST", "flush", jsonKind, `{"all":true} {}`, 400},
		"AD-009 a longer path":         {"POST", "flushX", jsonKind, `{"all":true}`, 404},
		"AD-009 a path below":          {"POST", "flush/x", jsonKind, `{"all":true}`, 404},
		"stats by POST":                {"POST", "stats", "", "", 405},
		"a member by POST":             {"POST", "members/t1/x", "", "", 405},
		"a member of no tenant's name": {"GET", "members/t:1/x", "", "", 400},
	} {
		t.Run(name, func(t *testing.T) {
			send(t, h, alice)
			status, answer := callAPI(t, tc.method, adminPath+tc.path, tc.kind, tc.body)
			if status != tc.status {
				t.Errorf("status %d, want %d: %s", status, tc.status, answer)
			}
			if from := cacheOf(send(t, h, alice)); from != "memory" {
				t.Errorf("it flushed: she comes from %s", from)
			}
		})
	}
	t.Run("AD-009 a twin of the prefix", func(t *testing.T) {
		if status, _ := callAPI(t, "POST", "/keycloak_cache_authX/flush", jsonKind, `{"all":true}`); status != 404 {
			t.Errorf("status %d", status)
		}
	})
}

// A flush that Redis could not be told of says so.
func TestFlushWithoutRedisSaysSo(t *testing.T) {
	t.Run("IV-005", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config(func(h *Handler) { h.Stores = []*Store{{URL: "redis://:" + secretInTests + "@127.0.0.1:1/3"}} }))
		alice := bearer(s.token("alice"), "t1")
		send(t, h, alice)
		status, answer := postFlush(t, `{"all":true}`)
		if status != http.StatusMultiStatus || !strings.Contains(answer, `"shared":"pending"`) || !strings.Contains(answer, `"node":true`) {
			t.Errorf("status %d: %s", status, answer)
		}
		if strings.Contains(answer, secretInTests) || !strings.Contains(answer, "127.0.0.1:1/3") {
			t.Errorf("the store is not named, or with its password: %s", answer)
		}
		if from := cacheOf(send(t, h, alice)); from != "resolver" {
			t.Errorf("on this node she still comes from %s", from)
		}
	})
}

func TestStatsTellNoSecrets(t *testing.T) {
	t.Run("AD-007", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config(func(h *Handler) { h.Stores = []*Store{{URL: "redis://:" + secretInTests + "@127.0.0.1:1"}} }))
		send(t, h, bearer(s.token("alice"), "t1"))
		status, answer := callAPI(t, http.MethodGet, adminPath+"stats", "", "")
		var stats struct{ Stores []storeStats }
		if err := json.Unmarshal([]byte(answer), &stats); err != nil || status != 200 || len(stats.Stores) != 1 {
			t.Fatalf("status %d: %s (%v)", status, answer, err)
		}
		if got := stats.Stores[0]; got.Entries != 1 || got.MaxBytes == 0 || got.Log == nil {
			t.Errorf("the stats are %+v", got)
		}
		for _, secret := range []string{secretInTests, s.users["alice"].ID, "alice", "m-alice-1"} {
			if strings.Contains(answer, secret) {
				t.Errorf("the stats hold %q: %s", secret, answer)
			}
		}
	})
}

// What resolvers read of the token is part of the key, and no part of the
// question: a user has an entry for each of its values.
func TestShowMemberFoundWithClaims(t *testing.T) {
	server := servers.Redis(t)
	s := newSite(t)
	s.source.claims = []string{"level"}
	h, _ := load(t, s.config(func(h *Handler) { h.Stores = []*Store{{URL: server.URL(), Timeout: caddy.Duration(5 * time.Second)}} }))
	s.source.respond(func(_ context.Context, q member.Query) (*member.Member, error) {
		return &member.Member{Tenant: q.Tenant, KCID: q.KCID, ID: "level " + q.Claims["level"].Text(), Active: true}, nil
	})
	for _, level := range []string{"gold", "silver"} {
		for _, user := range []string{"alice", "bob"} {
			send(t, h, bearer(s.token(user, kctest.Claim("level", level)), "t1"))
		}
	}
	status, text := callAPI(t, http.MethodGet, adminPath+"members/t1/"+s.users["alice"].ID, "", "")
	var answer struct {
		Entries []struct {
			Level, Result, Claims string
			MemberID              string `json:"member_id"`
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 {
		t.Fatalf("status %d: %s (%v)", status, text, err)
	}
	var shown []string
	claims := map[string]string{}
	for _, entry := range answer.Entries {
		shown = append(shown, entry.MemberID+" "+entry.Level+" "+entry.Result)
		claims[entry.MemberID] = entry.Claims
	}
	slices.Sort(shown)
	want := []string{"level gold memory hit", "level gold redis hit", "level silver memory hit", "level silver redis hit"}
	if !slices.Equal(shown, want) || claims["level gold"] == "" || claims["level gold"] == claims["level silver"] {
		t.Errorf("shown is %q with %v", shown, claims)
	}
}

func TestShowMember(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	send(t, h, bearer(s.token("alice"), "t1"))
	path := adminPath + "members/t1/" + s.users["alice"].ID
	show := func(path string) (answer struct {
		Entries []struct {
			Level, Result, Issuer string
			Active                bool
			MemberID              string              `json:"member_id"`
			Age                   float64             `json:"age_seconds"`
			Attributes            map[string][]string `json:"attributes"`
		}
	},
	) {
		t.Helper()
		status, text := callAPI(t, http.MethodGet, path, "", "")
		if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 {
			t.Fatalf("status %d: %s (%v)", status, text, err)
		}
		return answer
	}
	got := show(path)
	if len(got.Entries) != 1 {
		t.Fatalf("%d entries", len(got.Entries))
	}
	entry := got.Entries[0]
	if entry.Level != "memory" || entry.Result != "hit" || entry.Issuer != s.realm.Issuer() || !entry.Active || entry.MemberID != "m-alice-1" {
		t.Errorf("shown is %+v", entry)
	}
	if entry.Attributes != nil {
		t.Errorf("attributes are shown without being asked for: %v", entry.Attributes)
	}
	if plan := show(path + "?attributes=true").Entries[0].Attributes["plan"]; !slices.Equal(plan, []string{"gold"}) {
		t.Errorf("asked for, the attribute plan is %q", plan)
	}
	for _, other := range []string{adminPath + "members/t2/" + s.users["alice"].ID, adminPath + "members/t1/nobody"} {
		if got := show(other); len(got.Entries) != 0 {
			t.Errorf("%s shows %+v", other, got.Entries)
		}
	}
}

// AD-006: many flushes at once, under load.
func TestManyFlushesAtOnce(t *testing.T) {
	t.Run("AD-006", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config())
		alice := bearer(s.token("alice"), "t1")
		var done sync.WaitGroup
		for range 1000 {
			done.Go(func() {
				if status, answer := postFlush(t, `{"all":true}`); status != 200 {
					t.Errorf("status %d: %s", status, answer)
				}
			})
		}
		for range 4 {
			done.Go(func() {
				for range 200 {
					if got := send(t, h, alice); got.status != 0 {
						t.Errorf("a request got status %d, %s", got.status, reasonOf(got))
					}
				}
			})
		}
		done.Wait()
	})
}

func TestGoAPI(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.Optional = true }))
	fields := bearer(s.token("alice"), "t1")
	if got := send(t, h, fields); cacheOf(got) != "resolver" {
		t.Fatalf("from %s", cacheOf(got))
	}
	if _, err := Flush(t.Context(), FlushScope{}); !errors.Is(err, ErrFlushScope) {
		t.Errorf("a flush of nobody: %v", err)
	}
	if flushed, err := Flush(t.Context(), FlushScope{Tenant: "t1"}); err != nil || len(flushed) == 0 || !flushed[0].Node {
		t.Errorf("flushed %+v, %v", flushed, err)
	}
	if got := send(t, h, fields); cacheOf(got) != "resolver" {
		t.Errorf("after a flush she comes from %s", cacheOf(got))
	}

	for name, tc := range map[string]struct {
		fields http.Header
		want   string
	}{"a member": {fields, "m-alice-1"}, "anonymous": {http.Header{}, ""}} {
		r := caddyhttp.PrepareRequest(httptest.NewRequest(http.MethodGet, "/", nil), caddy.NewReplacer(), httptest.NewRecorder(), nil)
		if _, known := MemberOf(r); known {
			t.Error("somebody is known before the handler was asked")
		}
		r.Header = tc.fields.Clone()
		err := h.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			m, known := MemberOf(r)
			if known != (tc.want != "") || known && m.ID != tc.want {
				t.Errorf("%s is %+v, %t", name, m, known)
			}
			return nil
		}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
