package httpresolver

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

// claimPrefix begins the parameters that stand for claims.
const claimPrefix = "claim."

// errNotAsked says that no URL can ask for the user, because a value of the query
// would lead to another place than the template says. Who cannot be asked for is
// not a member.
var errNotAsked = fmt.Errorf("%w: no URL can ask for the user", member.ErrUnknown)

// template is a URL with parameters in its path and query.
type template struct {
	origin string // scheme and host, which no parameter can change
	path   []part
	query  []part // each a whole `name=value`
}

// part is a text, or one that ends with a parameter.
type part struct {
	text  string // is in the URL as it stands
	param string // "" for none
}

// parseTemplate reads a URL in which {tenant}, {kc_id}, {issuer} and {claim.<path>}
// are parameters, and all else in braces are global placeholders, which are expanded.
// Its errors quote nothing, for the URL may hold a secret.
func parseTemplate(text string, insecureHTTP bool) (*template, error) {
	hidden, params, err := hideParams(text)
	if err != nil {
		return nil, err
	}
	expanded, err := options.Expand(hidden)
	if err != nil {
		return nil, err
	}
	if strings.Count(expanded, mark) != 2*len(params) {
		return nil, errors.New("it holds a NUL character; remove it")
	}
	pieces := strings.Split(expanded, mark)

	// With plain text for the parameters it must be a URL that can be asked.
	sample := slices.Clone(pieces)
	for i := 1; i < len(sample); i += 2 {
		sample[i] = "x"
	}
	plain := strings.Join(sample, "")
	u, err := url.Parse(plain)
	if err != nil || strings.ContainsFunc(plain, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return nil, errors.New("not a URL; give one such as https://app.example.com/members/{tenant}/{kc_id}")
	}
	if err := remote.CheckURL(u, insecureHTTP); err != nil {
		return nil, err
	}
	if hasDotSegment(u.EscapedPath()) {
		return nil, errors.New(`its path has a segment "." or ".."; write where that leads`)
	}
	t := &template{origin: u.Scheme + "://" + u.Host}
	return t, t.parse(expanded, params)
}

// mark stands before and after the number of a parameter while the placeholders
// are expanded. No configuration can hold it.
const mark = "\x00"

// hideParams replaces the parameters by their numbers.
func hideParams(text string) (hidden string, params []string, err error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			return b.String(), params, nil
		}
		name, after, closed := strings.Cut(rest, "}")
		claim, isClaim := strings.CutPrefix(name, claimPrefix)
		switch {
		case isClaim && closed:
			if err := options.CheckClaim(claim); err != nil {
				return "", nil, err
			}
			fallthrough
		case closed && slices.Contains([]string{"tenant", "kc_id", "issuer"}, name):
			b.WriteString(mark + strconv.Itoa(len(params)) + mark)
			params = append(params, name)
			text = after
		default:
			b.WriteByte('{')
			text = rest
		}
	}
}

// parse fills in the path and the query.
func (t *template) parse(expanded string, params []string) error {
	rest, ok := strings.CutPrefix(expanded, t.origin)
	if !ok {
		return errors.New("its scheme and host must be in lower case, and have no parameters in them")
	}
	path, query, _ := strings.Cut(rest, "?")
	if path != "" && path[0] != '/' {
		return errors.New("its host must have no parameters in it")
	}
	if path == "" {
		path = "/" // as it is sent
	}
	t.path = split(path, params)
	for _, p := range t.path {
		if p.param == "issuer" {
			return errors.New("{issuer} holds slashes and cannot be in the path; put it into the query: ?issuer={issuer}")
		}
	}
	for pair := range strings.SplitSeq(query, "&") {
		parts := split(pair, params)
		switch {
		case len(parts) == 0:
			continue
		case len(parts) == 1 && (parts[0].param == "" || strings.Count(parts[0].text, "=") == 1 && strings.HasSuffix(parts[0].text, "=") && len(parts[0].text) > 1):
			t.query = append(t.query, parts[0])
		default:
			return errors.New("a parameter in the query must be a whole value, as in ?tenant={tenant}&kc_id={kc_id}")
		}
	}
	return nil
}

// split cuts a text after each parameter.
func split(text string, params []string) []part {
	var parts []part
	pieces := strings.Split(text, mark)
	for i := 0; i < len(pieces); i += 2 {
		p := part{text: pieces[i]}
		if i+1 < len(pieces) {
			number, _ := strconv.Atoi(pieces[i+1]) // as hideParams wrote it
			p.param = params[number]
		}
		if p != (part{}) {
			parts = append(parts, p)
		}
	}
	return parts
}

// String returns the URL with its parameters, and the placeholders expanded.
func (t *template) String() string {
	var b strings.Builder
	b.WriteString(t.origin)
	for _, p := range t.path {
		b.WriteString(p.String())
	}
	for i, p := range t.query {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(p.String())
	}
	return b.String()
}

func (p part) String() string {
	if p.param == "" {
		return p.text
	}
	return p.text + "{" + p.param + "}"
}

// params returns the names of the parameters, some perhaps twice.
func (t *template) params() []string {
	var names []string
	for _, p := range slices.Concat(t.path, t.query) {
		if p.param != "" {
			names = append(names, p.param)
		}
	}
	return names
}

// expand returns the URL for a query. Values are percent-encoded. In the path they
// must be single texts that no server could take for a part of the path itself: of a
// value with a slash in it, decoders make segments. In the query, the pair of an
// absent claim is left out, and that of a list is repeated.
func (t *template) expand(q member.Query) (string, error) {
	var b strings.Builder
	for _, p := range t.path {
		b.WriteString(p.text)
		if p.param == "" {
			continue
		}
		value, present := valueOf(p.param, q)
		if text := value.Text(); !present || text == "" || strings.ContainsFunc(text, divides) {
			return "", errNotAsked
		}
		b.WriteString(url.PathEscape(value.Text()))
	}
	path := b.String()
	if hasDotSegment(path) {
		return "", errNotAsked
	}
	var pairs []string
	for _, p := range t.query {
		if p.param == "" {
			pairs = append(pairs, p.text)
			continue
		}
		value, present := valueOf(p.param, q)
		if !present {
			continue
		}
		for _, item := range value.Strings() {
			pairs = append(pairs, p.text+url.QueryEscape(item))
		}
	}
	if len(pairs) == 0 {
		return t.origin + path, nil
	}
	return t.origin + path + "?" + strings.Join(pairs, "&"), nil
}

func valueOf(param string, q member.Query) (member.Value, bool) {
	switch param {
	case "tenant":
		return member.Text(q.Tenant), true
	case "kc_id":
		return member.Text(q.KCID), true
	case "issuer":
		return member.Text(q.Issuer), true
	}
	value, present := q.Claims[strings.TrimPrefix(param, claimPrefix)]
	return value, present
}

// divides tells whether a character could end a segment of a path.
func divides(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) }

// hasDotSegment tells whether a path leads elsewhere than it seems to.
func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment, err := url.PathUnescape(segment); err != nil || segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
