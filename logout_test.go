package keycloakcacheauth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

const logoutPath = "/oidc/backchannel-logout"

func withLogout(h *Handler) { h.LogoutPath, h.LogoutClients = logoutPath, []string{"app"} }

// postForm posts a form to the logout path.
func postForm(tb testing.TB, h *Handler, form string) answered {
	tb.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://site.example"+logoutPath, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return sendLogout(tb, h, r)
}

func postLogout(tb testing.TB, h *Handler, token string) answered {
	tb.Helper()
	return postForm(tb, h, url.Values{"logout_token": {token}}.Encode())
}

// sendLogout is sendRequest for a path that has no next handler. A status of 0
// is then a good answer.
func sendLogout(tb testing.TB, h *Handler, r *http.Request) answered {
	tb.Helper()
	return sendRequest(tb, ownPathOf{h}, r)
}

// ownPathOf calls the next handler for what the handler itself answers well, as
// sendRequest expects.
type ownPathOf struct{ *Handler }

func (o ownPathOf) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	err := o.Handler.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("the next handler was called")
	}))
	if err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

func TestBackchannelLogout(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(withLogout))
	elsewhere, _ := load(t, s.config()) // with the same store
	alice := s.users["alice"]
	now := time.Now()
	session := func(sid string, at time.Time) string {
		return s.token("alice", kctest.Claim("sid", sid), kctest.IssuedAt(at))
	}
	mustPass := func(what, token, tenant string) {
		t.Helper()
		for _, handler := range []*Handler{h, elsewhere} {
			if got := send(t, handler, bearer(token, tenant)); got.status != 0 {
				t.Errorf("%s: status %d, %s", what, got.status, reasonOf(got))
			}
		}
	}
	mustBeOut := func(what, token string) {
		t.Helper()
		for _, handler := range []*Handler{h, elsewhere} {
			if got := send(t, handler, bearer(token, "t1")); got.status != 401 || reasonOf(got) != string(outcomeLoggedOut) {
				t.Errorf("%s: status %d, %s", what, got.status, reasonOf(got))
			}
		}
	}

	before := session("session-1", now.Add(-time.Minute))
	otherSession := session("session-2", now.Add(-time.Minute))
	bob := s.token("bob")
	mustPass("before the logout", before, "t1")
	mustPass("before the logout", before, "t2")
	mustPass("bob", bob, "t1")

	t.Run("BL-001 a session", func(t *testing.T) {
		calls := s.source.called()
		got := postLogout(t, h, s.realm.LogoutToken(alice, "session-1"))
		if got.status != 0 || got.response.Get("Cache-Control") != "no-store" || reasonOf(got) != string(outcomeLogout) {
			t.Fatalf("status %d, %s, Cache-Control %q", got.status, reasonOf(got), got.response.Get("Cache-Control"))
		}
		mustBeOut("the session's token", before)
		mustBeOut("a later token of the session", session("session-1", now))
		mustPass("another session of hers", otherSession, "t1")
		if s.source.called() == calls {
			t.Error("her cached members were not flushed")
		}
		t.Run("a new login in the same second", func(t *testing.T) {
			mustPass("it", session("session-3", time.Now()), "t1")
		})
	})
	t.Run("BL-018 nobody else", func(t *testing.T) {
		calls := s.source.called()
		mustPass("bob", bob, "t1")
		if s.source.called() != calls {
			t.Error("bob's cached member was flushed")
		}
	})
	t.Run("BL-011 a replay flushes nothing", func(t *testing.T) {
		again := s.realm.LogoutToken(alice, "session-4")
		if got := postLogout(t, h, again); got.status != 0 {
			t.Fatalf("status %d", got.status)
		}
		mustPass("another session", otherSession, "t1")
		calls := s.source.called()
		for range 3 {
			if got := postLogout(t, h, again); got.status != 0 {
				t.Fatalf("status %d", got.status)
			}
			mustPass("another session", otherSession, "t1")
		}
		if s.source.called() != calls {
			t.Error("the replay made her members be resolved anew")
		}
	})
	t.Run("a user without a session", func(t *testing.T) {
		at := time.Now().Add(-2 * time.Second)
		got := postLogout(t, h, s.realm.LogoutToken(alice, "", kctest.Without("sid"), kctest.Claim("iat", at.Unix())))
		if got.status != 0 {
			t.Fatalf("status %d, %s", got.status, reasonOf(got))
		}
		mustBeOut("a token from before", otherSession)
		mustBeOut("a token of that very second", session("session-5", at))
		mustPass("a token from after", session("session-6", time.Now()), "t1")
		mustPass("bob", bob, "t1")
	})
	t.Run("BL-014 parameters that nobody knows", func(t *testing.T) {
		form := url.Values{"logout_token": {s.realm.LogoutToken(alice, "session-7")}, "x": {"1", "2"}}
		if got := postForm(t, h, form.Encode()); got.status != 0 {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
	t.Run("BL-015 another algorithm than that of access tokens", func(t *testing.T) {
		if got := postLogout(t, h, s.realm.LogoutToken(alice, "session-8", kctest.Algorithm("ES256"))); got.status != 0 {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
}

// What is no good logout token changes nothing, and its sender learns nothing.
func TestBadLogouts(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(withLogout))
	alice := s.users["alice"]
	const session = "session-1"
	token := s.token("alice", kctest.Claim("sid", session))
	good := s.realm.LogoutToken(alice, session)
	form := func(token string) string { return url.Values{"logout_token": {token}}.Encode() }

	type request struct {
		method, kind, body string
	}
	post := func(body string) request {
		return request{http.MethodPost, "application/x-www-form-urlencoded", body}
	}
	for name, tc := range map[string]struct {
		request request
		status  int
		outcome outcome
	}{
		"BL-003 an access token":             {post(form(token)), 400, outcomeLogoutRefused},
		"BL-003 an ID token":                 {post(form(s.realm.IDToken(alice))), 400, outcomeLogoutRefused},
		"BL-007 another client's":            {post(form(s.realm.LogoutToken(alice, session, kctest.Claim("aud", "other")))), 400, outcomeLogoutRefused},
		"BL-008 another realm's":             {post(form(s.server.Realm("evil").LogoutToken(alice, session))), 400, outcomeLogoutRefused},
		"BL-009 neither user nor session":    {post(form(s.realm.LogoutToken(alice, session, kctest.Without("sub", "sid")))), 400, outcomeLogoutRefused},
		"BL-013 GET":                         {request{http.MethodGet, "", ""}, 405, outcomeMethodNotAllowed},
		"BL-013 JSON":                        {request{http.MethodPost, "application/json", `{"logout_token":"` + good + `"}`}, 400, outcomeLogoutRefused},
		"BL-013 no content type":             {request{http.MethodPost, "", form(good)}, 400, outcomeLogoutRefused},
		"BL-013 two tokens":                  {post(form(good) + "&" + form(good)), 400, outcomeLogoutRefused},
		"BL-013 no token":                    {post("x=1"), 400, outcomeLogoutRefused},
		"BL-013 an empty token":              {post("logout_token="), 400, outcomeLogoutRefused},
		"BL-013 a form that is none":         {post("logout_token=%zz"), 400, outcomeLogoutRefused},
		"BL-013 ten megabytes":               {post("logout_token=" + strings.Repeat("a", 10<<20)), 413, outcomeLogoutTooLarge},
		"in the query instead of the form":   {request{http.MethodPost, "application/x-www-form-urlencoded", ""}, 400, outcomeLogoutRefused},
		"BL-016 rubbish of a token's length": {post("logout_token=" + strings.Repeat("a.b-", 250)), 400, outcomeLogoutRefused},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tc.request.method, "http://site.example"+logoutPath+"?"+form(good), strings.NewReader(tc.request.body))
			if tc.request.kind != "" {
				r.Header.Set("Content-Type", tc.request.kind)
			}
			got := sendLogout(t, h, r)
			if got.status != tc.status || reasonOf(got) != string(tc.outcome) {
				t.Errorf("status %d, %s; want %d, %s", got.status, reasonOf(got), tc.status, tc.outcome)
			}
			if tc.status == 400 && !strings.HasSuffix(got.err.Error(), "invalid_request") {
				t.Errorf("the sender is told %q", got.err)
			}
			if got := got.response.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
			if got := send(t, h, bearer(token, "t1")); got.status != 0 {
				t.Errorf("the session was ended: %s", reasonOf(got))
			}
		})
	}
	if got := postLogout(t, h, good); got.status != 0 {
		t.Fatalf("the good one: status %d, %s", got.status, reasonOf(got))
	}
	if got := send(t, h, bearer(token, "t1")); got.status != 401 {
		t.Error("the good one had no effect: the test proves nothing")
	}
}

// BL-016: garbage costs Keycloak nothing, and us no time.
func TestLogoutFloodCostsNoFetches(t *testing.T) {
	t.Run("BL-016", func(t *testing.T) {
		s := newSite(t)
		h, _ := load(t, s.config(withLogout))
		if got := send(t, h, bearer(s.token("alice"), "t1")); got.status != 0 {
			t.Fatalf("status %d", got.status)
		}
		before := s.realm.Requests(kctest.Certs)
		stranger := kctest.NewKey("ES256")
		for i := range 200 {
			forged := s.realm.LogoutToken(s.users["alice"], "s", kctest.SignedBy(stranger.WithID(fmt.Sprint("kid-", i))))
			if got := postLogout(t, h, forged); got.status != 400 {
				t.Fatalf("status %d, %s", got.status, reasonOf(got))
			}
		}
		if fetches := s.realm.Requests(kctest.Certs) - before; fetches > 1 {
			t.Errorf("200 forged logouts made %d fetches", fetches)
		}
	})
}

func TestLogoutWhileKeysCannotBeHad(t *testing.T) {
	s := newSite(t)
	s.realm.Break(kctest.Status(500))
	h, _ := load(t, s.config(withLogout))
	got := postLogout(t, h, s.realm.LogoutToken(s.users["alice"], "session-1"))
	if got.status != 503 || got.response.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q; Keycloak may well try again", got.status, got.response.Get("Retry-After"))
	}
}

// The audiences stand in for clients that are not given.
func TestLogoutClientsDefaultToAudiences(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.LogoutPath = logoutPath }))
	for client, status := range map[string]int{audience: 0, "app": 400} {
		if got := postLogout(t, h, s.realm.LogoutToken(s.users["alice"], "s", kctest.Claim("aud", client))); got.status != status {
			t.Errorf("aud %s: status %d, want %d", client, got.status, status)
		}
	}
}

// A path of ours is answered with the client's identity headers gone: error
// routes may send the request on.
func TestOwnPathsAreStripped(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(withLogout))
	r := httptest.NewRequest(http.MethodGet, "http://site.example"+logoutPath, nil)
	r.Header.Set("X-User-ID", "forged")
	sendLogout(t, h, r)
	// sendLogout prepared a copy, which shares the map of fields
	if got := r.Header.Get("X-User-ID"); got != "" {
		t.Errorf("X-User-ID %q is still there", got)
	}
}

func FuzzLogoutForm(f *testing.F) {
	for _, seed := range []string{"", "logout_token=a.b.c", "logout_token=a&logout_token=b", "x=1&logout_token=%41", "logout_token=%zz", ";logout_token=a"} {
		f.Add(seed, "application/x-www-form-urlencoded")
	}
	f.Add("logout_token=a", "application/x-www-form-urlencoded; charset=utf-8")
	f.Fuzz(func(t *testing.T, body, kind string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		token, refused, err := logoutToken(r)
		if (token == "") != (refused != "") || refused == "" && err != nil {
			t.Errorf("%q gave token %q, %q and %v: one of them is wanted", body, token, refused, err)
		}
		if values, _ := url.ParseQuery(body); refused == "" && (len(values["logout_token"]) != 1 || values.Get("logout_token") != token) {
			t.Errorf("%q gave %q", body, token)
		}
	})
}
