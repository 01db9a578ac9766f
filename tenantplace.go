package keycloakcacheauth

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Beginnings of the placeholders by which a part of the request names the
// tenant, and which are looked at beyond what the replacer makes of them.
const (
	placePath         = "http.request.uri.path"
	placeOriginalPath = "http.request.orig_uri.path"
	placeQuery        = "http.request.uri.query."
	placeHeader       = "http.request.header."
	placeCookie       = "http.request.cookie."
	placeHost         = "http.request.host"
)

// tenantPlace tells whether a part of the request can be read in one way only.
// Caddy's replacer joins, drops and chooses without a word: of two cookies it
// takes the first, and of a query what Go can decode. Whoever reads the same
// request otherwise, such as the upstream, would see another tenant.
type tenantPlace func(*http.Request) bool

// placesOf returns the places that a template reads.
func placesOf(t template) []tenantPlace {
	var places []tenantPlace
	for _, s := range t {
		key := s.foreign
		switch {
		case strings.HasPrefix(key, placePath):
			places = append(places, func(r *http.Request) bool { return isPlainRequestPath(r.URL) })
		case strings.HasPrefix(key, placeOriginalPath):
			places = append(places, isPlainOriginalPath)
		case strings.HasPrefix(key, placeQuery):
			name := key[len(placeQuery):]
			places = append(places, func(r *http.Request) bool { return isPlainParameter(r.URL.RawQuery, name) })
		case strings.HasPrefix(key, placeHeader):
			name := textproto.CanonicalMIMEHeaderKey(key[len(placeHeader):])
			places = append(places, func(r *http.Request) bool { return isOneOrNone(r.Header[name]) })
		case strings.HasPrefix(key, placeCookie):
			name := key[len(placeCookie):]
			places = append(places, func(r *http.Request) bool { return isPlainCookie(r, name) })
		case strings.HasPrefix(key, placeHost):
			places = append(places, func(r *http.Request) bool { return isPlainHost(r.Host) })
		}
	}
	return places
}

// isOneOrNone tells whether a value is there once, and not empty, or not at
// all. An empty one is not the same as none: no default takes its place.
func isOneOrNone(values []string) bool {
	return len(values) == 0 || len(values) == 1 && values[0] != ""
}

// isPlainRequestPath tells whether everybody reads the same segments in the
// path. Whoever cleans `/acme/../globex` or takes `%2F` for a slash sees another
// tenant in it than we would.
func isPlainRequestPath(u *url.URL) bool {
	if escaped := strings.ToLower(u.EscapedPath()); strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") {
		return false
	}
	segments := strings.Split(strings.TrimSuffix(u.Path, "/"), "/")
	for i, segment := range segments {
		if segment == "." || segment == ".." || segment == "" && i > 0 || strings.Contains(segment, `\`) {
			return false
		}
	}
	return true
}

// isPlainOriginalPath is isPlainRequestPath of the path before any rewrite.
func isPlainOriginalPath(r *http.Request) bool {
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	return ok && original.URL != nil && isPlainRequestPath(original.URL)
}

// isPlainParameter tells whether everybody finds the same value, or none, under
// a name in the query. A semicolon separates parameters for some and belongs to
// the value for others; what cannot be decoded is dropped by some and kept by
// others; and some do not look at case.
func isPlainParameter(query, name string) bool {
	found := 0
	for pair := range strings.SplitSeq(query, "&") {
		separated := strings.Contains(pair, ";")
		for part := range strings.SplitSeq(pair, ";") {
			key, value, _ := strings.Cut(part, "=")
			decoded, err := url.QueryUnescape(key)
			if err != nil {
				return false // it might be this one
			}
			if !strings.EqualFold(decoded, name) && !strings.EqualFold(bareName(decoded), name) {
				continue
			}
			found++
			text, err := url.QueryUnescape(value)
			if err != nil || text == "" || separated || decoded != name || found > 1 {
				return false
			}
		}
	}
	if found == 0 {
		return true
	}
	values, _ := url.ParseQuery(query) // which gives up where there are too many
	return len(values[name]) == 1
}

// bareName is what PHP and others make of a parameter's name.
func bareName(name string) string {
	name = strings.TrimLeft(name, " ")
	if end := strings.IndexAny(name, "\x00["); end >= 0 {
		name = name[:end]
	}
	return name
}

// isPlainCookie tells whether a cookie is there once, and not empty, or not at
// all. Caddy finds cookies whatever their case.
func isPlainCookie(r *http.Request, name string) bool {
	found := countCookies(r.Header, func(other string) bool { return strings.EqualFold(other, name) })
	if found == 0 {
		return true
	}
	// net/http leaves out those whose value it does not like, and all if they are too many
	var values []string
	for _, cookie := range r.Cookies() {
		if strings.EqualFold(cookie.Name, name) {
			values = append(values, cookie.Value)
		}
	}
	return found == 1 && len(values) == 1 && values[0] != ""
}

// isPlainHost tells whether no label of the host is empty, such as the one
// behind `acme.example.com.`: labels are counted from the end.
func isPlainHost(host string) bool {
	if name, _, found := strings.Cut(host, ":"); found && !strings.HasPrefix(host, "[") {
		host = name
	}
	return !slices.Contains(strings.Split(host, "."), "")
}
