package dpop

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

// DefaultAlgorithms are accepted where none are configured.
func DefaultAlgorithms() []string { return []string{"RS256", "PS256", "ES256", "EdDSA"} }

// algorithm is one way to sign (RFC 7518 §3.1, RFC 8037, RFC 9864).
type algorithm struct {
	keyType string // kty of its keys
	curve   string // crv of its keys, where they have one
	hash    crypto.Hash
	pss     bool
}

// algorithmNamed knows every algorithm this package can verify. HMAC and none are not
// among them, and never may be (RFC 9449 §4.2).
func algorithmNamed(name string) (algorithm, bool) {
	switch name {
	case "RS256":
		return algorithm{keyType: "RSA", hash: crypto.SHA256}, true
	case "RS384":
		return algorithm{keyType: "RSA", hash: crypto.SHA384}, true
	case "RS512":
		return algorithm{keyType: "RSA", hash: crypto.SHA512}, true
	case "PS256":
		return algorithm{keyType: "RSA", hash: crypto.SHA256, pss: true}, true
	case "PS384":
		return algorithm{keyType: "RSA", hash: crypto.SHA384, pss: true}, true
	case "PS512":
		return algorithm{keyType: "RSA", hash: crypto.SHA512, pss: true}, true
	case "ES256":
		return algorithm{keyType: "EC", curve: "P-256", hash: crypto.SHA256}, true
	case "ES384":
		return algorithm{keyType: "EC", curve: "P-384", hash: crypto.SHA384}, true
	case "ES512":
		return algorithm{keyType: "EC", curve: "P-521", hash: crypto.SHA512}, true
	case "EdDSA", "Ed25519":
		return algorithm{keyType: "OKP", curve: "Ed25519"}, true
	}
	return algorithm{}, false
}

// sameAlgorithm compares names. RFC 9864 gives EdDSA over Ed25519 a name of its own;
// both mean the same here, because Ed448 is not supported.
func sameAlgorithm(a, b string) bool {
	return a == b || isEd25519(a) && isEd25519(b)
}

func isEd25519(name string) bool { return name == "EdDSA" || name == "Ed25519" }

// withAliases adds the second name of what is known by two.
func withAliases(names []string) []string {
	all := slices.Clone(names)
	if slices.ContainsFunc(names, isEd25519) {
		all = append(all, "EdDSA", "Ed25519")
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// elliptic is the curve of an ECDSA key, nil for other kinds.
func (a algorithm) elliptic() elliptic.Curve {
	switch a.curve {
	case "P-256":
		return elliptic.P256()
	case "P-384":
		return elliptic.P384()
	case "P-521":
		return elliptic.P521()
	}
	return nil
}

// verify reports whether signature is public's over signed. The key has been found to
// fit the algorithm when it was parsed.
func (a algorithm) verify(public crypto.PublicKey, signed, signature []byte) bool {
	var digest []byte
	if a.hash != 0 {
		h := a.hash.New()
		_, _ = h.Write(signed) // a hash returns no error
		digest = h.Sum(nil)
	}
	switch key := public.(type) {
	case *rsa.PublicKey:
		if a.pss { // RFC 7518 §3.5 names the one salt length
			exact := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.VerifyPSS(key, a.hash, digest, signature, exact) == nil
		}
		return rsa.VerifyPKCS1v15(key, a.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return verifyECDSA(key, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, signed, signature)
	}
	return false
}

// verifyECDSA takes the JWS form, two numbers of fixed length (RFC 7518 §3.4), and no
// other: neither ASN.1 nor shortened ones.
func verifyECDSA(key *ecdsa.PublicKey, digest, signature []byte) bool {
	size := (key.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(key, digest, r, s)
}
