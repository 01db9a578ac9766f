package keycloakcacheauth

import (
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Prefixes of the placeholders that this module answers.
const (
	userPrefix   = "http.auth.user."
	modulePrefix = "http.keycloak_cache_auth."

	claimsPrefix = userPrefix + "claims."
	memberPrefix = userPrefix + "member."

	// identityKey leads from a request's replacer to its identity, so that a
	// second handler of the same request finds the first one's and replaces
	// what it says. It is no placeholder anybody can use: it has no text. It is
	// short, so that Caddy sees soon that it is none of its own.
	identityKey = "\x00kca"
)

// rolesAttribute is the attribute of a member that holds its roles.
const rolesAttribute = "roles"

// identity is what is known about the request's user, and what placeholders
// and headers are made from. Until a request is admitted it knows nobody, and
// after a refusal it knows nobody again.
type identity struct {
	// token and member are both nil, or the request is admitted. Only while
	// the tenant is being told from the claims is there a token alone.
	token  *token.Token
	member *member.Member

	tenant          string // proven
	requestedTenant string // of good syntax, nothing more
	outcome         outcome
	source          source
	loadedAt        time.Time
	memberEnd       time.Time // until when the member is good for this site without another look
	visit           *visit    // the token's last one to the tenant, or nil
}

// source is where a member was found.
type source string

const (
	sourceNone     source = "none"
	sourceMemory   source = "memory"
	sourceRedis    source = "redis"
	sourceStale    source = "stale" // too old, in memory or Redis, while the resolvers fail
	sourceResolver source = "resolver"
)

// identityOf returns the request's identity, emptied, and makes its
// placeholders known to the replacer: from here on each of them has a value,
// if only an empty one.
func identityOf(repl *caddy.Replacer) *identity {
	// What another handler has set under these names is no identity of ours,
	// and would be found before it.
	repl.DeleteByPrefix(userPrefix)

	if known, ok := repl.Get(identityKey); ok {
		id := known.(*identity)
		*id = identity{source: sourceNone}
		return id
	}
	id := &identity{source: sourceNone}
	repl.Map(id.placeholder)
	return id
}

// subject returns the Keycloak id of the user whose token was verified, "" if
// none was.
func (id *identity) subject() string {
	if id.token == nil {
		return ""
	}
	return id.token.Subject
}

// forget leaves of an identity that is none what the request says by itself.
func (id *identity) forget(decided outcome) {
	*id = identity{source: sourceNone, outcome: decided, requestedTenant: id.requestedTenant}
}

// String keeps the identity out of whatever might print it.
func (*identity) String() string { return "" }

// placeholder is a [caddy.ReplacerFunc]. Its values are data: Caddy does not
// look for placeholders in them.
func (id *identity) placeholder(key string) (any, bool) {
	switch {
	case strings.HasPrefix(key, userPrefix):
		f, known := userField(key)
		if !known {
			return "", true // never a template
		}
		return f(id).text(), true
	case key == identityKey:
		return id, true
	case strings.HasPrefix(key, modulePrefix):
		f, known := moduleField(key)
		if !known {
			return nil, false
		}
		return f(id).text(), true
	default:
		return nil, false
	}
}

// field reads one value off an identity.
type field func(*identity) fieldValue

// fieldValue is a text, or a list of texts.
type fieldValue struct {
	single string
	list   []string
}

// ownField returns the field behind one of the module's placeholders, and
// whether the name is one of the module's at all.
func ownField(key string) (f field, ours, known bool) {
	switch {
	case strings.HasPrefix(key, userPrefix):
		f, known = userField(key)
		return f, true, known
	case strings.HasPrefix(key, modulePrefix):
		f, known = moduleField(key)
		return f, true, known
	default:
		return nil, false, false
	}
}

// userField returns the field for a placeholder under `http.auth.user.`.
func userField(key string) (field, bool) {
	switch name := key[len(userPrefix):]; name {
	case "id":
		return ofToken(func(t *token.Token) string { return t.Subject }), true
	case "username":
		return ofToken(func(t *token.Token) string { return t.Username }), true
	case "name":
		return ofToken(func(t *token.Token) string { return t.Name }), true
	case "scope":
		return ofToken(func(t *token.Token) string { return strings.Join(t.Scope, " ") }), true
	case "email":
		return ofToken(func(t *token.Token) string {
			if !t.EmailVerified {
				return ""
			}
			return t.Email
		}), true
	case "email_unverified":
		return ofToken(func(t *token.Token) string { return t.Email }), true
	case "realm_roles":
		return ofTokenList(func(t *token.Token) []string { return t.RealmRoles }), true
	case "groups":
		return ofTokenList(func(t *token.Token) []string { return t.Groups }), true
	case "tenant":
		return func(id *identity) fieldValue { return fieldValue{single: id.tenant} }, true
	case "member_id":
		return func(id *identity) fieldValue {
			if id.member == nil {
				return fieldValue{}
			}
			return fieldValue{single: id.member.ID}
		}, true
	case "roles":
		return ofMember(rolesAttribute), true
	case "anonymous":
		return anonymousField, true
	}
	if path, ok := strings.CutPrefix(key, claimsPrefix); ok && path != "" {
		return ofClaim(path), true
	}
	if attribute, ok := strings.CutPrefix(key, memberPrefix); ok && attribute != "" {
		return ofMember(attribute), true
	}
	return nil, false
}

// moduleField returns the field for a placeholder under
// `http.keycloak_cache_auth.`.
func moduleField(key string) (field, bool) {
	switch key[len(modulePrefix):] {
	case "cache":
		return func(id *identity) fieldValue { return fieldValue{single: string(id.source)} }, true
	case "age":
		return ageField, true
	case "reason":
		return func(id *identity) fieldValue { return fieldValue{single: string(id.outcome)} }, true
	case "requested_tenant":
		return func(id *identity) fieldValue { return fieldValue{single: id.requestedTenant} }, true
	default:
		return nil, false
	}
}

// anonymousField says true or false once the request is admitted.
func anonymousField(id *identity) fieldValue {
	switch id.outcome {
	case outcomeMember:
		return fieldValue{single: "false"}
	case outcomeAnonymous, outcomePreflight:
		return fieldValue{single: "true"}
	default:
		return fieldValue{}
	}
}

// ageField says how many seconds ago the member was resolved.
func ageField(id *identity) fieldValue {
	if id.member == nil {
		return fieldValue{}
	}
	age := max(0, time.Since(id.loadedAt))
	return fieldValue{single: strconv.FormatInt(int64(age/time.Second), 10)}
}

func ofToken(read func(*token.Token) string) field {
	return func(id *identity) fieldValue {
		if id.token == nil {
			return fieldValue{}
		}
		return fieldValue{single: read(id.token)}
	}
}

func ofTokenList(read func(*token.Token) []string) field {
	return func(id *identity) fieldValue {
		if id.token == nil {
			return fieldValue{}
		}
		return fieldValue{list: read(id.token)}
	}
}

func ofClaim(path string) field {
	return func(id *identity) fieldValue {
		if id.token == nil {
			return fieldValue{}
		}
		claim, _ := id.token.Claim(path)
		if _, isList := claim.([]any); isList {
			if texts, ok := token.Texts(claim); ok {
				return fieldValue{list: texts}
			}
		}
		return fieldValue{single: token.Text(claim)}
	}
}

func ofMember(attribute string) field {
	return func(id *identity) fieldValue {
		if id.member == nil {
			return fieldValue{}
		}
		value := id.member.Attribute(attribute)
		if value.IsList() {
			return fieldValue{list: value.Strings()}
		}
		return fieldValue{single: value.Text()}
	}
}

// text is the value as a placeholder: a text as it is, a list joined by commas
// with `%`, commas and control characters in its items percent-encoded, so
// that every list can be told from every other, but for one of an empty item
// from one of none.
func (v fieldValue) text() string {
	if v.list == nil {
		return v.single
	}
	return joinEscaped(v.list, unsafeInTextItem)
}

// header is the value as a header field's: visible ASCII and inner spaces as
// they are, every other byte, and `%` itself, percent-encoded (RFC 3986
// section 2.1). A list is joined by commas, those in its items encoded. So any
// value can be had back, and none can end the field or add another item.
func (v fieldValue) header() string {
	if v.list == nil {
		return escapeText(v.single)
	}
	return joinEscaped(v.list, unsafeInHeaderItem)
}

var (
	unsafeInTextItem   = charsThat(func(c byte) bool { return c == '%' || c == ',' || c < ' ' || c == 0x7f })
	unsafeInHeader     = charsThat(func(c byte) bool { return c < ' ' || c > '~' || c == '%' })
	unsafeInHeaderItem = charsThat(func(c byte) bool { return unsafeInHeader[c] || c == ',' || c == ' ' })
)

// escapeText encodes one text for a header. Spaces at its ends are encoded
// too, for HTTP takes them off.
func escapeText(s string) string {
	if s == "" {
		return ""
	}
	if unsafeInHeader.count(s) == 0 && s[0] != ' ' && s[len(s)-1] != ' ' {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := range len(s) {
		atEnd := i == 0 || i == len(s)-1
		writeEscaped(&b, s[i], unsafeInHeader[s[i]] || (atEnd && s[i] == ' '))
	}
	return b.String()
}

func joinEscaped(items []string, unsafe *charSet) string {
	size, escaped := len(items)-1, 0
	for _, item := range items {
		size += len(item)
		escaped += unsafe.count(item)
	}
	if escaped == 0 { // nearly always, and so the least work
		return strings.Join(items, ",")
	}
	var b strings.Builder
	b.Grow(size + 2*escaped)
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		for j := range len(item) {
			writeEscaped(&b, item[j], unsafe[item[j]])
		}
	}
	return b.String()
}

// charSet tells of each byte whether it is in a set.
type charSet [256]bool

func charsThat(belong func(c byte) bool) *charSet {
	var set charSet
	for i := range set {
		set[i] = belong(byte(i))
	}
	return &set
}

// count returns how many bytes of s are in the set.
func (set *charSet) count(s string) (n int) {
	for i := range len(s) {
		if set[s[i]] {
			n++
		}
	}
	return n
}

func writeEscaped(b *strings.Builder, c byte, escape bool) {
	if !escape {
		b.WriteByte(c)
		return
	}
	const hex = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(hex[c>>4])
	b.WriteByte(hex[c&15])
}
