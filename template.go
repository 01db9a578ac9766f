package keycloakcacheauth

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// template is a configured text with placeholders, taken apart when the
// configuration is loaded. The module's own placeholders are read straight off
// the identity, so that a list in a header is encoded once and nothing another
// handler has set can stand for them.
type template []segment

// segment is a literal, one of the module's own fields, or another placeholder.
type segment struct {
	literal string
	own     field
	lasting bool // own tells of token, tenant and member, and of nothing else
	foreign string
}

// parseTemplate takes text apart. Braces that are no placeholder are written
// `\{` and `\}`, as everywhere in Caddy.
func parseTemplate(text string) (template, error) {
	var t template
	var literal strings.Builder
	endLiteral := func() {
		if literal.Len() > 0 {
			t = append(t, segment{literal: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == '{' || text[i+1] == '}'):
			i++
			literal.WriteByte(text[i])
		case c == '{':
			length := strings.IndexByte(text[i:], '}')
			if length < 0 {
				return nil, fmt.Errorf("%q has an opening brace without a closing one; write \\{ for a literal brace", text)
			}
			s, err := parsePlaceholder(text[i+1 : i+length])
			if err != nil {
				return nil, err
			}
			endLiteral()
			t = append(t, s)
			i += length
		default:
			literal.WriteByte(c)
		}
	}
	endLiteral()
	return t, nil
}

// foreignPrefixes begin the placeholders that Caddy itself or another module
// may know. Everything else is a misspelling.
var foreignPrefixes = []string{"http.", "env.", "system.", "time.", "tls.", "geoip", "extra."}

func parsePlaceholder(key string) (segment, error) {
	if own, ours, known := ownField(key); ours {
		if !known {
			return segment{}, fmt.Errorf("{%s} is not a placeholder of keycloak_cache_auth; see its list in the documentation", key)
		}
		return segment{own: own, lasting: strings.HasPrefix(key, userPrefix)}, nil
	}
	switch {
	case key == "http.request.body", key == "http.request.body_base64":
		return segment{}, fmt.Errorf("{%s} would read the whole body of each request; use another placeholder", key)
	case strings.HasPrefix(key, "file."):
		return segment{}, fmt.Errorf("{%s} would read a file at each request; use another placeholder", key)
	}
	for _, prefix := range foreignPrefixes {
		if strings.HasPrefix(key, prefix) {
			return segment{foreign: key}, nil
		}
	}
	return segment{}, fmt.Errorf("{%s} is not a known placeholder; use its full name, such as {http.auth.user.id} or {http.request.host}", key)
}

// needsIdentity tells whether the text depends on the request's user.
func (t template) needsIdentity() bool {
	for _, s := range t {
		if s.own != nil {
			return true
		}
	}
	return false
}

// isLasting tells whether the text of an admitted member is the same for all requests
// of one token to one tenant, as long as the member is the same.
func (t template) isLasting() bool {
	for _, s := range t {
		if s.own != nil && !s.lasting || s.foreign != "" {
			return false
		}
	}
	return true
}

// readsOnly tells whether the template has placeholders, and all of them begin
// like this.
func (t template) readsOnly(prefix string) bool {
	reads := false
	for _, s := range t {
		if s.own != nil || s.foreign != "" && !strings.HasPrefix(s.foreign, prefix) {
			return false
		}
		reads = reads || s.foreign != ""
	}
	return reads
}

// text fills the template in as it is. What placeholders stand for is data and
// is not looked through again.
func (t template) text(repl *caddy.Replacer, id *identity) string {
	return t.render(repl, id, fieldValue.text, func(s string) string { return s })
}

// header fills the template in as the value of a header field.
func (t template) header(repl *caddy.Replacer, id *identity) string {
	return t.render(repl, id, fieldValue.header, escapeText)
}

func (t template) render(repl *caddy.Replacer, id *identity, own func(fieldValue) string, foreign func(string) string) string {
	fill := func(s segment) string {
		switch {
		case s.own != nil:
			return own(s.own(id))
		case s.foreign != "":
			value, _ := repl.GetString(s.foreign)
			return foreign(value)
		default:
			return s.literal
		}
	}
	if len(t) == 1 {
		return fill(t[0])
	}
	var b strings.Builder
	for _, s := range t {
		b.WriteString(fill(s))
	}
	return b.String()
}
