package token

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/origin"
)

// Placeholder stands in a template for the tenant.
const Placeholder = "{tenant}"

// maxTenant bounds a tenant in a URL, in bytes.
const maxTenant = 63

// Template is the URL of many realms, one per tenant:
// https://sso.example.com/realms/{tenant}. The tenant is one whole segment of the
// path, byte for byte: nothing is escaped or unescaped.
type Template struct{ before, after string }

// ParseTemplate reads a URL with one {tenant}, as a whole segment of its path.
func ParseTemplate(text string) (Template, error) {
	before, after, found := strings.Cut(text, Placeholder)
	switch {
	case !found:
		return Template{}, errors.New("has no {tenant}")
	case strings.Contains(after, Placeholder):
		return Template{}, errors.New("has more than one {tenant}")
	}
	u, err := origin.Parse(before + "t" + after)
	if err != nil {
		return Template{}, err
	}
	// Of what parses as a URL, anything after "//" and the next slash is the path.
	_, authorityAndPath, _ := strings.Cut(before, "//")
	switch {
	case u.RawQuery != "" || u.ForceQuery:
		return Template{}, errors.New("has a query")
	case !strings.Contains(authorityAndPath, "/"):
		return Template{}, errors.New("has {tenant} outside of its path: a tenant must not choose the host")
	case !strings.HasSuffix(before, "/") || after != "" && after[0] != '/':
		return Template{}, fmt.Errorf("has %s as a part of a segment: it has to be a whole one, "+
			"as in https://sso.example.com/realms/%s", Placeholder, Placeholder)
	case u.Path != u.EscapedPath() || hasDotSegment(u):
		return Template{}, errors.New("has escapes, or . or .. in its path")
	}
	return Template{before, after}, nil
}

// hasDotSegment also sees escaped ones, which servers resolve all the same.
func hasDotSegment(u *url.URL) bool {
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// String is the text the template was read from.
func (t Template) String() string { return t.before + Placeholder + t.after }

// Tenant returns what {tenant} stands for if text is a URL of the template. Only what
// may stand in a segment as it is can be a tenant: 1 to 63 bytes, no escapes, slashes,
// colons or semicolons, and neither . nor .. .
func (t Template) Tenant(text string) (tenant string, ok bool) {
	rest, begins := strings.CutPrefix(text, t.before)
	tenant, ends := strings.CutSuffix(rest, t.after)
	if !begins || !ends || !isSegment(tenant) {
		return "", false
	}
	return tenant, true
}

// URL is the template's URL for a tenant that [Template.Tenant] returned.
func (t Template) URL(tenant string) string { return t.before + tenant + t.after }

// isSegment takes what RFC 3986 §3.3 lets stand in a path segment (pchar), less
// three: % begins an escape, of which there are many for one byte; servers read a
// semicolon as the end of the segment's name; a colon separates the parts of keys.
func isSegment(text string) bool {
	if text == "" || len(text) > maxTenant || text == "." || text == ".." {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~!$&'()*+,=@", c) >= 0:
		default:
			return false
		}
	}
	return true
}
