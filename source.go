package keycloakcacheauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"
)

// TokenSource is a place in the request where a token may be.
type TokenSource struct {
	// `header`, `cookie` or `query`.
	//
	// A cookie is sent by browsers whoever makes them send the request. So
	// methods other than GET, HEAD and OPTIONS, and upgrades, then need
	// `Sec-Fetch-Site: same-origin`, or an `Origin` of this site, and get 403
	// otherwise.
	//
	// A query string ends in logs and histories. Use it only where nothing else
	// can be had, and keep it out of access logs.
	From string `json:"from,omitempty"`

	// The name of the header, cookie or query parameter. Default for `header`:
	// `Authorization`, whose value is `Bearer <token>`. Any other header,
	// cookie or parameter holds the token alone.
	Name string `json:"name,omitempty"`
}

// Places of a token.
const (
	fromHeader = "header"
	fromCookie = "cookie"
	fromQuery  = "query"
)

const authorizationHeader = "Authorization"

// check tells what is wrong with the source.
func (s TokenSource) check() error {
	switch s.From {
	case fromHeader:
		if s.Name == "" || textproto.CanonicalMIMEHeaderKey(s.Name) == authorizationHeader {
			return nil
		}
		if err := checkHeaderName(s.Name); err != nil {
			return err
		}
	case fromCookie, fromQuery:
		if !httpguts.ValidHeaderFieldName(s.Name) { // a token of RFC 9110, which cookie names are as well
			return fmt.Errorf("a %s needs a name of letters, digits and hyphens", s.From)
		}
	default:
		return fmt.Errorf("%q is none of %s, %s and %s", s.From, fromHeader, fromCookie, fromQuery)
	}
	return nil
}

// tokenSource is a TokenSource made ready.
type tokenSource struct {
	from string
	name string // of headers in canonical form
}

// tokenSources are all places where a handler looks for a token.
type tokenSources []tokenSource

func newTokenSources(configured []TokenSource) tokenSources {
	if len(configured) == 0 {
		return tokenSources{{fromHeader, authorizationHeader}}
	}
	sources := make(tokenSources, 0, len(configured))
	for _, s := range configured {
		source := tokenSource{s.From, s.Name}
		if s.From == fromHeader {
			if source.name == "" {
				source.name = authorizationHeader
			}
			source.name = textproto.CanonicalMIMEHeaderKey(source.name)
		}
		sources = append(sources, source)
	}
	return sources
}

// warn tells of places that Caddy's access log shows, unlike Authorization and
// Cookie.
func (s tokenSources) warn(logger *zap.Logger) {
	for _, source := range s {
		if source.from == fromQuery || source.from == fromHeader && source.name != authorizationHeader {
			logger.Warn("tokens from here are written to Caddy's access log, unless a filter takes them out; see token_from in the documentation",
				zap.String("from", source.from), zap.String("name", source.name))
		}
	}
}

// take returns the one credential of the request (RFC 6750 section 2: no more
// than one way per request).
func (s tokenSources) take(r *http.Request) credential {
	if len(s) == 1 {
		return s[0].take(r)
	}
	taken := credential{fault: outcomeMissingToken}
	for _, source := range s {
		found := source.take(r)
		switch {
		case found.fault == outcomeMissingToken:
		case taken.fault != outcomeMissingToken:
			return credential{fault: outcomeMultipleCredentials}
		default:
			taken = found
		}
	}
	return taken
}

func (s tokenSource) take(r *http.Request) credential {
	var values []string
	shown := 0 // as others may read it: Go passes over what it cannot read
	switch s.from {
	case fromHeader:
		if s.name == authorizationHeader {
			found := takeCredential(r.Header)
			found.source = s
			return found
		}
		values = r.Header[s.name]
	case fromCookie:
		if shown = countCookies(r.Header, s.isNamed); shown == 0 {
			break // most requests: nothing to take apart
		}
		for _, cookie := range r.CookiesNamed(s.name) {
			values = append(values, cookie.Value)
		}
	case fromQuery:
		if shown = countParameters(r.URL.RawQuery, s.isNamed); shown == 0 {
			break
		}
		values = r.URL.Query()[s.name]
	}
	switch {
	case len(values) == 0 && shown == 0:
		return credential{fault: outcomeMissingToken}
	case len(values) > 1 || shown > 1:
		return credential{fault: outcomeMultipleCredentials}
	case len(values) == 0 || values[0] == "":
		return credential{fault: outcomeMalformedAuthorization}
	default:
		return credential{token: values[0], source: s}
	}
}

func (s tokenSource) isNamed(name string) bool { return name == s.name }

// countCookies returns how many cookies of a name stand in a request, whether or not
// net/http takes them for cookies.
func countCookies(header http.Header, isNamed func(string) bool) (count int) {
	for _, field := range header["Cookie"] {
		for pair := range strings.SplitSeq(field, ";") {
			if name, _, _ := strings.Cut(pair, "="); isNamed(textproto.TrimString(name)) {
				count++
			}
		}
	}
	return count
}

// countParameters returns how many parameters of a name stand in a query, whether or
// not net/url takes them for parameters.
func countParameters(query string, isNamed func(string) bool) (count int) {
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil && isNamed(decoded) {
			count++
		}
	}
	return count
}

// ambient tells whether browsers send the token by themselves.
func (s tokenSource) ambient() bool { return s.from == fromCookie }

// remove takes whatever may be a token out of the request, however the request
// is decided: not all that is refused ends here.
func (s tokenSources) remove(r *http.Request) {
	for _, source := range s {
		source.remove(r)
	}
}

func (s tokenSource) remove(r *http.Request) {
	switch s.from {
	case fromHeader:
		if s.name == authorizationHeader && !slices.ContainsFunc(r.Header[s.name], isTokenField) {
			return // a credential of another kind is none of ours
		}
		delete(r.Header, s.name)
		if s.name == authorizationHeader {
			delete(r.Header, proofHeader) // of no use without the token
		}
	case fromCookie:
		if countCookies(r.Header, s.isNamed) > 0 {
			removeCookie(r.Header, s.name)
		}
	case fromQuery:
		if countParameters(r.URL.RawQuery, s.isNamed) == 0 {
			return
		}
		removeParameter(r.URL, s.name)
		r.RequestURI = r.URL.RequestURI()
		// FastCGI upstreams and error routes get the URL as it came
		if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
			removeParameter(original.URL, s.name)
		}
	}
}

// isTokenField tells whether a value of Authorization is of a scheme that
// carries tokens.
func isTokenField(field string) bool {
	_, bearer := credentialOf(field, "Bearer")
	_, dpop := credentialOf(field, "DPoP")
	return bearer || dpop
}

// removeCookie takes one cookie out of the Cookie fields and leaves the others
// as they came.
func removeCookie(header http.Header, name string) {
	var fields []string
	for _, field := range header["Cookie"] {
		var kept []string
		for pair := range strings.SplitSeq(field, ";") {
			pair = textproto.TrimString(pair)
			key, _, _ := strings.Cut(pair, "=")
			if pair != "" && textproto.TrimString(key) != name {
				kept = append(kept, pair)
			}
		}
		if len(kept) > 0 {
			fields = append(fields, strings.Join(kept, "; "))
		}
	}
	if len(fields) == 0 {
		delete(header, "Cookie")
		return
	}
	header["Cookie"] = fields
}

// removeParameter takes one parameter out of the query and leaves the others as
// they came, in their order.
func removeParameter(u *url.URL, name string) {
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(key); err == nil && decoded == name {
			continue
		}
		kept = append(kept, pair)
	}
	u.RawQuery = strings.Join(kept, "&")
}

// isCrossOrigin tells whether a request that could change something may have
// been caused by another site (https://www.w3.org/TR/fetch-metadata/). Whoever
// cannot show that it was not, is taken for one.
func isCrossOrigin(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		if len(r.Header["Upgrade"]) == 0 { // a WebSocket is begun with GET
			return false
		}
	}
	if site := r.Header["Sec-Fetch-Site"]; len(site) > 0 {
		return len(site) > 1 || site[0] != "same-origin"
	}
	origins := r.Header["Origin"]
	if len(origins) != 1 {
		return true
	}
	origin, err := url.Parse(origins[0])
	if err != nil || origin.Host == "" || !strings.EqualFold(origin.Host, r.Host) {
		return true
	}
	return r.TLS != nil && origin.Scheme != "https"
}

func (h *Handler) checkTokenFrom() error {
	seen := make(map[tokenSource]bool)
	for i, source := range newTokenSources(h.TokenFrom) {
		if len(h.TokenFrom) > 0 {
			if err := h.TokenFrom[i].check(); err != nil {
				return fmt.Errorf("token_from: %w", err)
			}
		}
		if seen[source] {
			return errors.New("token_from: a place is given twice; keep one of the two")
		}
		seen[source] = true
	}
	return nil
}
