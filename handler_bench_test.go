package keycloakcacheauth

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/allocations"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// client sends the same request over and over, each time as Caddy hands it on:
// with fields, replacer and context of its own. It is the response as well.
type client struct {
	fields http.Header
	base   *http.Request
	answer http.Header
}

func newClient(tb testing.TB, fields http.Header) *client {
	tb.Helper()
	target, err := url.Parse("http://site.example/")
	if err != nil {
		tb.Fatal(err)
	}
	base := &http.Request{
		Method: http.MethodGet, URL: target, Host: target.Host, RemoteAddr: "192.0.2.1:1234",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	ctx := context.WithValue(tb.Context(), http.ServerContextKey, http.DefaultServeMux) // as deep as in Caddy
	return &client{fields: fields, base: base.WithContext(ctx), answer: make(http.Header)}
}

// prepare returns the next request. What that costs, Caddy pays without us too.
func (c *client) prepare() *http.Request {
	r := *c.base
	r.Header = make(http.Header, len(c.fields)) // of the size that net/http gives it
	maps.Copy(r.Header, c.fields)
	return caddyhttp.PrepareRequest(&r, caddy.NewReplacer(), c, nil)
}

func (c *client) send(h caddyhttp.MiddlewareHandler) error {
	return h.ServeHTTP(c, c.prepare(), served)
}

// served is what comes next.
var served = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

func (c *client) Header() http.Header          { return c.answer }
func (*client) Write(text []byte) (int, error) { return len(text), nil }
func (*client) WriteHeader(int)                {}

// bare is a handler that does nothing.
type bare struct{}

func (bare) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// loadAtInfo is load for a handler that logs as Caddy does by default.
func loadAtInfo(tb testing.TB, h Handler) *Handler {
	tb.Helper()
	loaded, _ := load(tb, h)
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zapcore.InfoLevel)
	loaded.logger = sampled(zap.New(core))
	loaded.members.logger = loaded.logger
	return loaded
}

// clientFields are three fields that a client sends, and token and tenant unless
// they are "".
func clientFields(token, tenant string) http.Header {
	fields := http.Header{"Accept": {"application/json"}, "Accept-Encoding": {"gzip"}, "User-Agent": {"bench/1.0"}}
	if token != "" {
		fields["Authorization"] = []string{"Bearer " + token}
	}
	if tenant != "" {
		fields["X-Tenant-Id"] = []string{tenant}
	}
	return fields
}

// realSize makes an access token about as long as a real realm's: 1.4 kB.
func realSize() kctest.Option {
	return kctest.Claim("allowed-origins", []string{"https://shop.example.com", "https://admin.example.com", "https://www.example.com"})
}

// handlerSteps are requests as the whole handler decides them. The first is none:
// what it costs is what the others cost without us.
func handlerSteps(tb testing.TB) []allocations.Step {
	tb.Helper()
	s := newSite(tb)
	required := loadAtInfo(tb, s.config())
	optional := loadAtInfo(tb, s.config(func(h *Handler) { h.Optional = true }))
	request := func(name string, h caddyhttp.MiddlewareHandler, token, tenant string, refused bool) allocations.Step {
		c := newClient(tb, clientFields(token, tenant))
		return allocations.Step{Name: name, Run: func(tb testing.TB) {
			if err := c.send(h); (err != nil) != refused {
				tb.Fatal(err)
			}
		}}
	}
	return []allocations.Step{
		request("no handler", bare{}, s.token("alice", realSize()), "t1", false),
		request("a member in memory whose token was seen", required, s.token("alice", realSize()), "t1", false),
		request("an anonymous request", optional, "", "t1", false),
		request("no token", required, "", "t1", true),
		request("no member of the tenant", required, s.token("bob", realSize()), "t2", true),
		request("a token of another audience", required, s.realm.AccessToken(s.users["alice"], realSize()), "t1", true),
	}
}

// The hot path, a member in memory whose token was seen, may take 10 allocations and
// 1.5 KiB.
func TestAllocationsOfTheHandler(t *testing.T) {
	allocations.Compare(t, "testdata/allocations.json", handlerSteps(t))
}

func BenchmarkHandler(b *testing.B) {
	for _, step := range handlerSteps(b) {
		b.Run(step.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				step.Run(b)
			}
		})
	}
}

// BenchmarkHandlerFirstSight shows what a request costs whose token comes for the
// first time, of a member in memory.
func BenchmarkHandlerFirstSight(b *testing.B) {
	const distinct = 256
	s := newSite(b)
	clients := make([]*client, distinct)
	for i := range clients {
		clients[i] = newClient(b, clientFields(s.token("alice", realSize()), "t1"))
	}
	known := newClient(b, clientFields(s.token("alice", realSize()), "t1"))
	// Once each token has come, a handler goes on that remembers none: memories of
	// different sizes are not shared. Keys and members are.
	forgetful := func(n int) *Handler {
		h := loadAtInfo(b, s.config(func(h *Handler) { h.Memory.MaxTokensSize = defaultMaxTokensSize + int64(n) }))
		if err := known.send(h); err != nil {
			b.Fatal(err)
		}
		return h
	}
	h := forgetful(0)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%distinct == 0 {
			b.StopTimer()
			h = forgetful(n + 1)
			b.StartTimer()
		}
		if err := clients[n%distinct].send(h); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandlerInParallel shows whether processors are in each other's way.
func BenchmarkHandlerInParallel(b *testing.B) {
	s := newSite(b)
	inParallel(b, loadAtInfo(b, s.config()), s.token("alice", realSize()))
}

// BenchmarkNoHandlerInParallel shows how much of that is the machine's, Go's and Caddy's
// doing.
func BenchmarkNoHandlerInParallel(b *testing.B) {
	inParallel(b, bare{}, newSite(b).token("alice", realSize()))
}

func inParallel(b *testing.B, h caddyhttp.MiddlewareHandler, token string) {
	b.Helper()
	if err := newClient(b, clientFields(token, "t1")).send(h); err != nil { // fetches keys and member
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c := newClient(b, clientFields(token, "t1"))
		for pb.Next() {
			if err := c.send(h); err != nil {
				b.Error(err)
			}
		}
	})
}
