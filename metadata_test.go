package keycloakcacheauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestResourceMetadata_SP016(t *testing.T) {
	s := newSite(t)
	for name, tc := range map[string]struct {
		resource, configured string
		path                 string
	}{
		"the RFC's path":                     {"https://app.example.com", "default", "/.well-known/oauth-protected-resource"},
		"the RFC's path, a slash at its end": {"https://app.example.com/", "default", "/.well-known/oauth-protected-resource"},
		"the RFC's path below a path":        {"https://app.example.com/api/v1", "default", "/.well-known/oauth-protected-resource/api/v1"},
		"a path of one's own":                {"https://app.example.com/api", "/oauth", "/oauth"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := load(t, s.config(func(h *Handler) {
				h.Resource, h.ResourceMetadata = tc.resource, tc.configured
				h.Require = []Requirement{{Kind: "scope", AnyOf: []string{"read"}}, {Kind: "realm_role", AnyOf: []string{"staff"}}}
			}))
			rec := serveOwn(t, h, http.MethodGet, tc.path)
			var got map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"resource": tc.resource, "authorization_servers": []any{s.realm.Issuer()},
				"bearer_methods_supported": []any{"header"}, "scopes_supported": []any{"read"},
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if kind := rec.Header().Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type is %q", kind)
			}
			refused := send(t, h, http.Header{"Host": {"evil"}, "X-Forwarded-Host": {"evil"}})
			if got, want := refused.response.Get("WWW-Authenticate"), `Bearer resource_metadata="https://app.example.com`+tc.path+`"`; got != want {
				t.Errorf("challenge %q, want %q", got, want)
			}
		})
	}
}

func TestResourceMetadataIsOnOnePathOnly(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.Resource, h.ResourceMetadata = "https://app.example.com", "default" }))
	if rec := serveOwn(t, h, http.MethodHead, wellKnownResource); rec.Body.Len() != 0 || rec.Code != 200 {
		t.Errorf("HEAD: status %d with %d bytes", rec.Code, rec.Body.Len())
	}
	for _, path := range []string{"/", wellKnownResource + "/", wellKnownResource + "x", "/x" + wellKnownResource} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if got := sendRequest(t, h, r); got.status != 401 {
			t.Errorf("%s: status %d, want 401", path, got.status)
		}
	}
	r := httptest.NewRequest(http.MethodPost, wellKnownResource, nil)
	if got := sendRequest(t, h, r); got.status != 405 || got.response.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", got.status, got.response.Get("Allow"))
	}
}

// serveOwn sends a request that the handler is to answer by itself.
func serveOwn(t *testing.T, h *Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	rec := httptest.NewRecorder()
	r := caddyhttp.PrepareRequest(httptest.NewRequest(method, path, nil), caddy.NewReplacer(), rec, nil)
	err := h.ServeHTTP(rec, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		t.Error("the next handler was called")
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
