// Package dpop verifies DPoP proofs (RFC 9449): that whoever sends an access token
// holds the private key the token is bound to.
//
// The access token itself is none of its business: package token verifies that, and
// says which key it is bound to. What is checked here, the first failure being the
// verdict:
//
//  1. size, and the compact form with strict base64url;
//  2. the header: one JSON object without repeated names, typ, an algorithm from the
//     configuration, no extension, and a public key that fits the algorithm;
//  3. that this key is the token's, before anything is computed with it;
//  4. the signature;
//  5. the claims, from what was signed: jti, htm, htu, iat, ath, and exp and nbf if
//     they are there;
//  6. the server's nonce, if there is one;
//  7. that the proof was not here before. A proof that fails before takes no place in
//     that memory.
//
// Signatures are checked with Go's own crypto packages, for the reasons package token
// has.
package dpop
