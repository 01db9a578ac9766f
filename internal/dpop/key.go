package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

// Bounds of RSA keys, in bits. The upper one bounds what a signature can cost.
const (
	minRSABits = 2048 // RFC 7518 §3.3
	maxRSABits = 8192
)

// privateMembers are all that hold secrets (RFC 7518 §6, RFC 8037 §2).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// keyMembers are all names that mean something in a key.
var keyMembers = append([]string{"kty", "use", "key_ops", "alg", "crv", "x", "y", "n", "e"}, privateMembers...)

// key is what the client says it signed with. Anybody can make one: it means something
// only if its thumbprint is the token's.
type key struct {
	public     crypto.PublicKey
	thumbprint string // RFC 7638, SHA-256, base64url
}

// parseKey reads the key of a proof, which has to fit the algorithm of that name.
func parseKey(text jsontext.Value, name string, alg jws.Algorithm) (key, error) {
	members, err := parseObject(text, keyMembers)
	switch {
	case err != nil:
		return key{}, refuse(ReasonKey, "jwk is not one JSON object without repeated names")
	case members.has(privateMembers...):
		return key{}, refuse(ReasonPrivateKey, "the client sends its private key about: the key is to be replaced")
	}
	if err := checkUse(members, name); err != nil {
		return key{}, err
	}
	if kind, _ := members.text("kty"); kind != alg.KeyType {
		return key{}, refuse(ReasonKey, "kty is not one for "+name)
	}
	switch alg.KeyType {
	case "RSA":
		return parseRSA(members)
	case "EC":
		return parseEC(members, alg)
	default:
		return parseEd25519(members)
	}
}

// checkUse looks at what a key says about itself beside its numbers. All of it is
// optional, and has to be right where it stands.
func checkUse(members object, name string) error {
	if use, ok := members.textIfAny("use"); !ok || use != "sig" && members.has("use") {
		return refuse(ReasonKey, "use is not sig")
	}
	if own, ok := members.textIfAny("alg"); !ok || members.has("alg") && !jws.Same(own, name) {
		return refuse(ReasonKey, "the key's alg is another than the proof's")
	}
	if value, present := members.member("key_ops"); present {
		var operations []string
		if json.Unmarshal(value, &operations) != nil || !slices.Contains(operations, "verify") {
			return refuse(ReasonKey, "key_ops is without verify")
		}
	}
	return nil
}

func parseRSA(members object) (key, error) {
	n, modulus, ok := members.bytes("n")
	if !ok || modulus[0] == 0 { // RFC 7518 §6.3.1.1: the least number of octets
		return key{}, refuse(ReasonKey, "n is not a number in base64url without zeros before it")
	}
	e, exponent, ok := members.bytes("e")
	if !ok || exponent[0] == 0 || len(exponent) > 4 {
		return key{}, refuse(ReasonKey, "e is not a number of at most 31 bits in base64url")
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus)}
	for _, octet := range exponent {
		public.E = public.E<<8 | int(octet)
	}
	switch bits := public.N.BitLen(); {
	case public.E < 3 || public.E%2 == 0 || int64(public.E) > 1<<31-1: // the last is crypto/rsa's own
		return key{}, refuse(ReasonKey, "e is not an odd number of at most 31 bits, 3 or more")
	case bits < minRSABits || bits > maxRSABits || public.N.Bit(0) == 0:
		return key{}, refuse(ReasonKey, fmt.Sprintf("n is not an odd number of %d to %d bits", minRSABits, maxRSABits))
	case members.has("crv"):
		return key{}, refuse(ReasonKey, "an RSA key has no crv")
	}
	return key{public, thumbprint(`{"e":"`, e, `","kty":"RSA","n":"`, n, `"}`)}, nil
}

func parseEC(members object, alg jws.Algorithm) (key, error) {
	curve := jws.CurveNamed(alg.Curve)
	if name, _ := members.text("crv"); name != alg.Curve || curve == nil {
		return key{}, refuse(ReasonKey, "crv is not "+alg.Curve)
	}
	x, xBytes, okX := members.bytes("x")
	y, yBytes, okY := members.bytes("y")
	// RFC 7518 §6.2.1.2: of full length, zeros included.
	size := (curve.Params().BitSize + 7) / 8
	if !okX || !okY || len(xBytes) != size || len(yBytes) != size {
		return key{}, refuse(ReasonKey, fmt.Sprintf("x and y are not %d bytes each in base64url", size))
	}
	const uncompressed = 4 // SEC 1 §2.3.3
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{uncompressed}, xBytes, yBytes))
	if err != nil {
		return key{}, refuse(ReasonKey, "x and y are no point on "+alg.Curve)
	}
	return key{public, thumbprint(`{"crv":"`, alg.Curve, `","kty":"EC","x":"`, x, `","y":"`, y, `"}`)}, nil
}

func parseEd25519(members object) (key, error) {
	if name, _ := members.text("crv"); name != "Ed25519" {
		return key{}, refuse(ReasonKey, "crv is not Ed25519")
	}
	x, public, ok := members.bytes("x")
	if !ok || len(public) != ed25519.PublicKeySize {
		return key{}, refuse(ReasonKey, fmt.Sprintf("x is not %d bytes in base64url", ed25519.PublicKeySize))
	}
	return key{ed25519.PublicKey(public), thumbprint(`{"crv":"Ed25519","kty":"OKP","x":"`, x, `"}`)}, nil
}

// bytes reads what is written in strict base64url, and returns that text too. Nothing
// is not a number.
func (o object) bytes(name string) (text string, read []byte, ok bool) {
	text, _ = o.text(name)
	read, ok = decode(text)
	return text, read, ok && len(read) > 0
}

// thumbprint hashes the required members as RFC 7638 §3 orders them. Since the
// spelling of their values was checked, each key has just one.
func thumbprint(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		_, _ = h.Write([]byte(part)) // a hash returns no error
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
