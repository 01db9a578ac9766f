package introspect

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	rawToken = "the-token-itself"
	// bodyMark is in all bodies that errors must not quote.
	bodyMark = "body-mark"
	active   = `{"active":true,"sub":"alice"}`
)

// fake is an issuer with discovery and an introspection endpoint.
type fake struct {
	*httptest.Server

	mu         sync.Mutex
	answer     http.HandlerFunc // of the endpoint
	document   http.HandlerFunc // of discovery
	asked      int              // at the endpoint
	discovered int
	last       asked
}

// asked is what the endpoint was sent.
type asked struct {
	method string
	path   string
	header http.Header
	form   url.Values
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{answer: say(http.StatusOK, active)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	f.document = say(http.StatusOK, f.documentOf(f.issuer(), f.endpoint()))
	return f
}

func (f *fake) issuer() string   { return f.URL + "/realms/acme" }
func (f *fake) endpoint() string { return f.issuer() + "/introspect" }

func (*fake) documentOf(issuer, endpoint string) string {
	return `{"issuer":"` + issuer + `","introspection_endpoint":"` + endpoint + `"}`
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	handler := f.answer
	if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
		handler = f.document
		f.discovered++
	} else {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		f.asked++
		f.last = asked{r.Method, r.URL.Path, r.Header.Clone(), form}
	}
	f.mu.Unlock()
	handler(w, r)
}

func (f *fake) answers(h http.HandlerFunc)   { f.mu.Lock(); defer f.mu.Unlock(); f.answer = h }
func (f *fake) discovers(h http.HandlerFunc) { f.mu.Lock(); defer f.mu.Unlock(); f.document = h }

func (f *fake) counts() (asked, discovered int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked, f.discovered
}

func (f *fake) request() asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hang answers nothing until the test ends or the client gives up.
func hang(t *testing.T) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-t.Context().Done():
		}
	}
}

// clock is moved by the test.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// newTestClient makes a client of f's endpoint that needs no discovery, with a clock
// that stands still.
func newTestClient(t *testing.T, f *fake, with ...func(*Config)) (*Client, *clock) {
	t.Helper()
	time := &clock{at: time.Unix(1_800_000_000, 0)}
	cfg := Config{
		Issuer: f.issuer(), Endpoint: f.endpoint(), ClientID: "proxy", ClientSecret: "the-secret",
		Client: &http.Client{Transport: &http.Transport{}}, Now: time.now,
	}
	for _, change := range with {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cfg.Client.CloseIdleConnections)
	return c, time
}

func discovering(cfg *Config) { cfg.Endpoint = "" }

// wantUnavailable fails the test unless err wraps ErrUnavailable, says all of texts,
// and gives nothing away.
func wantUnavailable(t *testing.T, err error, texts ...string) {
	t.Helper()
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInactive) {
		t.Fatalf("got %v, want one that wraps ErrUnavailable", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
	for _, secret := range []string{rawToken, "the-secret", "dGhlLXNlY3JldA", bodyMark, "eyJ"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q quotes %s", err, secret)
		}
	}
}

func wantActive(t *testing.T, answer []byte, err error) {
	t.Helper()
	if err != nil || string(answer) != active {
		t.Fatalf("got %s, %v, want the active answer", answer, err)
	}
}
