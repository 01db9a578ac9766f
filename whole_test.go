package keycloakcacheauth

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// userPlaceholders are all that say something about the user, and some that
// know nothing.
var userPlaceholders = []string{
	"id", "tenant", "member_id", "username", "email", "email_unverified", "name", "roles", "realm_roles", "groups",
	"scope", "member.plan", "member.none", "claims.sub", "claims.azp", "claims.none", "claims.realm_access.roles.0", "nonsense",
}

// Whatever the request is like and whatever the resolver says: what goes on is
// one whole member, or anonymous with nothing but that; and who is refused
// leaves nothing. A placeholder that knows nothing is empty, never a template.
func TestWhatGoesOnIsAWholeMemberOrAnonymous(t *testing.T) {
	s := newSite(t)
	s.source.respond(fickleSource(s.source))
	handlers := []*Handler{}
	for _, edit := range []func(*Handler){
		func(*Handler) {},
		func(h *Handler) { h.Optional = true },
		func(h *Handler) { h.Preflight = preflightPass },
		func(h *Handler) { h.TenantClaim = "organization" },
		func(h *Handler) { h.TenantDefault, h.Optional, h.StripToken = "t1", true, true },
	} {
		// nothing is cached for long, so that the resolver is asked
		h, _ := load(t, s.config(edit, func(h *Handler) { h.TTL, h.NegativeTTL = 1, 1 }))
		handlers = append(handlers, h)
	}
	tokens := s.variousTokens()
	random := rand.New(rand.NewPCG(1, 2))
	const requests = 5000
	members, anonymous, refused := 0, 0, 0
	for range requests {
		r, first, second := s.randomRequest(random, tokens), handlers[random.IntN(len(handlers))], handlers[random.IntN(len(handlers))]
		last := chain{first}
		if random.IntN(4) == 0 {
			last = chain{first, second}
		}
		sent := r.Header.Clone()
		got := sendRequest(t, last, r)
		seen := make(map[string]string)
		for _, name := range defaultOwned {
			if values := got.request[name]; len(values) > 1 {
				t.Fatalf("%v: %s is %q", sent, name, values)
			} else if len(values) == 1 {
				seen[name] = values[0]
			}
		}
		for _, name := range userPlaceholders {
			if text := got.repl.ReplaceAll("{http.auth.user."+name+"}", ""); strings.Contains(text, "{") {
				t.Fatalf("%v: {http.auth.user.%s} is %q", sent, name, text)
			}
		}
		switch status := seen[headerAuthStatus]; {
		case got.status != 0:
			refused++
			s.wantNobody(t, sent, got, "")
			if len(seen) > 0 {
				t.Fatalf("%v: refused, with %v", sent, seen)
			}
		case status == authStatusAnonymous:
			anonymous++
			s.wantNobody(t, sent, got, "true")
			if len(seen) != 1 {
				t.Fatalf("%v: anonymous, with %v", sent, seen)
			}
		default:
			members++
			s.wantWholeMember(t, sent, got, seen)
		}
	}
	t.Logf("%d members, %d anonymous, %d refused", members, anonymous, refused)
	if min(members, anonymous, refused) < requests/20 {
		t.Error("too few of one kind to prove anything")
	}
}

// wantWholeMember compares all that a request carries with what is true of the
// one user whom it names.
func (s *site) wantWholeMember(t *testing.T, sent http.Header, got answered, seen map[string]string) {
	t.Helper()
	for name, user := range s.users {
		if user.ID != seen[headerUserID] {
			continue
		}
		of := "m-" + name + "-of-" + seen[headerTenantID]
		want := map[string]string{
			headerUserID: user.ID, headerUserName: name, headerUserEmail: user.Email, headerUserRoles: "editor," + of,
			headerTenantID: seen[headerTenantID], headerMemberID: of, headerAuthStatus: authStatusMember,
		}
		if name == "carol" || seen[headerTenantID] == "" || !maps.Equal(seen, want) {
			t.Fatalf("%v: went on with %v, want %v", sent, seen, want)
		}
		for placeholder, want := range map[string]string{
			"id": user.ID, "tenant": seen[headerTenantID], "member_id": of, "username": name, "email": user.Email,
			"roles": "editor," + of, "member.plan": of, "claims.sub": user.ID, "anonymous": "false",
		} {
			if value := got.placeholder("http.auth.user." + placeholder); value != want {
				t.Fatalf("%v: {http.auth.user.%s} is %q, want %q", sent, placeholder, value, want)
			}
		}
		return
	}
	t.Fatalf("%v: went on with %v, who is nobody", sent, seen)
}

// wantNobody says that no placeholder knows anybody.
func (s *site) wantNobody(t *testing.T, sent http.Header, got answered, anonymous string) {
	t.Helper()
	for _, name := range userPlaceholders {
		if value, known := got.repl.GetString("http.auth.user." + name); value != "" || !known {
			t.Fatalf("%v: {http.auth.user.%s} is %q, known %t", sent, name, value, known)
		}
	}
	if value := got.placeholder("http.auth.user.anonymous"); value != anonymous {
		t.Fatalf("%v: {http.auth.user.anonymous} is %q, want %q", sent, value, anonymous)
	}
}

// fickleSource knows alice and bob in all tenants, carol as inactive and dave in
// none; and now and then fails, or says something else.
func fickleSource(s *fakeSource) func(context.Context, member.Query) (*member.Member, error) {
	return func(_ context.Context, q member.Query) (*member.Member, error) {
		s.mu.Lock()
		var name string
		for key, m := range s.members {
			if key[1] == q.KCID {
				name, _, _ = strings.Cut(strings.TrimPrefix(m.ID, "m-"), "-")
			}
		}
		s.mu.Unlock()
		if name == "" {
			return nil, member.ErrUnknown
		}
		of := "m-" + name + "-of-" + q.Tenant
		m := &member.Member{
			KCID: q.KCID, Tenant: q.Tenant, Active: name != "carol", ID: of,
			Attributes: map[string]member.Value{"roles": member.List("editor", of), "plan": member.Text(of)},
		}
		switch rand.IntN(20) {
		case 0:
			return nil, errors.New("the source is in trouble")
		case 1:
			m.KCID = strings.ToUpper(m.KCID)
		case 2:
			m.Tenant = "another"
		case 3:
			m.Issuer = "https://another.example"
		case 4:
			return nil, nil //nolint:nilnil // a resolver may have this fault
		}
		return m, nil
	}
}

// variousTokens are good ones of all users, and bad ones.
func (s *site) variousTokens() []string {
	tokens := []string{"", "x", "a.b.c"}
	for name := range s.users {
		good := s.token(name, kctest.Claim("organization", []string{"t1", "t2"}))
		tokens = append(tokens, slices.Repeat([]string{good}, 8)...)
		tokens = append(tokens, s.token(name), good+"x", s.token(name, kctest.Claim("aud", "other")))
	}
	return tokens
}

// randomRequest makes a request of parts that are right or wrong by chance.
func (s *site) randomRequest(random *rand.Rand, tokens []string) *http.Request {
	oneOf := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	r := httptest.NewRequest(oneOf(http.MethodGet, http.MethodPost, http.MethodOptions), "/", nil)
	scheme := oneOf(append(slices.Repeat([]string{"Bearer "}, 20), "bearer ", "Basic ", "DPoP ", "")...)
	switch random.IntN(10) {
	case 0:
	case 1:
		r.Header["Authorization"] = []string{scheme + oneOf(tokens...), scheme + oneOf(tokens...)}
	default:
		r.Header["Authorization"] = []string{scheme + oneOf(tokens...)}
	}
	switch random.IntN(8) {
	case 0:
	case 1:
		r.Header["X-Tenant-Id"] = []string{"t1", "t2"}
	default:
		r.Header["X-Tenant-Id"] = []string{oneOf("t1", "t1", "t1", "t2", "t2", "t2", "t2", "t3", "", "t:1", "{env.HOME}")}
	}
	if random.IntN(3) == 0 {
		r.Header["Origin"], r.Header["Access-Control-Request-Method"] = []string{"https://app.example"}, []string{"GET"}
	}
	for _, name := range slices.DeleteFunc(slices.Clone(defaultOwned), func(name string) bool { return name == headerTenantID }) {
		if random.IntN(4) == 0 {
			r.Header[oneOf(name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."))] = []string{"forged"}
		}
	}
	return r
}
