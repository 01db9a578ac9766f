package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/origin"
)

const (
	maxBody      = 512 << 10
	maxRedirects = 3
)

var (
	errOtherOrigin = errors.New("led to another origin")
	errOtherRealm  = errors.New("led out of the realm's own path")

	// ErrNoRealm says that not only was nothing found: Keycloak itself said that there
	// is no such realm.
	ErrNoRealm = errors.New("status 404: there is no such realm")
)

// source is where an issuer's keys are fetched from. One fetch runs at a time.
type source struct {
	issuer  string
	origin  *url.URL // that answers have to come from, and lead to
	jwks    string   // "" until discovered
	fixed   bool     // jwks was configured
	replace bool     // origin is a back channel: what was discovered is moved there
	below   []string // paths of which one has to begin all that is asked; empty: any
	metaURL string
	client  *http.Client
}

func newSource(cfg KeySetConfig) (*source, error) {
	if cfg.JWKSURL != "" && cfg.BackchannelURL != "" {
		return nil, errors.New("jwks url: makes the backchannel url useless; give one of them")
	}
	issuer, err := origin.Parse(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	s := &source{issuer: cfg.Issuer, origin: issuer}
	base := cfg.Issuer
	switch {
	case cfg.JWKSURL != "":
		if s.origin, err = origin.Parse(cfg.JWKSURL); err != nil {
			return nil, fmt.Errorf("jwks url: %w", err)
		}
		s.jwks, s.fixed = cfg.JWKSURL, true
	case cfg.BackchannelURL != "":
		if s.origin, err = origin.Parse(cfg.BackchannelURL); err != nil {
			return nil, fmt.Errorf("backchannel url: %w", err)
		}
		base, s.replace = cfg.BackchannelURL, true
	}
	if !s.fixed && s.origin.RawQuery != "" {
		return nil, errors.New("issuer: has a query")
	}
	// OpenID Connect Discovery 1.0 §4.1
	s.metaURL = strings.TrimSuffix(base, "/") + "/.well-known/openid-configuration"

	if cfg.Confined {
		s.below = []string{s.origin.EscapedPath()}
		if !s.fixed { // with a back channel, documents may name paths of the issuer
			s.below = []string{withSlash(s.origin), withSlash(issuer)}
		}
	}

	client := http.Client{}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	client.Jar = nil
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("redirected too often")
		}
		return s.allow(req.URL)
	}
	s.client = &client
	return s, nil
}

// fetch asks for the keys, and before that, if need be, for where they are.
func (s *source) fetch(ctx context.Context) (*keys, error) {
	if s.jwks == "" {
		jwks, err := s.discover(ctx)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		s.jwks = jwks
	}
	text, err := s.get(ctx, s.jwks)
	if err == nil {
		var fetched *keys
		if fetched, err = parseKeys(text); err == nil {
			return fetched, nil
		}
	}
	if !s.fixed {
		s.jwks = "" // it may have moved
	}
	return nil, fmt.Errorf("key set: %w", err)
}

func (s *source) discover(ctx context.Context) (string, error) {
	text, err := s.get(ctx, s.metaURL)
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &document, jsontext.AllowDuplicateNames(false)); err != nil {
		return "", errors.New("the answer is not a discovery document") // err may quote it
	}
	if document.Issuer != s.issuer {
		return "", fmt.Errorf("the document is of issuer %s, configured is %s: configure that issuer, or set "+
			"Keycloak's hostname option", quote(document.Issuer), quote(s.issuer))
	}
	jwks, err := origin.Parse(document.JWKS)
	if err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	if s.replace {
		jwks.Scheme, jwks.Host = s.origin.Scheme, s.origin.Host
	}
	if err := s.allow(jwks); err != nil {
		return "", fmt.Errorf("jwks_uri: %w: configure the jwks url if that is intended", err)
	}
	return jwks.String(), nil
}

// allow reports why the issuer may not make us ask at u.
func (s *source) allow(u *url.URL) error {
	if !origin.Same(u, s.origin) {
		return errOtherOrigin
	}
	if len(s.below) == 0 {
		return nil
	}
	asked := u.EscapedPath()
	if !hasDotSegment(u) && slices.ContainsFunc(s.below, func(base string) bool {
		return asked == base || strings.HasSuffix(base, "/") && strings.HasPrefix(asked, base)
	}) {
		return nil
	}
	return errOtherRealm
}

// withSlash is the path below which the resources of u are.
func withSlash(u *url.URL) string { return strings.TrimSuffix(u.EscapedPath(), "/") + "/" }

// get returns the body of an answer. Its errors quote nothing of it.
func (s *source) get(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound && saysNoRealm(resp.Body):
		return nil, ErrNoRealm
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxBody)
	}
	return body, nil
}

// saysNoRealm reports whether a 404 is Keycloak's own, for a realm that it does not
// have. A proxy whose Keycloak is not there yet sends one, too, and so does Keycloak for
// a path it does not know; neither must pass for that answer.
func saysNoRealm(body io.Reader) bool {
	text, err := io.ReadAll(io.LimitReader(body, 4<<10))
	if err != nil {
		return false
	}
	said, err := parseObject(bytes.TrimSpace(text))
	if err != nil {
		return false
	}
	what, _ := said.text("error")
	return what == "Realm does not exist" // in each version so far, in every language
}

// withoutURL drops the address, which for a redirect is a stranger's text.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
