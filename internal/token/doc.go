// Package token verifies access tokens of Keycloak.
//
// A [Verifier] belongs to one configuration and one issuer; a [KeySet] holds an
// issuer's signing keys and may be shared by many verifiers. The same for a template
// of issuers, one realm per tenant, are [RealmsVerifier] and [Realms]. [Issuers] choose
// among them by what the token says it is from, and keep what they verified in [Seen].
//
// What is checked, in this order, the cheap before the expensive, the first
// failure being the verdict:
//
//  1. size, and the compact form with strict base64url;
//  2. the header: one JSON object without repeated names, an algorithm from the
//     configuration, no extension, a key id;
//  3. the payload, still unproven: one JSON object without repeated names or
//     names that look like those of claims in use; iss, cnf, both typ, exp;
//  4. the key, for which the issuer may be asked, and the signature;
//  5. the claims, case-sensitively, each of its type and in its range; those of a
//     lightweight token are the issuer's answer about it ([Introspection]), of which
//     the same is asked;
//  6. what changes with time and configuration: exp, nbf, iat, lifetime, aud,
//     azp, whether the key is still the issuer's, and whether the caller verifies what
//     the token is bound to ([Config.Bound]); the proof itself is for the caller.
//
// Steps 1 to 5 are [Verifier.Authenticate], step 6 is [Verifier.Check]: who
// remembers the first's result still has to ask the second on each request. So does
// [Issuers.Verify] with what it has seen. What else a configuration asks of a token,
// [Token.Meet] and [Token.NamesTenant] answer, also on each request.
//
// Opaque tokens have nothing but an answer; and [Issuers.VerifyLogout] reads logout
// tokens, which are never taken for access tokens, nor the other way round.
//
// go-oidc's verifier, which is made for ID tokens, is not on that way: it would take each
// token apart twice more, and has no check that the steps above lack. test/oracle holds
// us to it instead: no token is accepted here that it refuses.
package token
