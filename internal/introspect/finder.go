package introspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/origin"
)

const (
	maxDocument  = 512 << 10
	maxRedirects = 3

	refreshAfter = time.Hour   // the age at which a discovery document is read again
	refreshPause = time.Minute // until the next try if that failed
)

var errOtherOrigin = errors.New("led to another origin")

// finder knows where the endpoint is. The rules are those for an issuer's keys: what
// the document says is good for the origin it was asked at, and for no other.
type finder struct {
	issuer  string
	fixed   string   // the configured endpoint
	origin  *url.URL // that answers have to come from, and lead to
	replace bool     // origin is a back channel: what was discovered is moved there
	metaURL string
	client  *http.Client
	now     func() time.Time

	asking chan struct{} // has an element while somebody asks

	mu    sync.Mutex
	found string    // "" until discovered
	due   time.Time // when to ask again though it is known
	asked int       // how often somebody asked
	err   error     // of the last time
}

func newFinder(cfg Config) (*finder, error) {
	issuer, err := origin.Parse(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	f := &finder{issuer: cfg.Issuer, origin: issuer, now: cfg.Now, asking: make(chan struct{}, 1)}
	base := cfg.Issuer
	switch {
	case cfg.Endpoint != "":
		if _, err := origin.Parse(cfg.Endpoint); err != nil {
			return nil, fmt.Errorf("endpoint: %w", err)
		}
		f.fixed = cfg.Endpoint
		return f, nil
	case cfg.BackchannelURL != "":
		if f.origin, err = origin.Parse(cfg.BackchannelURL); err != nil {
			return nil, fmt.Errorf("backchannel url: %w", err)
		}
		base, f.replace = cfg.BackchannelURL, true
	}
	if f.origin.RawQuery != "" {
		return nil, errors.New("issuer or backchannel url: has a query")
	}
	// OpenID Connect Discovery 1.0 §4.1
	f.metaURL = strings.TrimSuffix(base, "/") + "/.well-known/openid-configuration"
	f.client = copyOf(cfg.Client)
	f.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) > maxRedirects:
			return errors.New("redirected too often")
		case !origin.Same(req.URL, f.origin):
			return errOtherOrigin
		}
		return nil
	}
	return f, nil
}

// find returns the endpoint. If it is not known, one call asks for all; if it is due
// for a refresh, one call asks and the others go on with what is known.
func (f *finder) find(ctx context.Context) (string, error) {
	if f.fixed != "" {
		return f.fixed, nil
	}
	known, due, asked := f.known()
	switch {
	case known != "" && !due:
		return known, nil
	case known != "":
		select {
		case f.asking <- struct{}{}:
		default:
			return known, nil
		}
	default:
		select {
		case f.asking <- struct{}{}:
		case <-ctx.Done():
			return "", withoutQuotes(ctx.Err())
		}
	}
	defer func() { <-f.asking }()
	f.mu.Lock()
	if f.asked != asked && (f.found != "" || f.err != nil) { // somebody did while this call waited
		defer f.mu.Unlock()
		return f.found, f.err
	}
	f.mu.Unlock()
	found, err := f.discover(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.found, f.err, f.due = found, nil, f.now().Add(refreshAfter)
	case f.found != "": // it served until now, and may go on to
		f.due = f.now().Add(refreshPause)
		return f.found, nil
	case ctx.Err() != nil:
		return "", err // this call's time is up, which says nothing to those that wait
	default:
		f.err = err
	}
	f.asked++
	return found, err
}

func (f *finder) known() (found string, due bool, asked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.found, !f.now().Before(f.due), f.asked
}

// forget makes the next call discover the endpoint anew.
func (f *finder) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = ""
}

// doubt makes the next call discover the endpoint anew, and go on with the known one
// if that fails.
func (f *finder) doubt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due = time.Time{}
}

func (f *finder) discover(ctx context.Context) (string, error) {
	text, err := f.document(ctx)
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer   string `json:"issuer"`
		Endpoint string `json:"introspection_endpoint"`
	}
	if err := json.Unmarshal(text, &document, jsontext.AllowDuplicateNames(false)); err != nil {
		return "", errors.New("the answer is not a discovery document") // err may quote it
	}
	if document.Issuer != f.issuer {
		return "", fmt.Errorf("the document is of issuer %s, configured is %s: configure that issuer, or set "+
			"Keycloak's hostname option", shorten(document.Issuer), shorten(f.issuer))
	}
	endpoint, err := origin.Parse(document.Endpoint)
	if err != nil {
		return "", fmt.Errorf("introspection_endpoint: %w", err)
	}
	if f.replace {
		endpoint.Scheme, endpoint.Host = f.origin.Scheme, f.origin.Host
	}
	if !origin.Same(endpoint, f.origin) {
		return "", fmt.Errorf("introspection_endpoint: %w: configure the endpoint if that is intended", errOtherOrigin)
	}
	return endpoint.String(), nil
}

// document returns what is at metaURL. Its errors quote nothing of it.
func (f *finder) document(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.metaURL, nil)
	if err != nil {
		return nil, errors.New("the issuer is not a URL that can be asked")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, withoutQuotes(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return readAtMost(resp.Body, maxDocument)
}

// readAtMost returns a body, which must not be longer than that.
func readAtMost(body io.Reader, bound int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, bound+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", withoutQuotes(err))
	case int64(len(text)) > bound:
		return nil, fmt.Errorf("the answer has more than %d bytes", bound)
	}
	return text, nil
}
