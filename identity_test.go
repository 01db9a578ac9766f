package keycloakcacheauth

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Whatever the text, the field is valid, holds one line, and gives the text
// back when it is percent-decoded.
func FuzzHeaderValue(f *testing.F) {
	for _, seed := range []string{"", "plain", "with space", " ends ", "a,b", "100%", "José 😀", "a\r\nX-Admin: 1", "{env.HOME}", "\x00\x7f\xff", "%41"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		single := fieldValue{single: first}.header()
		checkHeaderValue(t, single)
		if back, err := url.PathUnescape(single); err != nil || back != first {
			t.Errorf("%q became %q and then %q (%v)", first, single, back, err)
		}
		if first == "" || second == "" {
			return
		}
		list := fieldValue{list: []string{first, second}}.header()
		checkHeaderValue(t, list)
		items := strings.Split(list, ",")
		if len(items) != 2 {
			t.Fatalf("%q and %q became %q", first, second, list)
		}
		for i, want := range []string{first, second} {
			if back, err := url.PathUnescape(items[i]); err != nil || back != want {
				t.Errorf("%q became %q and then %q (%v)", want, items[i], back, err)
			}
		}
	})
}

func checkHeaderValue(t *testing.T, value string) {
	t.Helper()
	if !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value {
		t.Errorf("%q cannot be sent as it is", value)
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			t.Errorf("%q is not visible ASCII", value)
		}
	}
}

// A role that holds a comma is not two roles.
func TestListsAreUnambiguous_SP010(t *testing.T) {
	for name, tc := range map[string]struct {
		items           []string
		asHeader, asRaw string
	}{
		"plain items":            {[]string{"editor", "viewer"}, "editor,viewer", "editor,viewer"},
		"an item with a comma":   {[]string{"user,admin"}, "user%2Cadmin", "user%2Cadmin"},
		"an item with a percent": {[]string{"100%"}, "100%25", "100%25"},
		"an item with a space":   {[]string{"team lead"}, "team%20lead", "team lead"},
		"an item with a newline": {[]string{"a\nb"}, "a%0Ab", "a%0Ab"},
		"an item not ASCII":      {[]string{"é"}, "%C3%A9", "é"},
		"no items":               {[]string{}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := fieldValue{list: tc.items}
			if got := v.header(); got != tc.asHeader {
				t.Errorf("as a header %q, want %q", got, tc.asHeader)
			}
			if got := v.text(); got != tc.asRaw {
				t.Errorf("as a placeholder %q, want %q", got, tc.asRaw)
			}
		})
	}
}

// What a database or a token says is data. It is never
// looked through for placeholders, and cannot end a header field.
func TestTextFromOutsideIsData_SP007_SP008_SP009(t *testing.T) {
	t.Setenv("KCA_TEST_SECRET", "secret")
	const template = "{env.KCA_TEST_SECRET}"
	const lines = "a\r\nX-Admin: 1"
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.Headers = []Header{
			{"X-Name", "{http.auth.user.name}"},
			{"X-Plan", "{http.auth.user.member.plan}"},
			{"X-Mixed", "<{http.auth.user.name}|{http.request.header.X-From-Client}>"},
			{"X-Claim", "{http.auth.user.claims.nested.text}"},
			{"X-User-Roles", "{http.auth.user.roles}"},
		}
	}))
	s.source.put(&member.Member{
		Tenant: "t1", KCID: s.users["alice"].ID, ID: template, Active: true,
		Attributes: map[string]member.Value{"plan": member.Text(lines), "roles": member.List(template, lines)},
	})
	fields := bearer(s.token("alice", kctest.Claim("name", template), kctest.Claim("nested", map[string]any{"text": lines})), "t1")
	fields["X-From-Client"] = []string{template}
	got := send(t, h, fields)

	for name, want := range map[string]string{
		"X-Name": template, "X-Plan": "a%0D%0AX-Admin: 1", "X-Mixed": "<" + template + "|" + template + ">",
		"X-Claim": "a%0D%0AX-Admin: 1", "X-User-Roles": template + ",a%0D%0AX-Admin:%201",
	} {
		if value := got.request.Get(name); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
	for name, want := range map[string]string{
		"http.auth.user.name": template, "http.auth.user.member_id": template, "http.auth.user.member.plan": lines,
	} {
		if value := got.placeholder(name); value != want {
			t.Errorf("{%s} is %q, want %q", name, value, want)
		}
		if value := got.repl.ReplaceAll("{"+name+"}", ""); value != want {
			t.Errorf("replaced, {%s} is %q, want %q", name, value, want)
		}
	}
}

func TestConfiguredHeaders(t *testing.T) {
	s := newSite(t)
	t.Run("replace the default set", func(t *testing.T) {
		h, _ := load(t, s.config(func(h *Handler) {
			h.Headers = []Header{{"X-Who", "{http.auth.user.username}@{http.auth.user.tenant}"}, {"X-Empty", "{http.auth.user.member.none}"}}
		}))
		got := send(t, h, bearer(s.token("alice"), "t1"))
		if who := got.request.Get("X-Who"); who != "alice@t1" {
			t.Errorf("X-Who is %q", who)
		}
		if _, sent := got.request["X-Empty"]; sent {
			t.Error("a header without a value was sent")
		}
		for _, name := range defaultOwned {
			if values, sent := got.request[name]; sent {
				t.Errorf("%s: %q was sent", name, values)
			}
		}
	})
	t.Run("another tenant header is sent as well", func(t *testing.T) {
		h, _ := load(t, s.config(func(h *Handler) { h.TenantHeader = "X-Org" }))
		fields := http.Header{"Authorization": {"Bearer " + s.token("alice")}, "X-Org": {"t2"}, "X-Tenant-Id": {"t1"}}
		got := send(t, h, fields)
		if org, id := got.request.Get("X-Org"), got.request.Get("X-Tenant-ID"); org != "t2" || id != "t2" {
			t.Errorf("X-Org is %q and X-Tenant-ID %q, want t2 in both", org, id)
		}
	})
}

// Caddy's `header` directive edits values in place: two requests must not
// share them.
func TestHeaderValuesAreNotShared(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	serve := func() http.Header {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = bearer(s.token("alice"), "t1")
		sendRequest(t, h, r)
		return r.Header
	}
	for range often { // the later ones have headers that the token holds
		for _, values := range serve() {
			values[0] = "edited"
		}
	}
	for name, values := range serve() {
		if len(values) != 1 || values[0] == "edited" {
			t.Errorf("%s is %q", name, values)
		}
		if cap(values) != 1 {
			t.Errorf("appending to %s would write into another field", name)
		}
	}
}

func TestPlaceholderWithoutIdentityHasNoText(t *testing.T) {
	repl := caddy.NewReplacer()
	identityOf(repl)
	for _, name := range []string{identityKey, "http.auth.user.id", "http.auth.user.claims.x", "http.auth.user.member.x", "http.auth.user.zzz"} {
		if text := repl.ReplaceKnown("{"+name+"}", ""); text != "" {
			t.Errorf("{%q} is %q", name, text)
		}
	}
}

func TestAgeIsTheTimeSinceTheMemberWasResolved(t *testing.T) {
	repl := caddy.NewReplacer()
	id := identityOf(repl)
	for name, tc := range map[string]struct {
		loadedAt time.Time
		want     string
	}{
		"some time ago":                  {time.Now().Add(-90*time.Second - 500*time.Millisecond), "90"},
		"by a clock that is a bit ahead": {time.Now().Add(time.Second), "0"},
	} {
		id.member, id.loadedAt = &member.Member{}, tc.loadedAt
		if age, _ := repl.GetString("http.keycloak_cache_auth.age"); age != tc.want {
			t.Errorf("%s: the age is %q, want %q", name, age, tc.want)
		}
	}
}
