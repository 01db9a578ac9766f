// Package httpresolver finds members by asking the application over HTTP.
package httpresolver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"golang.org/x/net/http/httpguts"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

func init() {
	caddy.RegisterModule(Resolver{})
}

// Defaults and bounds.
const (
	defaultTimeout = 2 * time.Second
	maxTimeout     = 30 * time.Second

	// defaultSignature is the header with the HMAC.
	defaultSignature = "X-Caddy-Signature"
)

// Resolver asks the application itself who is a member.
//
// # The application answers with the status
//
// Status | Meaning
// -------|--------
// 200 | The record, as below.
// 304 | The record that it sent with the ETag of `If-None-Match` is still good.
// 404 | The user certainly is no member of the tenant.
// 409 | There are several records; nobody is let in.
// any other | It cannot say: the request gets 503.
//
// and a JSON object of at most 64 KiB, as `application/json`:
//
//	{"kc_id": "1f0e…", "tenant": "acme", "active": true, "id": 4711,
//	 "roles": ["editor"], "plan": "gold"}
//
// `kc_id`, `tenant`, `active` and `id` are required, and compared with the request
// by bytes: the application sends what its record says, not what it was asked.
// `issuer` is optional, and compared if it is there. An `active` of null is false. All
// other names are attributes: texts, numbers, booleans, or lists of those. Null is
// an absent attribute, objects are refused. `roles` is always a list.
//
// Redirects are not followed, cookies are not kept, and compressed answers are
// refused. A request whose connection fails is sent once more: a GET always, a POST
// only if there was no connection. Of answers with an `ETag`, up to 4 MiB are
// remembered, and asked for with `If-None-Match` when they are due.
//
// The application has to make sure that it is Caddy that asks: with `bearer`, `hmac`,
// or a client certificate.
//
// With `hmac`, each request carries `t=<seconds since 1970>,v1=<signature>`. The
// signature is the HMAC-SHA-256, in hexadecimal, of five lines joined by newlines:
// those seconds, the method, the percent-decoded path, the query as it was sent,
// and the hexadecimal SHA-256 of the body.
type Resolver struct {
	// Where to ask. `{tenant}`, `{kc_id}`, `{issuer}` and `{claim.<path>}` stand
	// for what is asked about, percent-encoded. In the path they may be segments
	// or parts of one (not the issuer). A user of whom such a value is absent,
	// empty, or would lead to another path, since it has a slash in it, say, is
	// not a member. In the query they are whole values; that of an absent claim
	// is left out, and of a list repeated. All else in braces is a global
	// placeholder, such as `{env.APP_URL}`. Required.
	URL string `json:"url,omitempty"`

	// `GET`, or `POST` to send what is asked about as a JSON object with the names
	// `tenant`, `kc_id`, `issuer` and `claims`. A POST must change nothing, too.
	// Default: GET.
	Method string `json:"method,omitempty"`

	// The claims, by name or dotted path, that are sent with a POST, also to
	// `on_unknown`. Default: none.
	SendClaims []string `json:"send_claims,omitempty"`

	// Headers to send. Global placeholders are expanded. `Host` replaces the
	// URL's.
	Headers map[string]string `json:"headers,omitempty"`

	// A token that is sent as `Authorization: Bearer …`. Give it as a global
	// placeholder, such as `{env.APP_TOKEN}`.
	Bearer string `json:"bearer,omitempty"`

	// The secret of the signature. Give it as a global placeholder, such as
	// `{env.APP_SECRET}`. Default: requests are not signed.
	HMACSecret string `json:"hmac_secret,omitempty"`

	// The header that holds the signature. Default: `X-Caddy-Signature`.
	HMACHeader string `json:"hmac_header,omitempty"`

	// Where a POST asks the application to make the member, when it said that
	// there is none: just-in-time provisioning. The URL is written like the other,
	// and the body is that of `method POST`. The application answers 200 or 201
	// with the record, 403 or 404 if the user is not to be a member, or 409 if
	// there is one by now, who is asked for again then. It is the application that
	// decides for whom to make one (a user asks for whatever tenant comes to mind),
	// and that makes it once: several servers may ask at a time. Default: nothing
	// is made.
	OnUnknown string `json:"on_unknown,omitempty"`

	// The most time that one look-up may take, with all requests that it needs.
	// Default: 2s; at most 30s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The certificate authorities that the application's certificate is checked
	// against, as a Caddy `tls.ca_pool.source` module. Default: the system's.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`

	// A certificate, and below its key, with which this server shows who it is to
	// the application (mutual TLS): paths of PEM files. Both or none.
	ClientCertificateFile string `json:"client_certificate_file,omitempty"`

	// The path of the client certificate's private key, a PEM file.
	ClientKeyFile string `json:"client_key_file,omitempty"`

	// Allows plain `http://` to hosts other than loopback. Whoever can change that
	// traffic can make anybody a member.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	application *application
	release     func() error
	claims      []string // all that are read, sorted
	tellsIssuer bool
	identity    string
}

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  member.Namespace + ".http",
		New: func() caddy.Module { return new(Resolver) },
	}
}

// Provision reads the settings. It does not ask anybody.
func (r *Resolver) Provision(ctx caddy.Context) error {
	s, err := r.settings()
	if err != nil {
		return err
	}
	if s.Way, err = remote.NewWay(ctx, r, r.TrustPoolRaw, r.ClientCertificateFile, r.ClientKeyFile); err != nil {
		return err
	}
	if err := r.identify(s); err != nil {
		return err
	}
	r.application, r.release, err = applications.Acquire(s, func() (*application, error) { return newApplication(s) })
	return err
}

// settings returns the settings checked and with their placeholders expanded. Its
// errors begin with the option's name.
func (r *Resolver) settings() (settings, error) {
	s := settings{
		Method: r.Method, Timeout: time.Duration(r.Timeout), Claims: slices.Clone(r.SendClaims), now: time.Now,
	}
	if s.Method == "" {
		s.Method = http.MethodGet
	}
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	switch {
	case r.URL == "":
		return settings{}, errors.New("url: none is given; add one, such as https://app.example.com/members/{tenant}/{kc_id}")
	case s.Method != http.MethodGet && s.Method != http.MethodPost:
		return settings{}, errors.New("method: it must be GET or POST")
	case s.Timeout < 0 || s.Timeout > maxTimeout:
		return settings{}, fmt.Errorf("timeout: it must be positive and at most %s", maxTimeout)
	case len(r.SendClaims) > 0 && s.Method == http.MethodGet && r.OnUnknown == "":
		return settings{}, errors.New("send_claims: a GET has no body to send them in; use {claim.<path>} in the URL, or method POST")
	}
	for _, path := range r.SendClaims {
		if err := options.CheckClaim(path); err != nil {
			return settings{}, fmt.Errorf("send_claims: %w", err)
		}
	}
	if err := r.readURLs(&s); err != nil {
		return settings{}, err
	}
	if err := r.readHeaders(&s); err != nil {
		return settings{}, err
	}
	var err error
	if r.HMACSecret != "" {
		if s.Secret, err = options.Expand(r.HMACSecret); err != nil {
			return settings{}, fmt.Errorf("hmac: %w", err)
		}
	}
	return s, nil
}

func (r *Resolver) readURLs(s *settings) (err error) {
	if s.url, err = parseTemplate(r.URL, r.InsecureHTTP); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if s.Method == http.MethodGet {
		params := s.url.params()
		for _, param := range []string{"tenant", "kc_id"} {
			if !slices.Contains(params, param) {
				return fmt.Errorf("url: {%s} is not in it, so that all would get the same answer; add it, or use method POST", param)
			}
		}
	}
	if r.OnUnknown != "" {
		if s.onUnknown, err = parseTemplate(r.OnUnknown, r.InsecureHTTP); err != nil {
			return fmt.Errorf("on_unknown: %w", err)
		}
		s.OnUnknown = s.onUnknown.String()
	}
	s.URL = s.url.String()
	return nil
}

// ownHeaders are those that this resolver or HTTP itself has the say about.
var ownHeaders = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Length", "Content-Type", "If-None-Match", "Keep-Alive",
	"Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func (r *Resolver) readHeaders(s *settings) error {
	s.Header = make(http.Header, len(r.Headers)+1)
	for name, value := range r.Headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return errors.New("header: a name is none of a header; use letters, digits and hyphens")
		case slices.Contains(ownHeaders, canonical):
			return fmt.Errorf("header: %s cannot be set", canonical)
		case s.Header[canonical] != nil:
			return fmt.Errorf("header: %s is given twice; leave one of them out", canonical)
		}
		expanded, err := options.Expand(value)
		if err != nil {
			return fmt.Errorf("header %s: %w", canonical, err)
		}
		if !httpguts.ValidHeaderFieldValue(expanded) {
			return fmt.Errorf("header %s: the value has control characters in it, perhaps a line's end; remove them", canonical)
		}
		s.Header[canonical] = []string{expanded}
	}
	if r.Bearer != "" {
		bearer, err := options.Expand(r.Bearer)
		switch {
		case err != nil:
			return fmt.Errorf("bearer: %w", err)
		case s.Header["Authorization"] != nil:
			return errors.New("bearer: the header Authorization is set, too; leave one of them out")
		case !httpguts.ValidHeaderFieldValue(bearer) || strings.ContainsAny(bearer, " \t"):
			return errors.New("bearer: the token has blanks or control characters in it, perhaps a line's end; remove them")
		}
		s.Header["Authorization"] = []string{"Bearer " + bearer}
	}
	s.SignatureName = textproto.CanonicalMIMEHeaderKey(r.HMACHeader)
	switch {
	case r.HMACSecret == "" && r.HMACHeader != "":
		return errors.New("hmac: there is a header and no secret; give both, or none")
	case s.SignatureName == "":
		s.SignatureName = defaultSignature
	case !httpguts.ValidHeaderFieldName(r.HMACHeader), slices.Contains(ownHeaders, s.SignatureName):
		return errors.New("hmac: the signature cannot be in that header; use another")
	}
	if r.HMACSecret != "" && s.Header[s.SignatureName] != nil {
		return fmt.Errorf("hmac: the header %s is set, too; leave one of them out", s.SignatureName)
	}
	return nil
}

// identify says what is asked, and where. What proves who asks is no part of it, so
// that a new secret keeps the cache; of what may hold a secret, only a digest is.
func (r *Resolver) identify(s settings) error {
	params := s.url.params()
	if s.onUnknown != nil {
		params = append(params, s.onUnknown.params()...)
	}
	r.tellsIssuer = s.Method == http.MethodPost || slices.Contains(params, "issuer")
	r.claims = slices.Clone(r.SendClaims)
	for _, param := range params {
		if path, isClaim := strings.CutPrefix(param, claimPrefix); isClaim {
			r.claims = append(r.claims, path)
		}
	}
	slices.Sort(r.claims)
	r.claims = slices.Compact(r.claims)

	// maps become sorted in JSON
	question, err := json.Marshal([]any{s.Method, s.URL, s.OnUnknown, r.claims, r.Headers})
	if err != nil {
		return fmt.Errorf("describing the application: %w", err)
	}
	digest := sha256.Sum256(question)
	r.identity = "http " + s.url.origin + " " + hex.EncodeToString(digest[:])
	return nil
}

// Cleanup gives back the share of the connections that Provision took, if it got
// that far. The resolver goes on to answer requests that are still being served.
func (r *Resolver) Cleanup() error {
	if r.release == nil {
		return nil
	}
	return r.release()
}

// Resolve implements member.Resolver. The text of its errors holds neither secrets
// of the configuration nor values of the query or of the answer.
func (r *Resolver) Resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	return r.application.resolve(ctx, q)
}

// Identity implements member.Resolver.
func (r *Resolver) Identity() string { return r.identity }

// Claims implements [member.ClaimReader].
func (r *Resolver) Claims() []string { return slices.Clone(r.claims) }

// TellsIssuers implements [member.IssuerTeller]: the application does if it is told
// the issuer whenever it is asked for a member.
func (r *Resolver) TellsIssuers() bool { return r.tellsIssuer }

// nobody is who the application is asked about to see whether it answers.
const nobody = "00000000-0000-0000-0000-000000000000"

// Check implements [member.Checker]. It has nobody made.
func (r *Resolver) Check(ctx context.Context) error {
	q := member.Query{Tenant: "check", KCID: nobody, Issuer: "https://check.invalid", Claims: make(map[string]member.Value)}
	for _, path := range r.claims {
		q.Claims[path] = member.Text("check")
	}
	ctx, cancel := context.WithTimeout(ctx, r.application.Timeout)
	defer cancel()
	_, err := r.application.find(ctx, q)
	switch {
	case err == nil:
		return fmt.Errorf("the application knows a member %s of a tenant %q, whom there cannot be; it must answer 404 for who is none", nobody, q.Tenant)
	case errors.Is(err, member.ErrUnknown):
		return nil
	}
	return err
}

// Interface guards
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ member.ClaimReader    = (*Resolver)(nil)
	_ member.IssuerTeller   = (*Resolver)(nil)
	_ member.Checker        = (*Resolver)(nil)
	_ caddy.Provisioner     = (*Resolver)(nil)
	_ caddy.CleanerUpper    = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)
