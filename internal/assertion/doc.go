// Package assertion signs what an upstream needs to know of a request's user, so that
// it need not trust the network between: short-lived JWTs (RFC 7519), signed with
// Ed25519 or ECDSA on P-256 keys of the site's own.
//
// The header is {"alg":"EdDSA" or "ES256","kid":…,"typ":"kca-assertion+jwt"}. kid is the
// key's thumbprint (RFC 7638). The type keeps assertions and other tokens apart (RFC
// 8725 section 3.11): an upstream that compares it takes no access token for an
// assertion, nor does anybody take an assertion for an access token.
//
// The claims:
//
//	iss        the site, as configured
//	aud        whom it is for: a string, or an array of several
//	sub        the user's Keycloak id
//	tenant     the tenant the request is for
//	member_id  the application's own id of the member
//	roles      the member's roles: an array, perhaps empty
//	iat, exp   seconds since 1970
//
// exp is no later than the token's, nor than the end of the member's cache entry. There
// is no jti, for an assertion is used for many requests, and no azp: upstreams that
// need more get it in headers. Where several issuers serve one tenant, sub alone may
// mean two users; tenant and member_id together never do.
package assertion
