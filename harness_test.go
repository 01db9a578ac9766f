package keycloakcacheauth

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const audience = "shop"

// site is a realm, its users and members, and a handler in front of nothing.
//
//	alice is an active member of t1 and t2, bob of t1; carol is an inactive
//	one of t1; dave is a member of no tenant.
type site struct {
	server *kctest.Server
	realm  *kctest.Realm
	users  map[string]kctest.User
	source *fakeSource
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	server := kctest.Start(tb)
	s := &site{server: server, realm: server.Realm("acme"), users: make(map[string]kctest.User)}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		s.users[name] = s.realm.AddUser(kctest.User{
			Username: name, Password: "pw", Email: name + "@example.com", EmailVerified: true,
			GivenName: name, FamilyName: "Example", RealmRoles: []string{"staff"},
		})
	}
	s.source = newFakeSource(tb)
	for _, m := range []struct {
		tenant, user, id string
		active           bool
	}{
		{"t1", "alice", "m-alice-1", true},
		{"t2", "alice", "m-alice-2", true},
		{"t1", "bob", "m-bob", true},
		{"t1", "carol", "m-carol", false},
	} {
		s.source.put(&member.Member{
			Tenant: m.tenant, KCID: s.users[m.user].ID, ID: m.id, Active: m.active,
			Attributes: map[string]member.Value{
				"roles": member.List("editor", "viewer"),
				"plan":  member.Text("gold"),
			},
		})
	}
	return s
}

// token returns an access token of a user for our audience.
func (s *site) token(user string, options ...kctest.Option) string {
	return s.realm.AccessToken(s.users[user], append([]kctest.Option{kctest.Claim("aud", []string{audience, "account"})}, options...)...)
}

// config returns the smallest working configuration, changed by the edits.
func (s *site) config(edits ...func(*Handler)) Handler {
	h := Handler{
		Issuers:      []*Issuer{{URL: s.realm.Issuer()}},
		Audiences:    []string{audience},
		ResolversRaw: []json.RawMessage{s.source.raw()},
	}
	for _, edit := range edits {
		edit(&h)
	}
	return h
}

// load brings a handler up as Caddy does: strict decoding, Provision, and
// Cleanup when the test ends. What it logs is recorded.
func load(tb testing.TB, h Handler) (*Handler, *observer.ObservedLogs) {
	tb.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	tb.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID("http.handlers.keycloak_cache_auth", caddyconfig.JSON(h, nil))
	if err != nil {
		tb.Fatalf("loading the handler: %v", err)
	}
	loaded := mod.(*Handler)
	core, logs := observer.New(zapcore.DebugLevel)
	loaded.logger = zap.New(core)
	if loaded.members != nil {
		loaded.members.logger = loaded.logger
	}
	return loaded, logs
}

// answered is what came of one request.
type answered struct {
	status   int // 0: the next handler was called
	response http.Header
	request  http.Header // as the next handler saw it
	repl     *caddy.Replacer
	err      error
}

func (a answered) placeholder(name string) string {
	text, _ := a.repl.GetString(name)
	return text
}

// send has the handler serve a request with these header fields.
func send(tb testing.TB, h caddyhttp.MiddlewareHandler, fields http.Header) answered {
	tb.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://site.example/", nil)
	maps.Copy(r.Header, fields)
	return sendRequest(tb, h, r)
}

func sendRequest(tb testing.TB, h caddyhttp.MiddlewareHandler, r *http.Request) answered {
	tb.Helper()
	repl := caddy.NewReplacer()
	rec := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, repl, rec, nil)
	got := answered{repl: repl}
	reached := false
	got.err = h.ServeHTTP(rec, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		reached = true
		got.request = r.Header.Clone()
		return nil
	}))
	got.response = rec.Header()
	var refusal caddyhttp.HandlerError
	switch {
	case errors.As(got.err, &refusal):
		got.status = refusal.StatusCode
	case got.err != nil:
		tb.Fatalf("not a HandlerError: %v", got.err)
	}
	if reached == (got.status != 0) {
		tb.Fatalf("status %d, and the next handler was called: %t", got.status, reached)
	}
	return got
}

func bearer(token, tenant string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}, "X-Tenant-Id": {tenant}}
}

// fakeSource is where the members of a test are. Tests change it while it is
// used, count its calls, and make it fail.
type fakeSource struct {
	name   string
	claims []string // that it reads

	uncached bool // its answers are not to be kept

	mu      sync.Mutex
	members map[[2]string]*member.Member
	calls   int
	answer  func(context.Context, member.Query) (*member.Member, error) // instead of members
}

// fakeSources leads from a resolver's configuration to its test's source.
var fakeSources sync.Map

func newFakeSource(tb testing.TB) *fakeSource { return newFakeSourceNamed(tb, tb.Name()) }

func newFakeSourceNamed(tb testing.TB, name string) *fakeSource {
	tb.Helper()
	s := &fakeSource{name: name, members: make(map[[2]string]*member.Member)}
	fakeSources.Store(s.name, s)
	tb.Cleanup(func() { fakeSources.Delete(s.name) })
	return s
}

func (s *fakeSource) raw() json.RawMessage {
	return caddyconfig.JSONModuleObject(fakeResolver{Source: s.name}, "resolver", "fake", nil)
}

func (s *fakeSource) put(m *member.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[[2]string{m.Tenant, m.KCID}] = m
}

// respond has every query answered by f; nil for the members again.
func (s *fakeSource) respond(f func(context.Context, member.Query) (*member.Member, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *fakeSource) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *fakeSource) resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	s.mu.Lock()
	s.calls++
	answer, m := s.answer, s.members[[2]string{q.Tenant, q.KCID}]
	s.mu.Unlock()
	switch {
	case answer != nil:
		return answer(ctx, q)
	case m == nil:
		return nil, member.ErrUnknown
	default:
		return m, nil
	}
}

// fakeResolver is the Caddy module in front of a fakeSource.
type fakeResolver struct {
	Source string `json:"source,omitempty"`
}

func init() { caddy.RegisterModule(fakeResolver{}) }

func (fakeResolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: member.Namespace + ".fake", New: func() caddy.Module { return new(fakeResolver) }}
}

func (f *fakeResolver) Resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	source, ok := fakeSources.Load(f.Source)
	if !ok {
		return nil, errors.New("the test is over")
	}
	return source.(*fakeSource).resolve(ctx, q)
}

func (f *fakeResolver) Identity() string { return "fake " + f.Source }

func (f *fakeResolver) Uncached() bool {
	source, ok := fakeSources.Load(f.Source)
	return ok && source.(*fakeSource).uncached
}

func (f *fakeResolver) Claims() []string {
	if source, ok := fakeSources.Load(f.Source); ok {
		return source.(*fakeSource).claims
	}
	return nil
}

// chain is several handlers in a row.
type chain []caddyhttp.MiddlewareHandler

func (c chain) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if len(c) == 0 {
		return next.ServeHTTP(w, r)
	}
	return c[0].ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return c[1:].ServeHTTP(w, r, next)
	}))
}

// sendAfter is send behind a handler that sets placeholders.
func sendAfter(tb testing.TB, h caddyhttp.MiddlewareHandler, fields http.Header, prepare func(set func(string, any))) answered {
	tb.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://site.example/", nil)
	maps.Copy(r.Header, fields)
	return sendRequest(tb, chain{setter(prepare), h}, r)
}

type setter func(set func(string, any))

func (s setter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	s(r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set)
	return next.ServeHTTP(w, r)
}
