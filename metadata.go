package keycloakcacheauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/origin"
)

// wellKnownResource is where RFC 9728 section 3 puts the document of a resource
// whose URL has no path.
const wellKnownResource = "/.well-known/oauth-protected-resource"

// resourceMetadata is the document that tells clients where to get tokens for
// this resource (RFC 9728), and what leads them to it.
type resourceMetadata struct {
	path     string // on which it is served, exactly
	url      string // named in challenges
	document []byte
}

// resourceDocument has the members of RFC 9728 section 2 that we know.
type resourceDocument struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	DPoPAlgorithms       []string `json:"dpop_signing_alg_values_supported,omitempty"`
	DPoPRequired         bool     `json:"dpop_bound_access_tokens_required,omitempty"`
	Scopes               []string `json:"scopes_supported,omitempty"`
}

// newResourceMetadata makes the document for a resource, nil if it is to be
// served nowhere. Nothing in it comes from a request: whoever could choose the
// resource would choose where clients take their tokens.
func newResourceMetadata(h *Handler, resource string, issuers []Issuer) (*resourceMetadata, error) {
	if h.ResourceMetadata == "" {
		return nil, nil
	}
	u, err := url.Parse(resource)
	if err != nil {
		return nil, errors.New("resource: not a URL")
	}
	m := &resourceMetadata{path: h.ResourceMetadata}
	if m.path == resourceMetadataDefault {
		m.path = wellKnownResource + strings.TrimSuffix(u.EscapedPath(), "/")
	}
	m.url = u.Scheme + "://" + u.Host + m.path

	document := resourceDocument{Resource: resource}
	for _, issuer := range issuers {
		if !issuer.isTemplate() { // which realm is the client's, only the client knows
			document.AuthorizationServers = append(document.AuthorizationServers, issuer.URL)
		}
	}
	for _, source := range newTokenSources(h.TokenFrom) {
		switch {
		case source.from == fromHeader && source.name == authorizationHeader:
			document.BearerMethods = append(document.BearerMethods, "header")
		case source.from == fromQuery && source.name == "access_token":
			document.BearerMethods = append(document.BearerMethods, "query")
		}
	}
	if h.sender.proofs != nil {
		document.DPoPAlgorithms = h.sender.proofs.Algorithms()
		document.DPoPRequired = h.sender.required
	}
	for _, r := range h.Require {
		if r.Kind == "scope" {
			document.Scopes = append(document.Scopes, r.AnyOf...)
		}
	}
	m.document, err = json.Marshal(document)
	return m, err
}

// isFor tells whether the request asks for the document.
func (m *resourceMetadata) isFor(r *http.Request) bool {
	return m != nil && r.URL.Path == m.path
}

// serve answers a request for the document. It asks for no token: who asks has
// none yet. Pages of other origins may read it, for there is no secret in it.
func (m *resourceMetadata) serve(w http.ResponseWriter, r *http.Request) (outcome, error) {
	return serveDocument(w, r, ownDocument{"application/json", 3600, m.document, outcomeMetadata})
}

// ownDocument is something that anybody may read.
type ownDocument struct {
	mediaType string
	maxAge    int // for which it may be cached, in seconds
	text      []byte
	outcome   outcome
}

// serveDocument answers a request for a document.
func serveDocument(w http.ResponseWriter, r *http.Request, d ownDocument) (outcome, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return outcomeMethodNotAllowed, outcomeMethodNotAllowed.refusal(w.Header(), challengeDetails{})
	}
	w.Header().Set("Content-Type", d.mediaType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(d.maxAge))
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodHead {
		return d.outcome, nil
	}
	_, err := w.Write(d.text)
	return d.outcome, err
}

// challengeURL is what challenges name, "" for nothing.
func (m *resourceMetadata) challengeURL() string {
	if m == nil {
		return ""
	}
	return m.url
}

// resourceMetadataDefault stands for the path that RFC 9728 derives from the
// resource's URL.
const resourceMetadataDefault = "default"

func (h *Handler) checkResource() error {
	switch {
	case h.Resource == "" && h.ResourceMetadata == "":
		return nil
	case h.Resource == "":
		return errors.New("resource_metadata needs resource: the URL that clients know this site by, such as https://app.example.com")
	case h.ResourceMetadata == "" && (h.Assertion == nil || h.Assertion.Issuer != ""):
		return errors.New("resource is only used by resource_metadata, and by assertion without issuer; add one of them, or remove resource")
	case h.ResourceMetadata != "" && h.ResourceMetadata != resourceMetadataDefault && !isPlainPath(h.ResourceMetadata):
		return errors.New("resource_metadata is a path such as /.well-known/oauth-protected-resource, without query or escapes; leave it out for the one of RFC 9728")
	}
	if err := checkGlobalPlaceholders(h.Resource); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	if hasPlaceholder(h.Resource) {
		return nil
	}
	return checkResourceURL(h.Resource)
}

func checkResourceURL(resource string) error {
	if err := checkURL(resource, true); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	u, err := url.Parse(resource)
	switch {
	case err != nil || u.Scheme != "https" && !origin.IsLoopback(u): // RFC 9728 section 1.2
		return errors.New("resource: clients only trust https:// here; give the URL that begins with it")
	case u.Path != u.EscapedPath():
		return errors.New("resource: the URL's path has escapes; give a plain one")
	default:
		return nil
	}
}

// isPlainPath tells whether a path is written in one way only, and can stand in
// a challenge.
func isPlainPath(path string) bool {
	u, err := url.Parse(path)
	return err == nil && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") &&
		u.EscapedPath() == path && u.Path == path && u.RawQuery == "" && u.Fragment == "" && !u.ForceQuery &&
		!strings.ContainsAny(path, `"\`)
}
