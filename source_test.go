package keycloakcacheauth

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestTokenSources(t *testing.T) {
	const good = "eyJh.eyJp.c2ln"
	everywhere := []TokenSource{{From: "header"}, {From: "cookie", Name: "sid"}, {From: "query", Name: "access_token"}, {From: "header", Name: "X-Token"}}
	for name, tc := range map[string]struct {
		sources   []TokenSource
		url       string
		fields    http.Header
		wantToken string
		wantFault outcome
	}{
		"the header, by default":                            {nil, "/", http.Header{"Authorization": {"Bearer " + good}}, good, ""},
		"HS-009 a query parameter that is no source":        {nil, "/?access_token=" + good, nil, "", outcomeMissingToken},
		"a cookie that is no source":                        {nil, "/", http.Header{"Cookie": {"sid=" + good}}, "", outcomeMissingToken},
		"a cookie":                                          {everywhere, "/", http.Header{"Cookie": {"a=b; sid=" + good}}, good, ""},
		"a query parameter":                                 {everywhere, "/?x=1&access_token=" + good, nil, good, ""},
		"a query parameter with an escaped name":            {everywhere, "/?%61ccess_token=" + good, nil, good, ""},
		"another header":                                    {everywhere, "/", http.Header{"X-Token": {good}}, good, ""},
		"nowhere":                                           {everywhere, "/?y=1", http.Header{"Cookie": {"a=b"}}, "", outcomeMissingToken},
		"HS-010 header and query":                           {everywhere, "/?access_token=" + good, http.Header{"Authorization": {"Bearer " + good}}, "", outcomeMultipleCredentials},
		"header and cookie":                                 {everywhere, "/", http.Header{"Authorization": {"Bearer " + good}, "Cookie": {"sid=" + good}}, "", outcomeMultipleCredentials},
		"a malformed header and a good cookie":              {everywhere, "/", http.Header{"Authorization": {"Bearer"}, "Cookie": {"sid=" + good}}, "", outcomeMultipleCredentials},
		"another scheme and a good cookie":                  {everywhere, "/", http.Header{"Authorization": {"Basic YTpi"}, "Cookie": {"sid=" + good}}, good, ""},
		"the same cookie twice":                             {everywhere, "/", http.Header{"Cookie": {"sid=" + good + "; sid=" + good}}, "", outcomeMultipleCredentials},
		"the same parameter twice":                          {everywhere, "/?access_token=a&access_token=b", nil, "", outcomeMultipleCredentials},
		"an empty cookie":                                   {everywhere, "/", http.Header{"Cookie": {"sid="}}, "", outcomeMalformedAuthorization},
		"a parameter that the verifier will refuse":         {everywhere, "/?access_token=a%20b", nil, "a b", ""},
		"a cookie that Go passes over":                      {everywhere, "/", http.Header{"Cookie": {"sid=" + good + "\""}}, "", outcomeMalformedAuthorization},
		"a cookie that Go passes over, and a good one":      {everywhere, "/", http.Header{"Cookie": {"sid=" + good + "; sid=x\""}}, "", outcomeMultipleCredentials},
		"a cookie among more than Go takes":                 {everywhere, "/", http.Header{"Cookie": {"sid=" + good + strings.Repeat(";a", 5000)}}, "", outcomeMalformedAuthorization},
		"a parameter that Go passes over":                   {everywhere, "/?access_token=x%zz", nil, "", outcomeMalformedAuthorization},
		"a parameter with a semicolon":                      {everywhere, "/?access_token=x;a", nil, "", outcomeMalformedAuthorization},
		"a parameter that Go passes over, and a good one":   {everywhere, "/?access_token=" + good + "&access_token=x%zz", nil, "", outcomeMultipleCredentials},
		"only the cookie counts, whatever is in the header": {[]TokenSource{{From: "cookie", Name: "sid"}}, "/", http.Header{"Authorization": {"Bearer " + good}}, "", outcomeMissingToken},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tc.url, nil)
			if tc.fields != nil {
				r.Header = tc.fields
			}
			got := newTokenSources(tc.sources).take(r)
			if got.token != tc.wantToken || got.fault != tc.wantFault {
				t.Errorf("got token %q and fault %q, want %q and %q", got.token, got.fault, tc.wantToken, tc.wantFault)
			}
		})
	}
}

// strip_token takes the token out of wherever it was, and nothing else.
func TestStripTokenCoversEverySource(t *testing.T) {
	s := newSite(t)
	tok := s.token("alice")
	h, _ := load(t, s.config(func(h *Handler) {
		h.StripToken = true
		h.TokenFrom = []TokenSource{{From: "header"}, {From: "cookie", Name: "sid"}, {From: "query", Name: "access_token"}}
	}))
	for name, tc := range map[string]struct {
		url        string
		fields     http.Header
		wantQuery  string
		wantCookie []string
	}{
		"header": {"/", http.Header{"Authorization": {"Bearer " + tok}, "Cookie": {"a=b"}}, "", []string{"a=b"}},
		"cookie": {"/?q=1", http.Header{"Cookie": {"a=b; sid=" + tok + "; c=d", "sid2=x"}}, "q=1", []string{"a=b; c=d", "sid2=x"}},
		"query":  {"/?b=2&access_token=" + tok + "&a=%20x", http.Header{"Cookie": {"a=b"}}, "b=2&a=%20x", []string{"a=b"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tc.url, nil)
			r.Header = tc.fields
			r.Header["X-Tenant-Id"] = []string{"t1"}
			got := sendRequest(t, h, r)
			if got.status != 0 {
				t.Fatalf("status %d", got.status)
			}
			if got.request.Get("Authorization") != "" {
				t.Error("Authorization went on")
			}
			if cookies := got.request["Cookie"]; !slices.Equal(cookies, tc.wantCookie) {
				t.Errorf("cookies %q, want %q", cookies, tc.wantCookie)
			}
			for _, name := range []string{"http.request.uri.query", "http.request.orig_uri.query"} {
				if query := got.placeholder(name); query != tc.wantQuery {
					t.Errorf("{%s} is %q, want %q", name, query, tc.wantQuery)
				}
			}
		})
	}
}

// HS-010: a request that is refused, or passes without a user, may still reach
// somebody: an error route that proxies it on, or the upstream of a preflight.
func TestStripTokenAlsoFromRequestsWithoutAUser(t *testing.T) {
	s := newSite(t)
	tok := s.token("alice")
	h, _ := load(t, s.config(func(h *Handler) {
		h.StripToken = true
		h.TokenFrom = []TokenSource{{From: "header"}, {From: "cookie", Name: "sid"}}
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header["Authorization"] = []string{"Bearer " + tok, "DPoP " + tok}
	r.Header["Cookie"] = []string{"sid=" + tok + "; a=b"}
	if got := sendRequest(t, h, r); got.status != 400 {
		t.Fatalf("status %d, want 400", got.status)
	}
	if len(r.Header["Authorization"]) != 0 || r.Header.Get("Cookie") != "a=b" {
		t.Errorf("left: Authorization %d times, Cookie %q", len(r.Header["Authorization"]), r.Header.Get("Cookie"))
	}
}

// A cookie comes along whoever made the browser send the request.
func TestCookieNeedsSameOrigin(t *testing.T) {
	s := newSite(t)
	tok := s.token("alice")
	h, _ := load(t, s.config(func(h *Handler) {
		h.TokenFrom = []TokenSource{{From: "header"}, {From: "cookie", Name: "sid"}}
	}))
	for name, tc := range map[string]struct {
		method string
		fields http.Header
		tls    bool
		want   int
	}{
		"GET":                                     {method: http.MethodGet},
		"HEAD":                                    {method: http.MethodHead},
		"OPTIONS":                                 {method: http.MethodOptions},
		"GET from another site":                   {method: http.MethodGet, fields: http.Header{"Sec-Fetch-Site": {"cross-site"}}},
		"POST that says nothing":                  {method: http.MethodPost, want: 403},
		"DELETE that says nothing":                {method: http.MethodDelete, want: 403},
		"an unheard-of method":                    {method: "FROB", want: 403},
		"POST of the same origin":                 {method: http.MethodPost, fields: http.Header{"Sec-Fetch-Site": {"same-origin"}}},
		"POST of the same site only":              {method: http.MethodPost, fields: http.Header{"Sec-Fetch-Site": {"same-site"}}, want: 403},
		"POST of another site":                    {method: http.MethodPost, fields: http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"http://site.example"}}, want: 403},
		"POST that says both":                     {method: http.MethodPost, fields: http.Header{"Sec-Fetch-Site": {"same-origin", "cross-site"}}, want: 403},
		"POST with our Origin":                    {method: http.MethodPost, fields: http.Header{"Origin": {"http://site.example"}}},
		"POST with our Origin in capitals":        {method: http.MethodPost, fields: http.Header{"Origin": {"http://SITE.example"}}},
		"POST with another Origin":                {method: http.MethodPost, fields: http.Header{"Origin": {"http://evil.example"}}, want: 403},
		"POST with an Origin that begins like it": {method: http.MethodPost, fields: http.Header{"Origin": {"http://site.example.evil"}}, want: 403},
		"POST with another port":                  {method: http.MethodPost, fields: http.Header{"Origin": {"http://site.example:81"}}, want: 403},
		"POST with no Origin to tell":             {method: http.MethodPost, fields: http.Header{"Origin": {"null"}}, want: 403},
		"POST with two Origins":                   {method: http.MethodPost, fields: http.Header{"Origin": {"http://site.example", "http://evil"}}, want: 403},
		"POST over TLS from plain HTTP":           {method: http.MethodPost, tls: true, fields: http.Header{"Origin": {"http://site.example"}}, want: 403},
		"POST over TLS":                           {method: http.MethodPost, tls: true, fields: http.Header{"Origin": {"https://site.example"}}},
		"a WebSocket of another site":             {method: http.MethodGet, fields: http.Header{"Upgrade": {"websocket"}, "Origin": {"http://evil.example"}}, want: 403},
		"a WebSocket of ours":                     {method: http.MethodGet, fields: http.Header{"Upgrade": {"websocket"}, "Origin": {"http://site.example"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, "http://site.example/", nil)
			if tc.fields != nil {
				r.Header = tc.fields
			}
			if tc.tls {
				r.TLS = new(tls.ConnectionState)
			}
			r.Header["Cookie"] = []string{"sid=" + tok}
			r.Header["X-Tenant-Id"] = []string{"t1"}
			if got := sendRequest(t, h, r); got.status != tc.want {
				t.Errorf("status %d, want %d", got.status, tc.want)
			}
			delete(r.Header, "Cookie")
			r.Header["Authorization"] = []string{"Bearer " + tok} // nobody's browser sends that by itself
			r.Header["X-Tenant-Id"] = []string{"t1"}
			if got := sendRequest(t, h, r); got.status != 0 {
				t.Errorf("with the token in the header, status %d", got.status)
			}
		})
	}
}

// What net/http passes over may be a token to who comes next.
func TestStripTokenTakesWhatGoPassesOver(t *testing.T) {
	sources := newTokenSources([]TokenSource{{From: "cookie", Name: "sid"}, {From: "query", Name: "access_token"}})
	r := httptest.NewRequest(http.MethodGet, "/?b=2&access_token=x%zz", nil)
	r.Header.Set("Cookie", `a=b; sid=x"; c=d`)
	sources.remove(r)
	if got := r.Header.Get("Cookie"); got != "a=b; c=d" {
		t.Errorf("the cookies are %q", got)
	}
	if r.URL.RawQuery != "b=2" {
		t.Errorf("the query is %q", r.URL.RawQuery)
	}
}
