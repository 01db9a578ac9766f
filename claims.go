package keycloakcacheauth

import (
	"slices"
	"strconv"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// claimsRead are the paths of the claims that the resolvers read of a token.
// What a token says there is part of the question, and so of the key under
// which the answer is cached.
type claimsRead []string

func newClaimsRead(resolvers []member.Resolver) claimsRead {
	var paths claimsRead
	for _, resolver := range resolvers {
		if reader, ok := resolver.(member.ClaimReader); ok {
			paths = append(paths, reader.Claims()...)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// of returns what the token says at the paths, and a digest of that; nil and ""
// if nothing is read.
func (c claimsRead) of(tok *token.Token) (values map[string]member.Value, digest string) {
	if len(c) == 0 {
		return nil, ""
	}
	values = make(map[string]member.Value, len(c))
	var parts []string
	for _, path := range c {
		claim, present := tok.Claim(path)
		value, readable := claimValue(path, claim)
		if !present || !readable {
			parts = append(parts, path, "absent")
			continue
		}
		values[path] = value
		if !value.IsList() {
			parts = append(parts, path, "text", value.Text())
			continue
		}
		items := value.Strings()
		parts = append(parts, path, strconv.Itoa(len(items)))
		parts = append(parts, items...)
	}
	return values, store.Digest(parts...)
}

// claimValue returns a claim as resolvers get it: a text, number or boolean as
// a text, a list of them as a list. An object is none, but for Keycloak's
// organization claim, which is one where it says more of each organization than
// its name.
func claimValue(path string, claim any) (member.Value, bool) {
	switch of := claim.(type) {
	case nil:
		return member.Value{}, false
	case map[string]any:
		if path != token.OrganizationClaim {
			return member.Value{}, false
		}
		names, ok := token.Texts(of)
		return member.List(names...), ok
	case []any:
		texts, ok := token.Texts(of)
		return member.List(texts...), ok
	default:
		return member.Text(token.Text(of)), true
	}
}

// uncached tells whether a resolver's answers are never to be cached.
func uncached(resolver member.Resolver) bool {
	one, ok := resolver.(member.Uncached)
	return ok && one.Uncached()
}
