package keycloakcacheauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"
)

// Names of the default identity headers, in the canonical form of net/http.
const (
	headerUserID     = "X-User-Id"
	headerUserName   = "X-User-Name"
	headerUserEmail  = "X-User-Email"
	headerUserRoles  = "X-User-Roles"
	headerTenantID   = "X-Tenant-Id"
	headerMemberID   = "X-Member-Id"
	headerAuthStatus = "X-Auth-Status"

	headerAssertion = "X-User-Assertion"
)

// Values of X-Auth-Status.
const (
	authStatusMember    = "member"
	authStatusAnonymous = "anonymous"
)

// Header is one header that tells the upstream who the user is.
type Header struct {
	// The header's name, e.g. `X-User-ID`. Whatever the client sends under it,
	// in any spelling, is deleted. Names that HTTP itself gives a meaning, such
	// as `Connection`, `Host` or `Authorization`, are refused.
	Name string `json:"name,omitempty"`

	// The header's value: a placeholder such as `{http.auth.user.id}`, or text
	// with placeholders in it. What a placeholder stands for is
	// percent-encoded where it is not visible ASCII; lists are joined by
	// commas. A header whose value is empty is not sent.
	Value string `json:"value,omitempty"`
}

// headerRule is a Header made ready.
type headerRule struct {
	name  string // canonical
	value template
}

// parse checks the header and makes it ready.
func (h Header) parse() (headerRule, error) {
	if err := checkHeaderName(h.Name); err != nil {
		return headerRule{}, err
	}
	value, err := parseTemplate(h.Value)
	if err != nil {
		return headerRule{}, err
	}
	if len(value) == 0 {
		return headerRule{}, fmt.Errorf("%s has no value; give a placeholder such as {http.auth.user.id}", h.Name)
	}
	for _, s := range value {
		if !httpguts.ValidHeaderFieldValue(s.literal) {
			return headerRule{}, fmt.Errorf("the value of %s holds a character that no header may hold", h.Name)
		}
	}
	return headerRule{name: textproto.CanonicalMIMEHeaderKey(h.Name), value: value}, nil
}

// reservedHeaders mean something to HTTP itself or to what checks credentials:
// an identity in one of them would break the request or be taken for the
// client's. CGI makes HTTP_PROXY of Proxy, which many programs take for the proxy
// that they have to use. Names are in the spelling of [fold].
var reservedHeaders = []string{
	"accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-range", "content-type",
	"cookie", "dpop", "expect", "host", "http2-settings", "keep-alive", "origin", "proxy", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "range", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via",
	"www-authenticate", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded",
}

// checkHeaderName tells why a header of this name may not be owned.
func checkHeaderName(name string) error {
	switch {
	case name == "":
		return errors.New("the header's name is missing")
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is not a header name; use letters, digits and hyphens", name)
	case slices.Contains(reservedHeaders, string(fold(nil, name))), strings.HasPrefix(string(fold(nil, name)), "sec-"):
		return fmt.Errorf("%s has a meaning of its own in HTTP; use another name, such as X-%s", name, name)
	default:
		return nil
	}
}

// headerSet is all headers that an admitted request gets.
type headerSet struct {
	rules   []headerRule
	status  bool // also X-Auth-Status, as the default set does
	lasting bool // they tell of token, tenant and member, and of nothing else
}

// defaultHeaders are sent unless the configuration names others.
func defaultHeaders(tenantHeader string) []Header {
	headers := []Header{
		{headerUserID, "{http.auth.user.id}"},
		{headerUserName, "{http.auth.user.username}"},
		{headerUserEmail, "{http.auth.user.email}"},
		{headerUserRoles, "{http.auth.user.roles}"},
		{headerTenantID, "{http.auth.user.tenant}"},
		{headerMemberID, "{http.auth.user.member_id}"},
	}
	if textproto.CanonicalMIMEHeaderKey(tenantHeader) != headerTenantID {
		headers = append(headers, Header{tenantHeader, "{http.auth.user.tenant}"})
	}
	return append(headers, Header{headerAuthStatus, authStatusMember})
}

// newHeaderSet makes the configured headers ready, the default ones if none
// are configured and they are not turned off.
func newHeaderSet(configured []Header, off bool, tenantHeader string) (headerSet, error) {
	if off {
		return headerSet{}, nil
	}
	set := headerSet{status: len(configured) == 0, lasting: true}
	if set.status {
		configured = defaultHeaders(tenantHeader)
	}
	seen := make(map[string]bool)
	for _, header := range configured {
		rule, err := header.parse()
		if err != nil {
			return headerSet{}, err
		}
		folded := string(fold(nil, header.Name))
		if seen[folded] {
			return headerSet{}, fmt.Errorf("%s is set twice; an upstream could not tell which of the two is meant", header.Name)
		}
		seen[folded] = true
		set.rules = append(set.rules, rule)
		set.lasting = set.lasting && rule.value.isLasting()
	}
	return set, nil
}

// names returns the names of all headers in the set.
func (s headerSet) names() []string {
	names := make([]string, 0, len(s.rules))
	for _, rule := range s.rules {
		names = append(names, rule.name)
	}
	return names
}

// maxIdentitySize bounds what all identity headers of a request take together,
// in bytes: so much do Node.js and others take of headers in all. One that
// takes less says so by refusing the request; cutting an identity short would
// make another one of it.
const maxIdentitySize = 16 << 10

// setMember gives the request the headers of an admitted member, the assertion if there
// is one among them, and returns what they take. If that is more than
// [maxIdentitySize], it sets none of them. The owned names have been stripped before.
func (h *Handler) setMember(header http.Header, repl *caddy.Replacer, id *identity, asserted headerField) (size int) {
	fields, size, known := id.visit.fieldsFor(id.member)
	if !known {
		return h.setNew(header, repl, id, asserted)
	}
	return setFields(header, fields, size, asserted)
}

// setNew is setMember for headers that have to be made.
func (h *Handler) setNew(header http.Header, repl *caddy.Replacer, id *identity, asserted headerField) int {
	var room [maxFieldsOnStack]headerField
	fields, size := h.headers.of(repl, id, room[:0])
	h.visited(id, fields, size)
	return setFields(header, fields, size, asserted)
}

func setFields(header http.Header, fields []headerField, size int, asserted headerField) int {
	if size += asserted.size(); size > maxIdentitySize {
		return size
	}
	// Each request gets values of its own: Caddy's `header` directive edits them in place.
	values := make([]string, 0, len(fields)+1)
	set := func(f headerField) {
		if f.value != "" {
			values = append(values, f.value)
			header[f.name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	for _, f := range fields {
		set(f)
	}
	set(asserted)
	return size
}

// of returns the headers of an admitted member, in the room that is given, and what
// they take.
func (s headerSet) of(repl *caddy.Replacer, id *identity, room []headerField) (fields []headerField, size int) {
	fields = room
	for _, rule := range s.rules {
		f := headerField{rule.name, rule.value.header(repl, id)}
		fields, size = append(fields, f), size+f.size()
	}
	return fields, size
}

// maxFieldsOnStack is more than most sites send; there is no limit.
const maxFieldsOnStack = 16

// headerField is one field of a request. One without a value is not sent.
type headerField struct {
	name  string // canonical
	value string
}

// size is what the field takes in a request of HTTP/1.1.
func (f headerField) size() int {
	if f.value == "" {
		return 0
	}
	return len(f.name) + len(": ") + len(f.value) + len("\r\n")
}
