package keycloakcacheauth

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// answering is an upstream that answers like this.
type answering func(w http.ResponseWriter, r *http.Request) error

// through has a request pass a handler to an upstream, and returns what came
// back.
func through(tb testing.TB, h *Handler, fields http.Header, next answering) (*httptest.ResponseRecorder, error) {
	tb.Helper()
	repl, rec := caddy.NewReplacer(), httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://site.example/", nil)
	r.Header = fields.Clone()
	r = caddyhttp.PrepareRequest(r, repl, rec, nil)
	return rec, h.ServeHTTP(rec, r, caddyhttp.HandlerFunc(next))
}

func says(status int, values ...string) answering {
	return func(w http.ResponseWriter, _ *http.Request) error {
		if values != nil {
			w.Header()["X-Member-Id"] = values
		}
		w.WriteHeader(status)
		return nil
	}
}

func TestCompareHeader(t *testing.T) {
	s := newSite(t)
	loadComparing := func(value string) *Handler {
		h, _ := load(t, s.config(reportOnly, func(h *Handler) {
			h.CompareHeader = &CompareHeader{Name: "x-member-id", Value: value}
			h.Optional = true
		}))
		return h
	}
	byID, bySub := loadComparing(""), loadComparing("{http.auth.user.id}")
	alice, dave := bearer(s.token("alice"), "t1"), bearer(s.token("dave"), "t1")
	for name, tc := range map[string]struct {
		h      *Handler
		fields http.Header
		answer answering
		want   string
	}{
		"the same":                            {byID, alice, says(200, "m-alice-1"), comparedEqual},
		"the same, though it failed":          {byID, alice, says(500, "m-alice-1"), comparedEqual},
		"another placeholder":                 {bySub, alice, says(200, s.users["alice"].ID), comparedEqual},
		"somebody else":                       {byID, alice, says(200, "m-bob"), comparedDifferent},
		"a part of it":                        {byID, alice, says(200, "m-alice"), comparedDifferent},
		"two users":                           {byID, alice, says(200, "m-alice-1", "m-bob"), comparedDifferent},
		"the upstream refuses":                {byID, alice, says(403), comparedOnlyOurs},
		"the upstream says an empty name":     {byID, alice, says(200, ""), comparedOnlyOurs},
		"we would have refused":               {byID, dave, says(200, "m-dave"), comparedOnlyTheirs},
		"both refuse":                         {byID, dave, says(403), comparedNeither},
		"nobody, and nobody asked":            {byID, http.Header{}, says(200), comparedNeither},
		"the upstream knows a session's user": {byID, http.Header{}, says(200, "m-x"), comparedOnlyTheirs},
		"the upstream fails":                  {byID, alice, says(502), comparedUnanswered},
		"there is no answer":                  {byID, alice, func(http.ResponseWriter, *http.Request) error { return errors.New("no upstream") }, comparedUnanswered},
		"nothing is written": {byID, alice, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Member-ID", "m-alice-1")
			return nil
		}, comparedEqual},
		"a body without a status": {byID, alice, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Member-ID", "m-alice-1")
			_, err := io.WriteString(w, "hello")
			w.Header().Set("X-Member-ID", "too late")
			return err
		}, comparedEqual},
		"a flush": {byID, alice, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Member-ID", "m-alice-1")
			err := http.NewResponseController(w).Flush()
			w.Header().Set("X-Member-ID", "too late")
			return err
		}, comparedEqual},
		"a copied body": {byID, alice, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Member-ID", "m-alice-1")
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello"))
			w.Header().Set("X-Member-ID", "too late")
			return err
		}, comparedEqual},
		"the user is replaced on the way": {byID, alice, func(w http.ResponseWriter, r *http.Request) error {
			identityOf(r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)) // as a second handler does
			return says(200, "m-alice-1")(w, r)
		}, comparedEqual},
	} {
		t.Run(name, func(t *testing.T) {
			before := resultsOf(tc.h)
			through(t, tc.h, tc.fields, tc.answer)
			after := resultsOf(tc.h)
			for result := range after {
				want := before[result]
				if result == tc.want {
					want++
				}
				if after[result] != want {
					t.Errorf("%s was counted %g times, want %g", result, after[result]-before[result], want-before[result])
				}
			}
		})
	}
}

func resultsOf(h *Handler) map[string]float64 {
	results := make(map[string]float64)
	for _, result := range []string{comparedEqual, comparedDifferent, comparedOnlyOurs, comparedOnlyTheirs, comparedNeither, comparedUnanswered} {
		results[result] = testutil.ToFloat64(h.metrics.compares.WithLabelValues(result))
	}
	return results
}

// The header stays in the response, and nothing is added to it.
func TestCompareHeaderChangesNoResponse(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(reportOnly, func(h *Handler) { h.CompareHeader = &CompareHeader{Name: "X-Member-ID"} }))
	rec, err := through(t, h, bearer(s.token("dave"), "t1"), says(201, "a", "b"))
	if err != nil || rec.Code != 201 || len(rec.Header()) != 1 || !slices.Equal(rec.Header()["X-Member-Id"], []string{"a", "b"}) {
		t.Errorf("%d %v (%v)", rec.Code, rec.Header(), err)
	}
}

// Differences are logged with ids, and with nothing that may be something else.
func TestDifferencesInTheLog(t *testing.T) {
	s := newSite(t)
	token := s.token("alice")
	for name, tc := range map[string]struct {
		value, theirs string
		wantTheirs    any
	}{
		"an id":                       {"", "m-bob", "m-bob"},
		"an upstream echoes a token":  {"", token, "(not shown, as it is no id)"},
		"an upstream says a sentence": {"", "a b", "(not shown, as it is no id)"},
		"mail addresses are compared": {"{http.auth.user.email}", "bob@example.com", nil},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(reportOnly, func(h *Handler) { h.CompareHeader = &CompareHeader{Name: "X-Member-ID", Value: tc.value} }))
			core, logs := observer.New(zapcore.InfoLevel)
			h.compare.logger = zap.New(core)
			through(t, h, bearer(token, "t1"), says(200, tc.theirs))
			lines := logs.All()
			if len(lines) != 1 {
				t.Fatalf("%d lines", len(lines))
			}
			got := lines[0].ContextMap()
			if got["theirs"] != tc.wantTheirs || got["kc_id"] != s.users["alice"].ID || got["tenant"] != "t1" || got["result"] != comparedDifferent {
				t.Errorf("the line has %v", got)
			}
			for _, field := range lines[0].Context {
				if strings.Contains(field.String, token) || strings.Contains(field.String, "@") {
					t.Errorf("%s is %q", field.Key, field.String)
				}
			}
		})
	}
	h, _ := load(t, s.config(reportOnly, func(h *Handler) { h.CompareHeader = &CompareHeader{Name: "X-Member-ID"} }))
	core, logs := observer.New(zapcore.InfoLevel)
	h.compare.logger = zap.New(core)
	through(t, h, bearer(s.token("dave"), "t1"), says(200, "m-dave"))
	if lines := logs.All(); len(lines) != 1 || lines[0].ContextMap()["kc_id"] != s.users["dave"].ID || lines[0].ContextMap()["reason"] != "not_a_member" {
		t.Errorf("of one whom we would have refused the log says %v", lines)
	}
}

func TestCacheStatus(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.CacheStatus, h.Optional, h.StaleIfError = defaultCacheStatus, true, caddy.Duration(time.Hour)
	}))
	now := time.Now()
	h.members.now = func() time.Time { return now }
	alice := bearer(s.token("alice"), "t1")
	status := func(fields http.Header, answer answering) []string {
		t.Helper()
		rec, _ := through(t, h, fields, answer)
		return rec.Result().Header["Cache-Status"]
	}
	plain := func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(204); return nil }
	if got := status(alice, plain); !slices.Equal(got, []string{"keycloak-cache-auth; fwd=uri-miss; detail=resolver"}) {
		t.Errorf("at first it is %q", got)
	}
	now = now.Add(10 * time.Second)
	behind := func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Add("Cache-Status", "OriginCache; hit; ttl=1100")
		_, err := io.WriteString(w, "hello")
		return err
	}
	if got := status(alice, behind); len(got) != 2 || got[0] != "OriginCache; hit; ttl=1100" ||
		got[1] != "keycloak-cache-auth; hit; ttl=50; detail=memory" && got[1] != "keycloak-cache-auth; hit; ttl=49; detail=memory" {
		t.Errorf("then it is %q", got)
	}
	for name, tc := range map[string]struct {
		fields http.Header
		answer answering
	}{
		"anonymous": {http.Header{}, plain},
		"refused":   {bearer(s.token("dave"), "t1"), plain},
		"an error":  {alice, func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(404, errors.New("no file")) }},
	} {
		if got := status(tc.fields, tc.answer); got != nil {
			t.Errorf("%s: it is %q", name, got)
		}
	}
}

// RFC 9211 section 2.
func TestCacheStatusValues(t *testing.T) {
	for name, tc := range map[string]struct {
		from     source
		uncached bool
		left     time.Duration
		want     string
	}{
		"memory":              {sourceMemory, false, 37900 * time.Millisecond, "keycloak-cache-auth; hit; ttl=37; detail=memory"},
		"redis":               {sourceRedis, false, 5 * time.Second, "keycloak-cache-auth; hit; ttl=5; detail=redis"},
		"stale":               {sourceStale, false, -9 * time.Second, "keycloak-cache-auth; fwd=stale; ttl=-9; detail=stale"},
		"resolver":            {sourceResolver, false, 0, "keycloak-cache-auth; fwd=uri-miss; detail=resolver"},
		"never cached at all": {sourceResolver, true, 0, "keycloak-cache-auth; fwd=bypass; detail=resolver"},
	} {
		if got := cacheStatus(tc.from, tc.uncached, tc.left); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// What watches an answer leaves informational responses, trailers, upgrades and
// streams as they are.
func TestWatchedAnswersStayWhole(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(reportOnly, func(h *Handler) {
		h.CompareHeader, h.CacheStatus = &CompareHeader{Name: "X-Member-ID"}, defaultCacheStatus
	}))
	waiting := make(chan struct{})
	upstream := answering(func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Path {
		case "/upgrade":
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "echo")
			w.Header().Set("X-Member-ID", "m-alice-1")
			w.WriteHeader(http.StatusSwitchingProtocols)
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			line, err := rw.ReadString('\n')
			if err != nil {
				return err
			}
			_, err = io.WriteString(conn, line)
			return err
		case "/stream":
			w.Header().Set("X-Member-ID", "m-alice-1")
			_, _ = io.WriteString(w, "first\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				return err
			}
			<-waiting
			_, err := io.WriteString(w, "second\n")
			return err
		default:
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.Header().Set("X-Member-ID", "early")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Member-ID", "m-alice-1")
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(http.StatusOK)
			_, err := io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
			return err
		}
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
		if err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(upstream)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	token := s.token("alice")
	get := func(ctx context.Context, path string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = bearer(token, "t1")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}

	var hints []http.Header
	response := get(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
			hints = append(hints, http.Header(header))
			return nil
		},
	}), "/")
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "body" {
		t.Errorf("body %q (%v)", body, err)
	}
	if len(hints) != 1 || hints[0].Get("Link") == "" || hints[0].Get("Cache-Status") != "" {
		t.Errorf("early hints: %v", hints)
	}
	if response.Trailer.Get("X-Sum") != "42" || len(response.Header["Cache-Status"]) != 1 {
		t.Errorf("trailer %v, header %v", response.Trailer, response.Header)
	}

	stream := bufio.NewReader(get(t.Context(), "/stream").Body)
	if line, err := stream.ReadString('\n'); err != nil || line != "first\n" {
		t.Errorf("the stream begins with %q (%v)", line, err)
	}
	close(waiting)
	if line, err := stream.ReadString('\n'); err != nil || line != "second\n" {
		t.Errorf("the stream goes on with %q (%v)", line, err)
	}

	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Tenant-ID: t1\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	reader := bufio.NewReader(conn)
	switched, err := http.ReadResponse(reader, nil)
	if err != nil || switched.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v (%v)", switched, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := reader.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("the upgraded connection says %q (%v)", line, err)
	}
	if n := testutil.ToFloat64(h.metrics.compares.WithLabelValues(comparedEqual)); n != 3 {
		t.Errorf("%g answers were found equal, want 3: %v", n, resultsOf(h))
	}
}
