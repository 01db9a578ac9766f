package introspect

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTheEndpointIsDiscoveredOnce(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f, discovering)
	for range 5 {
		answer, err := c.Introspect(t.Context(), rawToken)
		wantActive(t, answer, err)
		clock.advance(10 * time.Minute)
	}
	if asked, discovered := f.counts(); asked != 5 || discovered != 1 {
		t.Errorf("asked %d times, discovered %d times", asked, discovered)
	}
}

func TestAConfiguredEndpointNeedsNoDiscovery(t *testing.T) {
	f := newFake(t)
	c, _ := newTestClient(t, f, func(cfg *Config) { cfg.Issuer = "https://login.example/realms/acme" })
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
	if _, discovered := f.counts(); discovered != 0 {
		t.Errorf("discovered %d times", discovered)
	}
}

func TestTheEndpointIsAskedAtTheBackchannel(t *testing.T) {
	const issuer = "https://login.example/realms/acme" // not to be reached from here
	f := newFake(t)
	c, clock := newTestClient(t, f, func(cfg *Config) {
		cfg.Endpoint, cfg.Issuer, cfg.BackchannelURL = "", issuer, f.issuer()+"/"
	})
	_, err := c.Introspect(t.Context(), rawToken)
	wantUnavailable(t, err, "discovery", issuer, f.issuer()) // the document is of another issuer
	f.discovers(say(http.StatusOK, f.documentOf(issuer, issuer+"/elsewhere/introspect")))
	clock.advance(time.Second)
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
	if path := f.request().path; path != "/realms/acme/elsewhere/introspect" {
		t.Errorf("asked at %s", path)
	}
}

func TestDiscoveriesThatAreRefused(t *testing.T) {
	other := newFake(t)
	for name, test := range map[string]struct {
		document func(f *fake) http.HandlerFunc
		want     string
	}{
		"an issuer with a slash more": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(f.issuer()+"/", f.endpoint()))
		}, "configure that issuer"},
		"an issuer in another case": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(strings.ToUpper(f.issuer()), f.endpoint()))
		}, "configure that issuer"},
		"an issuer of great length": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(strings.Repeat("x", 1000)+"body-mark", f.endpoint()))
		}, `xxx"…`},
		"an endpoint of another origin": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(f.issuer(), other.endpoint()))
		}, "another origin"},
		"an endpoint of another scheme": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(f.issuer(), strings.Replace(f.endpoint(), "http", "https", 1)))
		}, "another origin"},
		"an endpoint with a password": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(f.issuer(), "http://body-mark@a.example/"))
		}, "user or password"},
		"no endpoint": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, `{"issuer":"`+f.issuer()+`"}`)
		}, "introspection_endpoint: not"},
		"a name twice": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, `{"issuer":"`+f.issuer()+`",`+f.documentOf(f.issuer(), f.endpoint())[1:])
		}, "not a discovery document"},
		"the issuer as Issuer": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, strings.Replace(f.documentOf(f.issuer(), f.endpoint()), "issuer", "Issuer", 1))
		}, "configure that issuer"},
		"a page for people": {func(*fake) http.HandlerFunc { return say(http.StatusOK, "<html>body-mark") }, "not a discovery document"},
		"more than 512 KiB": {func(f *fake) http.HandlerFunc {
			return say(http.StatusOK, f.documentOf(f.issuer(), f.endpoint())+strings.Repeat(" ", 512<<10))
		}, "524288 bytes"},
		"status 404": {func(*fake) http.HandlerFunc { return say(http.StatusNotFound, "body-mark") }, "status 404"},
		"a redirect to another origin": {func(*fake) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.endpoint(), http.StatusFound) }
		}, "another origin"},
		"redirects without end": {func(*fake) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.discovers(test.document(f))
			c, clock := newTestClient(t, f, discovering)
			_, err := c.Introspect(t.Context(), rawToken)
			wantUnavailable(t, err, "discovery: ", test.want)
			if asked, discovered := f.counts(); asked != 0 || discovered > 1+maxRedirects+1 {
				t.Errorf("asked %d times, discovered %d times", asked, discovered)
			}
			_, before := f.counts()
			_, err = c.Introspect(t.Context(), rawToken)
			wantUnavailable(t, err, "not asked again yet")
			if _, after := f.counts(); after != before {
				t.Error("discovered again without a pause")
			}
			f.discovers(say(http.StatusOK, f.documentOf(f.issuer(), f.endpoint())))
			clock.advance(time.Second)
			answer, err := c.Introspect(t.Context(), rawToken)
			wantActive(t, answer, err)
		})
	}
	if asked, discovered := other.counts(); asked+discovered != 0 {
		t.Error("the other origin was asked")
	}
}

func TestAFailedEndpointIsDiscoveredAnew(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f, discovering)
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/realms/acme/moved" {
			say(http.StatusOK, active)(w, r)
			return
		}
		http.NotFound(w, r)
	})
	f.discovers(say(http.StatusOK, f.documentOf(f.issuer(), f.issuer()+"/moved")))
	_, err = c.Introspect(t.Context(), rawToken)
	wantUnavailable(t, err, "no endpoint")
	clock.advance(time.Second)
	answer, err = c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
}

func TestAnOldDocumentIsReadAgainAndServesIfThatFails(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f, discovering)
	ask := func(discoveries int) {
		t.Helper()
		answer, err := c.Introspect(t.Context(), rawToken)
		wantActive(t, answer, err)
		if _, discovered := f.counts(); discovered != discoveries {
			t.Fatalf("discovered %d times, want %d", discovered, discoveries)
		}
	}
	ask(1)
	clock.advance(time.Hour - time.Second)
	ask(1)
	clock.advance(time.Second)
	ask(2)
	f.discovers(say(http.StatusServiceUnavailable, ""))
	clock.advance(time.Hour)
	ask(3)
	ask(3)
	clock.advance(time.Minute)
	ask(4)
	f.discovers(say(http.StatusOK, f.documentOf(f.issuer(), f.issuer()+"/moved")))
	clock.advance(time.Minute)
	ask(5)
	if path := f.request().path; path != "/realms/acme/moved" {
		t.Errorf("asked at %s", path)
	}
}

func TestOneCallDiscoversForAll(t *testing.T) {
	f := newFake(t)
	arrived, release := make(chan struct{}, 8), make(chan struct{})
	f.discovers(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		say(http.StatusOK, f.documentOf(f.issuer(), f.endpoint()))(w, r)
	})
	c, _ := newTestClient(t, f, discovering, func(cfg *Config) { cfg.Timeout = time.Minute })
	var calls sync.WaitGroup
	ask := func() {
		if _, err := c.Introspect(t.Context(), rawToken); err != nil {
			t.Error(err)
		}
	}
	calls.Go(ask)
	<-arrived
	for range 7 {
		calls.Go(ask)
	}
	close(release)
	calls.Wait()
	if _, discovered := f.counts(); discovered != 1 {
		t.Errorf("discovered %d times", discovered)
	}
}

func TestADiscoverersLeavingHarmsNobody(t *testing.T) {
	f := newFake(t)
	arrived := make(chan struct{})
	f.discovers(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	c, _ := newTestClient(t, f, discovering)
	ctx, leave := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() {
		_, err := c.Introspect(ctx, rawToken)
		wantUnavailable(t, err, "discovery")
	})
	<-arrived
	f.discovers(say(http.StatusOK, f.documentOf(f.issuer(), f.endpoint())))
	waits := make(chan struct{}, 1)
	calls.Go(func() {
		if found, err := c.finder.find(waiting{t.Context(), waits}); err != nil || found != f.endpoint() {
			t.Errorf("found %s, %v", found, err)
		}
	})
	<-waits
	leave()
	calls.Wait()
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
}

// waiting tells when somebody is about to wait for its end.
type waiting struct {
	context.Context
	told chan struct{}
}

func (w waiting) Done() <-chan struct{} {
	select {
	case w.told <- struct{}{}:
	default:
	}
	return w.Context.Done()
}

func TestBadTokensCostNoDiscovery(t *testing.T) {
	f := newFake(t)
	f.answers(say(http.StatusBadRequest, ""))
	c, _ := newTestClient(t, f, discovering)
	for range 5 {
		_, err := c.Introspect(t.Context(), "bad")
		wantUnavailable(t, err, "status 400")
	}
	if _, discovered := f.counts(); discovered != 1 {
		t.Errorf("discovered %d times", discovered)
	}
}

func TestNoCookiesAreKept(t *testing.T) {
	f := newFake(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
		say(http.StatusOK, active)(w, r)
	})
	c, _ := newTestClient(t, f, func(cfg *Config) { cfg.Client.Jar = jar })
	for range 2 {
		answer, err := c.Introspect(t.Context(), rawToken)
		wantActive(t, answer, err)
	}
	if cookie := f.request().header.Get("Cookie"); cookie != "" {
		t.Errorf("sent %s", cookie)
	}
}
