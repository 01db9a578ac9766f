package keycloakcacheauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// introspectionEndpoint answers as Keycloak's does, with what it is told.
type introspectionEndpoint struct {
	*httptest.Server

	mu      sync.Mutex
	answers map[string]any // by token; others are not active
	status  int            // instead of an answer, if set
	asked   int
}

const introspectionSecret = "gateway-s3cret"

func newIntrospectionEndpoint(tb testing.TB) *introspectionEndpoint {
	tb.Helper()
	e := &introspectionEndpoint{answers: make(map[string]any)}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	tb.Cleanup(e.Close)
	return e
}

func (e *introspectionEndpoint) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	client, secret, _ := r.BasicAuth()
	switch {
	case e.status != 0:
		w.WriteHeader(e.status)
		_, _ = io.WriteString(w, secret+" "+r.PostFormValue("token")) // as verbose servers do
		return
	case client != "gateway" || secret != introspectionSecret:
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answer, known := e.answers[r.PostFormValue("token")]
	if !known {
		answer = map[string]any{"active": false}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (e *introspectionEndpoint) know(token string, answer any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers[token] = answer
}

func (e *introspectionEndpoint) fail(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = status
}

func (e *introspectionEndpoint) calls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// answer returns what Keycloak says of an active access token of a user, with
// other values for some of its members.
func (s *site) introspected(user string, changes map[string]any) map[string]any {
	answer := map[string]any{
		"active": true, "iss": s.realm.Issuer(), "sub": s.users[user].ID, "typ": "Bearer", "token_type": "Bearer",
		"aud": []string{audience, "account"}, "azp": "app", "client_id": "app", "username": user, "preferred_username": user,
		"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(), "jti": "onlt:1", "sid": "session-1",
	}
	maps.Copy(answer, changes)
	return answer
}

func (e *introspectionEndpoint) use(h *Handler) {
	h.Issuers[0].Introspect = &Introspect{ClientID: "gateway", ClientSecret: introspectionSecret, URL: e.URL}
}

// lightweight returns a lightweight access token of alice's.
func (s *site) lightweight(options ...kctest.Option) string {
	return s.token("alice", append([]kctest.Option{
		kctest.Without("sub", "aud", "preferred_username", "realm_access", "resource_access", "email"),
		kctest.Claim("jti", "onlt:1"), kctest.Claim("sid", "session-1"),
	}, options...)...)
}

func TestIntrospection(t *testing.T) {
	s := newSite(t)
	endpoint := newIntrospectionEndpoint(t)
	h, _ := load(t, s.config(endpoint.use))
	without, _ := load(t, s.config())
	claimsOf := func(token string) map[string]any {
		var claims map[string]any
		payload := strings.Split(token, ".")[1]
		if err := json.Unmarshal(decode64(t, payload), &claims); err != nil {
			t.Fatal(err)
		}
		return claims
	}
	light := s.lightweight()
	times := map[string]any{"iat": claimsOf(light)["iat"], "exp": claimsOf(light)["exp"]}
	endpoint.know(light, s.introspected("alice", times))
	const opaque = "opaque-token-of-alice"
	endpoint.know(opaque, s.introspected("alice", nil))
	endpoint.know("opaque-of-bob", s.introspected("bob", nil))
	idToken := s.realm.IDToken(s.users["alice"])
	endpoint.know(idToken, s.introspected("alice", map[string]any{"typ": "ID"}))
	for token, changes := range map[string]map[string]any{
		"an-id-token":      {"typ": "ID"},
		"a-refresh-token":  {"typ": "Refresh"},
		"an-offline-token": {"typ": "Offline"},
		"another-realms":   {"iss": "https://evil.example/realms/main"},
		"of-no-realm":      {"iss": nil},
		"for-another":      {"aud": "other"},
		"over":             {"exp": time.Now().Add(-time.Minute).Unix()},
		"without-sub":      {"sub": nil},
		"bound":            {"cnf": map[string]any{"jkt": "x"}},
	} {
		endpoint.know(token, s.introspected("alice", changes))
	}

	for name, tc := range map[string]struct {
		handler *Handler
		token   string
		outcome outcome
	}{
		"a lightweight token":                          {h, light, outcomeMember},
		"a lightweight token where nobody introspects": {without, light, "missing_claim"},
		"an opaque token":                              {h, opaque, outcomeMember},
		"an opaque token where nobody introspects":     {without, opaque, "token_malformed"},
		"an opaque token of a member of others":        {h, "opaque-of-bob", outcomeMember},
		"KC-017 a token that is not active":            {h, "revoked", "token_inactive"},
		"KC-019 an ID token, which is active":          {h, idToken, "wrong_token_type"},
		"KC-019 an opaque ID token, which is active":   {h, "an-id-token", "wrong_token_type"},
		"KC-019 a refresh token, which is active":      {h, "a-refresh-token", "wrong_token_type"},
		"KC-019 an offline token, which is active":     {h, "an-offline-token", "wrong_token_type"},
		"another realm's":                              {h, "another-realms", "issuer_mismatch"},
		"one that names no realm":                      {h, "of-no-realm", "issuer_mismatch"},
		"one for another service":                      {h, "for-another", "audience_mismatch"},
		"one that is over":                             {h, "over", "expired"},
		"one without a user":                           {h, "without-sub", "missing_claim"},
		"one that is bound to a key":                   {h, "bound", "cnf_unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, when := range []string{"asked", "remembered"} {
				got := send(t, tc.handler, bearer(tc.token, "t1"))
				if reasonOf(got) != string(tc.outcome) {
					t.Errorf("%s: decided as %s, want %s", when, reasonOf(got), tc.outcome)
				}
			}
		})
	}
	t.Run("a member's identity comes from the answer", func(t *testing.T) {
		calls := endpoint.calls()
		got := send(t, h, bearer(light, "t1"))
		if got.placeholder("http.auth.user.id") != s.users["alice"].ID || got.placeholder("http.auth.user.username") != "alice" {
			t.Errorf("user %q, name %q", got.placeholder("http.auth.user.id"), got.placeholder("http.auth.user.username"))
		}
		if endpoint.calls() != calls {
			t.Error("a remembered answer was asked for again")
		}
	})
}

// KC-017: Keycloak that cannot be asked is not a bad token.
func TestIntrospectionDown(t *testing.T) {
	s := newSite(t)
	endpoint := newIntrospectionEndpoint(t)
	h, _ := load(t, s.config(endpoint.use))
	endpoint.know("known", s.introspected("alice", nil))
	if got := send(t, h, bearer("known", "t1")); got.status != 0 {
		t.Fatalf("status %d, %s", got.status, reasonOf(got))
	}
	endpoint.fail(http.StatusServiceUnavailable)
	t.Run("KC-017 a token not asked about before", func(t *testing.T) {
		got := send(t, h, bearer("unknown", "t1"))
		if got.status != 503 || got.response.Get("Retry-After") == "" || reasonOf(got) != string(outcomeIntrospection) {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
	t.Run("KC-017 one that was", func(t *testing.T) {
		if got := send(t, h, bearer("known", "t1")); got.status != 0 {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
	t.Run("ordinary tokens", func(t *testing.T) {
		if got := send(t, h, bearer(s.token("alice"), "t1")); got.status != 0 {
			t.Errorf("status %d, %s", got.status, reasonOf(got))
		}
	})
}

// introspectionLines returns the lines with which a handler tells that tokens cannot
// be introspected, and that they can again.
func introspectionLines(logs *observer.ObservedLogs) (failed, again int) {
	failed = logs.FilterMessageSnippet("cannot be introspected").FilterLevelExact(zapcore.ErrorLevel).Len()
	again = logs.FilterMessageSnippet("introspected again").FilterLevelExact(zapcore.InfoLevel).Len()
	return failed, again
}

// Neither the client's secret nor a token is in any log line, whatever goes
// wrong.
func TestIntrospectionKeepsSecrets(t *testing.T) {
	s := newSite(t)
	const opaque = "an-opaque-token-that-nobody-may-read"
	light := s.lightweight()
	for _, status := range []int{302, 400, 401, 403, 404, 500, 503} {
		for kind, raw := range map[string]string{"an opaque token": opaque, "a lightweight token": light} {
			t.Run(fmt.Sprint(kind, " and status ", status), func(t *testing.T) {
				endpoint := newIntrospectionEndpoint(t)
				h, logs := load(t, s.config(endpoint.use))
				h.introspects.logger = h.logger
				endpoint.fail(status)
				send(t, h, bearer(raw, "t1"))
				if failed, _ := introspectionLines(logs); failed != 1 {
					t.Errorf("%d lines tell of the failure, want 1: %v", failed, logs.All())
				}
				for _, entry := range logs.All() {
					line, err := json.Marshal(entry.ContextMap())
					if err != nil {
						t.Fatal(err)
					}
					for _, secret := range []string{introspectionSecret, raw} {
						if strings.Contains(entry.Message+string(line), secret) {
							t.Errorf("a line holds %q: %s %s", secret, entry.Message, line)
						}
					}
				}
			})
		}
	}
}

// What a shared client sees arrives at the configuration whose request made it
// ask: each question in the metric, and each outage as one line.
func TestIntrospectionIsObserved(t *testing.T) {
	s := newSite(t)
	endpoint := newIntrospectionEndpoint(t)
	h, logs := load(t, s.config(endpoint.use))
	h.introspects.logger = h.logger
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(h.metrics.introspect)
	wantCounted := func(when string, want map[string]uint64) {
		t.Helper()
		families, err := reg.Gather()
		if err != nil || len(families) != 1 {
			t.Fatalf("%s: %d metrics, %v", when, len(families), err)
		}
		if name := families[0].GetName(); name != "caddy_keycloak_cache_auth_introspection_duration_seconds" {
			t.Errorf("the metric is %s", name)
		}
		got := make(map[string]uint64)
		for _, series := range families[0].GetMetric() {
			got[series.GetLabel()[0].GetValue()] = series.GetHistogram().GetSampleCount()
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: counted %v, want %v", when, got, want)
		}
	}
	wantLines := func(when string, failed, again int) {
		t.Helper()
		if gotFailed, gotAgain := introspectionLines(logs); gotFailed != failed || gotAgain != again {
			t.Errorf("%s: %d error lines and %d of recovery, want %d and %d", when, gotFailed, gotAgain, failed, again)
		}
	}

	endpoint.know("known", s.introspected("alice", nil))
	for range 3 { // of which one asks
		send(t, h, bearer("known", "t1"))
		send(t, h, bearer("invented", "t1"))
	}
	wantCounted("while it works", map[string]uint64{"active": 1, "inactive": 1})
	wantLines("while it works", 0, 0)

	made := 0
	newLightweight := func() string {
		made++
		return s.lightweight(kctest.Claim("jti", fmt.Sprint("onlt:new", made)))
	}
	for outage := 1; outage <= 2; outage++ {
		when := fmt.Sprint("outage ", outage)
		endpoint.fail(http.StatusServiceUnavailable)
		before := endpoint.calls()
		for i := range 5 { // the first of each kind asks; then there is a pause
			send(t, h, bearer(newLightweight(), "t1"))
			send(t, h, bearer(fmt.Sprintf("opaque-%d-%d", outage, i), "t1"))
		}
		if asked := endpoint.calls() - before; asked < 2 {
			t.Errorf("%s: %d questions", when, asked)
		}
		wantLines(when, outage, outage-1)
		endpoint.fail(0)
		eventually(t, "an answer again", func() bool {
			return reasonOf(send(t, h, bearer(newLightweight(), "t1"))) == "token_inactive"
		})
		wantLines(when+", over", outage, outage)
	}
	failed := uint64(endpoint.calls()) - 4 // all others were answered
	wantCounted("at the end", map[string]uint64{"active": 1, "inactive": 3, "error": failed})
}

func decode64(tb testing.TB, text string) []byte {
	tb.Helper()
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return decoded
}
