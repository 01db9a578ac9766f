package httpresolver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

const (
	// maxRemembered bounds the answers kept for If-None-Match, in bytes.
	maxRemembered = 4 << 20

	// maxETag bounds one entity tag, in bytes.
	maxETag = 256
)

// applications holds those of all configurations, so that a reload with unchanged
// settings keeps connections and remembered answers.
var applications = shared.NewPool[*application]()

// settings are all that makes one application different from another, secrets
// resolved.
type settings struct {
	Method         string
	URL, OnUnknown string // expanded, apart from their parameters
	Claims         []string
	Header         http.Header
	Secret         string // of the HMAC; "" for none
	SignatureName  string
	Timeout        time.Duration
	Way            remote.Way

	url, onUnknown *template // onUnknown may be nil
	now            func() time.Time
}

// application is who knows the members. It may be shared by several configurations.
type application struct {
	settings
	do      func(*http.Request) (*http.Response, error)
	close   func()
	answers *otter.Cache[string, answer] // by URL
}

// answer is one that the application may say is still good.
type answer struct {
	etag   string
	member *member.Member
}

func newApplication(s settings) (*application, error) {
	answers, err := otter.New(&otter.Options[string, answer]{
		MaximumWeight: maxRemembered,
		Weigher:       weigh,
		Logger:        &otter.NoopLogger{}, // it logs panics of callbacks, and ours do not
	})
	if err != nil {
		return nil, fmt.Errorf("making the memory of answers: %w", err)
	}
	client := s.Way.Client()
	return &application{settings: s, do: client.Do, close: client.Close, answers: answers}, nil
}

func weigh(url string, a answer) uint32 {
	const overhead = 256 // structures and the member's fields
	size := overhead + len(url) + len(a.etag) + len(a.member.KCID) + len(a.member.Tenant) + len(a.member.ID)
	for name, value := range a.member.Attributes {
		size += len(name) + value.Size()
	}
	return uint32(min(size, maxRemembered))
}

// Destruct implements [caddy.Destructor]. Requests of the last configuration that
// used the application may still be being served, and go on to ask.
func (a *application) Destruct() error {
	a.close()
	a.answers.InvalidateAll()
	return nil
}

// resolve finds the member, and has it made where that is configured.
func (a *application) resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	m, err := a.find(ctx, q)
	if a.onUnknown == nil || !errors.Is(err, member.ErrUnknown) || errors.Is(err, errNotAsked) {
		return m, err
	}
	m, err = a.create(ctx, q)
	if errors.Is(err, errExists) {
		return a.find(ctx, q) // made by another request meanwhile
	}
	return m, err
}

// find asks for the member.
func (a *application) find(ctx context.Context, q member.Query) (*member.Member, error) {
	address, err := a.url.expand(q)
	if err != nil {
		return nil, err
	}
	var body []byte
	var known answer
	if a.Method == http.MethodPost {
		if body, err = a.body(q); err != nil {
			return nil, err
		}
	} else {
		known, _ = a.answers.GetIfPresent(address)
	}
	resp, err := a.send(ctx, a.Method, address, body, known.etag)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	defer remote.Drain(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		m, err := readMember(resp)
		if err == nil && a.Method == http.MethodGet {
			a.remember(address, resp.Header, m)
		}
		return m, err
	case http.StatusNotModified:
		if known.member == nil {
			return nil, errors.New("the application answers 304 to a request without If-None-Match")
		}
		return known.member, nil
	case http.StatusNotFound:
		a.answers.Invalidate(address)
		return nil, member.ErrUnknown
	case http.StatusConflict:
		return nil, fmt.Errorf("%w: the application answers 409", member.ErrAmbiguous)
	}
	return nil, refusal(resp.StatusCode)
}

// errExists says that there is a member to be found by now.
var errExists = errors.New("the member exists already")

// create has the application make the member, if it will.
func (a *application) create(ctx context.Context, q member.Query) (*member.Member, error) {
	address, err := a.onUnknown.expand(q)
	if err != nil {
		return nil, err
	}
	body, err := a.body(q)
	if err != nil {
		return nil, err
	}
	resp, err := a.send(ctx, http.MethodPost, address, body, "")
	if err != nil {
		return nil, fmt.Errorf("on_unknown: %w", err)
	}
	defer resp.Body.Close()
	defer remote.Drain(resp)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
		m, err := readMember(resp)
		if err != nil {
			return nil, fmt.Errorf("on_unknown: %w", err)
		}
		return m, nil
	case http.StatusForbidden, http.StatusNotFound:
		return nil, member.ErrUnknown
	case http.StatusConflict:
		return nil, errExists
	}
	return nil, fmt.Errorf("on_unknown: %w", refusal(resp.StatusCode))
}

// refusal says what an answer means that is none.
func refusal(status int) error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("the application does not let this server ask (status %d); check bearer, hmac, header and client_certificate", status)
	case 300 <= status && status <= 399:
		return fmt.Errorf("the application redirects (status %d), which is not followed; configure the URL that it leads to", status)
	case status < 300:
		return fmt.Errorf("the application answers %d and no record; 200 and 404 are what it must answer", status)
	}
	return fmt.Errorf("the application answers %d", status)
}

// remember keeps an answer if the application can say later that it is still good.
func (a *application) remember(address string, header http.Header, m *member.Member) {
	etag := header.Get("ETag")
	if etag == "" || len(etag) > maxETag || strings.Contains(strings.ToLower(header.Get("Cache-Control")), "no-store") {
		a.answers.Invalidate(address)
		return
	}
	a.answers.Set(address, answer{etag, m})
}

// body is the JSON of a POST.
func (a *application) body(q member.Query) ([]byte, error) {
	claims := make(map[string]member.Value, len(a.Claims))
	for _, path := range a.Claims {
		if value, present := q.Claims[path]; present {
			claims[path] = value
		}
	}
	text, err := json.Marshal(struct {
		Tenant string                  `json:"tenant"`
		KCID   string                  `json:"kc_id"`
		Issuer string                  `json:"issuer"`
		Claims map[string]member.Value `json:"claims"`
	}{q.Tenant, q.KCID, q.Issuer, claims})
	if err != nil {
		return nil, errors.New("the query cannot be written as JSON") // err may quote it
	}
	return text, nil
}

// send sends a request, and once more if the connection failed: a GET in any case, a
// POST only if there was no connection at all, since it may have been acted upon.
func (a *application) send(ctx context.Context, method, address string, body []byte, etag string) (*http.Response, error) {
	var connected atomic.Bool // written by goroutines of the transport
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	for attempt := 1; ; attempt++ {
		req, err := a.request(traced, method, address, body, etag)
		if err != nil {
			return nil, err
		}
		resp, err := a.do(req)
		switch {
		case err == nil:
			return resp, nil
		case attempt > 1, ctx.Err() != nil, !errors.Is(err, remote.ErrConnection),
			method == http.MethodPost && connected.Load():
			return nil, fmt.Errorf("asking the application: %w", err)
		}
	}
}

func (a *application) request(ctx context.Context, method, address string, body []byte, etag string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("asking the application: the URL cannot be asked")
	}
	req.Header = a.Header.Clone()
	req.Host = req.Header.Get("Host") // "" for the URL's
	req.Header.Del("Host")
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	if a.Secret != "" {
		req.Header.Set(a.SignatureName, sign(a.Secret, method, req.URL, body, a.now()))
	}
	return req, nil
}
