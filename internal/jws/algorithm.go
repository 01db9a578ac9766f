// Package jws knows the algorithms that signatures of tokens and proofs may be made
// with, and verifies them (RFC 7515 §5.2, RFC 7518 §3).
package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that algorithms name
	_ "crypto/sha512"
	"math/big"
	"slices"
)

// DefaultAlgorithms are accepted where none are configured: what Keycloak signs
// with, as far as one algorithm per kind of key goes.
func DefaultAlgorithms() []string { return []string{"RS256", "PS256", "ES256", "EdDSA"} }

// Algorithm is one way to sign (RFC 7518 §3.1, RFC 8037, RFC 9864).
type Algorithm struct {
	KeyType string      // kty of its keys
	Curve   string      // crv of its keys, where they have one
	Hash    crypto.Hash // zero where the algorithm signs what it is given
	PSS     bool
}

// Named knows every algorithm this package can verify. HMAC and none
// are not among them, and never may be: the key would be a published one (RFC 8725
// §2.1, RFC 9449 §4.2).
func Named(name string) (Algorithm, bool) {
	switch name {
	case "RS256":
		return Algorithm{KeyType: "RSA", Hash: crypto.SHA256}, true
	case "RS384":
		return Algorithm{KeyType: "RSA", Hash: crypto.SHA384}, true
	case "RS512":
		return Algorithm{KeyType: "RSA", Hash: crypto.SHA512}, true
	case "PS256":
		return Algorithm{KeyType: "RSA", Hash: crypto.SHA256, PSS: true}, true
	case "PS384":
		return Algorithm{KeyType: "RSA", Hash: crypto.SHA384, PSS: true}, true
	case "PS512":
		return Algorithm{KeyType: "RSA", Hash: crypto.SHA512, PSS: true}, true
	case "ES256":
		return Algorithm{KeyType: "EC", Curve: "P-256", Hash: crypto.SHA256}, true
	case "ES384":
		return Algorithm{KeyType: "EC", Curve: "P-384", Hash: crypto.SHA384}, true
	case "ES512":
		return Algorithm{KeyType: "EC", Curve: "P-521", Hash: crypto.SHA512}, true
	case "EdDSA", "Ed25519":
		return Algorithm{KeyType: "OKP", Curve: "Ed25519"}, true
	}
	return Algorithm{}, false
}

// Same compares names. RFC 9864 gives EdDSA over Ed25519 a name of its
// own; both mean the same here, because Ed448 is not supported.
func Same(a, b string) bool {
	return a == b || isEd25519(a) && isEd25519(b)
}

func isEd25519(name string) bool { return name == "EdDSA" || name == "Ed25519" }

// WithAliases adds the second name of what is known by two.
func WithAliases(names []string) []string {
	all := slices.Clone(names)
	if slices.ContainsFunc(names, isEd25519) {
		all = append(all, "EdDSA", "Ed25519")
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Verify reports whether signature is public's over signed.
//
// The standard library is called directly, not through go-jose: that takes any
// PSS salt length where RFC 7518 §3.5 names one, does not know the name Ed25519,
// and would parse the token once more.
func (a Algorithm) Verify(public crypto.PublicKey, signed, signature []byte) bool {
	var digest []byte
	if a.Hash != 0 {
		h := a.Hash.New()
		_, _ = h.Write(signed) // a hash returns no error
		digest = h.Sum(nil)
	}
	switch key := public.(type) {
	case *rsa.PublicKey:
		switch {
		case a.KeyType != "RSA":
			return false
		case a.PSS:
			exact := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.VerifyPSS(key, a.Hash, digest, signature, exact) == nil
		default:
			return rsa.VerifyPKCS1v15(key, a.Hash, digest, signature) == nil
		}
	case *ecdsa.PublicKey:
		return a.KeyType == "EC" && key.Curve.Params().Name == a.Curve &&
			verifyECDSA(key, digest, signature)
	case ed25519.PublicKey:
		return a.KeyType == "OKP" && ed25519.Verify(key, signed, signature)
	}
	return false
}

// verifyECDSA takes the JWS form, two numbers of fixed length (RFC 7518 §3.4),
// and no other: neither ASN.1 nor shortened ones.
func verifyECDSA(key *ecdsa.PublicKey, digest, signature []byte) bool {
	size := (key.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(key, digest, r, s)
}

// CurveNamed is the curve an ECDSA key may be on, or nil.
func CurveNamed(name string) elliptic.Curve {
	switch name {
	case "P-256":
		return elliptic.P256()
	case "P-384":
		return elliptic.P384()
	case "P-521":
		return elliptic.P521()
	}
	return nil
}
