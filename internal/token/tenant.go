package token

import "slices"

// OrganizationClaim is where Keycloak puts the organizations of a user.
const OrganizationClaim = "organization"

// NamesTenant reports whether the claim at path, as [Token.Claim] finds it, names the
// tenant: it is that string, or a list of strings of which one is. Keycloak's
// organization claim may also be an object with the organizations' aliases as names.
// A claim that is absent, or of any other type, names nobody. Names are compared byte
// for byte.
func (t *Token) NamesTenant(path, tenant string) bool {
	claim, ok := t.Claim(path)
	if !ok || tenant == "" {
		return false
	}
	switch of := claim.(type) {
	case string:
		return of == tenant
	case []any:
		return slices.Contains(of, any(tenant)) && !slices.ContainsFunc(of, func(name any) bool {
			_, isText := name.(string)
			return !isText
		})
	case map[string]any:
		_, named := of[tenant]
		return named && path == OrganizationClaim
	}
	return false
}
