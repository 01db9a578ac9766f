// Package introspect asks one issuer's token introspection endpoint (RFC 7662) what
// it says of a token.
//
// It serves tokens that do not say enough themselves: Keycloak's lightweight access
// tokens, and opaque ones. It neither judges nor remembers what it is told, but it
// bounds it, and makes sure that all who read the answer read the same.
//
// "active": true does not mean "an access token for us". Observed with Keycloak
// 26.7.3: an ID token is active for the client that logged in, and a refresh token for
// clients exempt from the audience check below, with typ and token_type "ID" and
// "Refresh"; before that check both were active for every client. So who asks has to
// check typ and all other claims of the answer as strictly as those of a token.
//
// Since its version 26.6.2, Keycloak calls a token inactive unless the client that
// asks is in the `aud` of the answer (a lightweight token itself has none): the client
// that logs in needs an audience mapper that names the introspecting client, with "Add
// to token introspection". Until it is removed, the introspecting client's attribute
// allow.token.introspection.without.audience.check exempts from that.
package introspect
