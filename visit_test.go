package keycloakcacheauth

import (
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// often is as many requests as it takes until a token's visit is held, and more.
const often = 4

// visitOf returns what the token of the last admitted request holds.
func visitOf(t *testing.T, h *Handler, raw string) *visit {
	t.Helper()
	verified, err := h.tokens.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := verified.Token.Attached().(*visit)
	return held
}

func TestVisitsSayTheSameAsTheFirstOne(t *testing.T) {
	s := newSite(t)
	for name, edit := range map[string]func(*Handler){
		"the default headers": func(*Handler) {},
		"headers of all sorts": func(h *Handler) {
			h.Headers = []Header{
				{"X-Who", "{http.auth.user.username}@{http.auth.user.tenant}"},
				{"X-Fixed", "text"},
				{"X-None", "{http.auth.user.member.none}"},
				{"X-Claim", "{http.auth.user.claims.azp}"},
				{"X-Anonymous", "{http.auth.user.anonymous}"},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(edit))
			raw := s.token("alice")
			first := send(t, h, bearer(raw, "t1")).request
			for range often {
				if again := send(t, h, bearer(raw, "t1")).request; !maps.EqualFunc(first, again, slices.Equal) {
					t.Fatalf("the headers were %v and are %v", first, again)
				}
			}
			if visitOf(t, h, raw) == nil {
				t.Error("the visit is not held, so this shows nothing")
			}
		})
	}
}

func TestVisitsFollowTheMember(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	raw := s.token("alice")
	for round := range often {
		role := "role-" + strconv.Itoa(round)
		s.source.put(&member.Member{
			Tenant: "t1", KCID: s.users["alice"].ID, ID: "m-alice-1", Active: true,
			Attributes: map[string]member.Value{"roles": member.List(role)},
		})
		if _, err := h.members.stores.common.Flush(t.Context(), store.Scope{All: true}, nil); err != nil {
			t.Fatal(err)
		}
		for range often {
			if got := send(t, h, bearer(raw, "t1")).request.Get("X-User-Roles"); got != role {
				t.Fatalf("the roles are %q, want %q", got, role)
			}
		}
		if held := visitOf(t, h, raw); held == nil || held.member.Value().Attribute("roles").Strings()[0] != role {
			t.Error("the visit is not that of the member")
		}
	}
}

func TestVisitsKeepTenantsAndHandlersApart(t *testing.T) {
	s := newSite(t)
	one, _ := load(t, s.config())
	other, _ := load(t, s.config(func(h *Handler) { h.Headers = []Header{{"X-Other", "{http.auth.user.member_id}"}} }))
	raw := s.token("alice")
	resolved := 0
	for round := range often {
		for tenant, id := range map[string]string{"t1": "m-alice-1", "t2": "m-alice-2"} {
			got := send(t, one, bearer(raw, tenant)).request
			if got.Get("X-Member-ID") != id || got.Get("X-Tenant-ID") != tenant {
				t.Errorf("in %s it is member %s of %s", tenant, got.Get("X-Member-ID"), got.Get("X-Tenant-ID"))
			}
			got = send(t, other, bearer(raw, tenant)).request
			if got.Get("X-Other") != id || got.Get("X-Member-ID") != "" {
				t.Errorf("at the other handler it is %s, and %s", got.Get("X-Other"), got.Get("X-Member-ID"))
			}
		}
		if round == 0 {
			resolved = s.source.called()
		} else if s.source.called() != resolved { // another tenant's key leads to nobody who fits
			t.Errorf("members that were known were resolved again in round %d", round)
		}
	}
}

func TestVisitsEndWithTheirHandler(t *testing.T) {
	s := newSite(t)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	before := s.config()
	if err := before.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	after, _ := load(t, s.config(func(h *Handler) { h.Headers = []Header{{"X-Other", "{http.auth.user.id}"}} }))
	raw := s.token("alice")
	visit := func(h *Handler) {
		for range often {
			send(t, h, bearer(raw, "t1"))
		}
	}
	visit(&before)
	visit(after)
	if held := visitOf(t, after, raw); held == nil || held.by != before.visits {
		t.Fatal("the first handler's visit is not held")
	}
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	visit(after)
	if held := visitOf(t, after, raw); held == nil || held.by != after.visits {
		t.Error("the visit to a handler that is gone is still held")
	}
}

// What tells of a request is made for each, and what is large is not kept.
func TestVisitsThatAreNotHeld(t *testing.T) {
	s := newSite(t)
	s.source.put(&member.Member{
		Tenant: "t1", KCID: s.users["bob"].ID, ID: "m-bob", Active: true,
		Attributes: map[string]member.Value{"roles": member.Text(strings.Repeat("r", maxVisitSize))},
	})
	many := make([]Header, 0, maxVisitFields+1)
	for i := range maxVisitFields + 1 {
		many = append(many, Header{"X-Header-" + strconv.Itoa(i), "1"})
	}
	for name, tc := range map[string]struct {
		headers []Header
		user    string
	}{
		"where the member was found":    {[]Header{{"X-Cache", "{http.keycloak_cache_auth.cache}"}}, "alice"},
		"how old the member is":         {[]Header{{"X-Age", "{http.keycloak_cache_auth.age}"}}, "alice"},
		"what the client says":          {[]Header{{"X-From", "{http.auth.user.id} {http.request.header.X-From-Client}"}}, "alice"},
		"more text than is accounted":   {nil, "bob"},
		"more fields than is accounted": {many, "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(func(h *Handler) { h.Headers = tc.headers }))
			raw := s.token(tc.user)
			for i := range often {
				fields := bearer(raw, "t1")
				fields["X-From-Client"] = []string{strconv.Itoa(i)}
				if got := send(t, h, fields).request; tc.headers != nil && strings.HasPrefix(tc.headers[0].Name, "X-From") &&
					!strings.HasSuffix(got.Get("X-From"), strconv.Itoa(i)) {
					t.Errorf("X-From is %q in request %d", got.Get("X-From"), i)
				}
			}
			if visitOf(t, h, raw) != nil {
				t.Error("it is held")
			}
		})
	}
}

// What the cache gives back, a token that is remembered for hours must not keep.
func TestVisitsKeepNoMemberAlive(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	raw := s.token("alice")
	for range often {
		send(t, h, bearer(raw, "t1"))
	}
	held := visitOf(t, h, raw)
	if held == nil || held.member.Value() == nil {
		t.Fatal("the visit is not held, so this shows nothing")
	}
	if err := h.members.stores.common.Delete(t.Context(), held.key, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the member", func() bool {
		runtime.GC()
		return held.member.Value() == nil
	})
	if got := send(t, h, bearer(raw, "t1")).request.Get("X-Member-ID"); got != "m-alice-1" {
		t.Errorf("then it is %q", got)
	}
}

// A member found otherwise than in memory may be another the next time.
func TestVisitsOfUncachedMembersAreNotHeld(t *testing.T) {
	s := newSite(t)
	s.source.uncached = true
	h, _ := load(t, s.config())
	raw := s.token("alice")
	for range often {
		send(t, h, bearer(raw, "t1"))
	}
	if visitOf(t, h, raw) != nil {
		t.Error("it is held")
	}
}
