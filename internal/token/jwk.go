package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

const (
	maxKeys    = 100
	minRSABits = 2048 // RFC 7518 §3.3
	maxRSABits = 16384
)

// key is one signing key of an issuer. It never changes.
type key struct {
	id          string
	keyType     string
	curve       string
	algorithm   string // the only one it is for; "" where the issuer does not say
	public      crypto.PublicKey
	fingerprint [sha256.Size]byte // of everything above
}

// fits reports whether tokens signed with the algorithm of that name may be
// verified with k. One key, one algorithm (RFC 8725 §3.1) holds as far as the
// issuer says which; Keycloak always does.
func (k *key) fits(name string) bool {
	if k.algorithm != "" && !jws.Same(k.algorithm, name) {
		return false
	}
	alg, ok := jws.Named(name)
	return ok && alg.KeyType == k.keyType && alg.Curve == k.curve
}

// keyText is a JSON Web Key (RFC 7517 §4) as it comes. Certificates are not read:
// trust in these keys comes from where they were fetched.
type keyText struct {
	KeyType    string         `json:"kty"`
	ID         string         `json:"kid"`
	Use        string         `json:"use"`
	Operations []string       `json:"key_ops"`
	Algorithm  string         `json:"alg"`
	Private    jsontext.Value `json:"d"`
	material
}

type material struct {
	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
	N     string `json:"n,omitempty"`
	E     string `json:"e,omitempty"`
}

// keys are an issuer's signing keys, by their ids.
type keys struct {
	byID    map[string][]*key // more than one only if an id is given twice
	usable  int
	skipped int
}

var (
	errKeySetText = errors.New("the answer is not a key set")
	errNoKeys     = errors.New("the key set has no usable signing key")
)

// parseKeys reads a JWK set (RFC 7517 §5). Keys that are no use here, or malformed,
// are skipped and the others taken; a set without any is an error.
func parseKeys(text []byte) (*keys, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// Lenient with the whole and strict with each key, so that one odd key costs
	// no other.
	err := json.Unmarshal(text, &set, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, errKeySetText // err may quote the answer
	}
	parsed := &keys{byID: make(map[string][]*key)}
	for i, one := range set.Keys {
		if i == maxKeys {
			parsed.skipped += len(set.Keys) - maxKeys
			break
		}
		k, err := parseKey(one)
		switch {
		case err != nil:
			parsed.skipped++
		case slices.ContainsFunc(parsed.byID[k.id], func(other *key) bool { return other.fingerprint == k.fingerprint }):
			// the same key listed again
		default:
			parsed.byID[k.id] = append(parsed.byID[k.id], k)
			parsed.usable++
		}
	}
	if parsed.usable == 0 {
		return nil, errNoKeys
	}
	return parsed, nil
}

// parseKey reads a key that may verify tokens, or says why this one may not.
func parseKey(text []byte) (*key, error) {
	var from keyText
	if err := json.Unmarshal(text, &from); err != nil {
		return nil, err
	}
	switch {
	case len(from.ID) > maxKeyID || !printable(from.ID):
		return nil, errors.New("kid: missing, too long or not printable")
	case from.Use != "" && from.Use != "sig":
		return nil, errors.New("use: not sig")
	case from.Operations != nil && !slices.Contains(from.Operations, "verify"):
		return nil, errors.New("key_ops: without verify")
	case from.Private != nil:
		return nil, errors.New("d: a private key that is published is no longer one")
	}
	k := &key{id: from.ID, keyType: from.KeyType, curve: from.Curve, algorithm: from.Algorithm}
	if k.algorithm != "" && !k.fits(k.algorithm) {
		return nil, fmt.Errorf("alg: not one for keys of type %q", k.keyType)
	}
	if err := k.parseMaterial(from); err != nil {
		return nil, err
	}
	k.fingerprint = sha256.Sum256(fmt.Appendf(nil, "%q%q%q%q%q", k.id, k.keyType, k.curve, k.algorithm,
		[]string{from.X, from.Y, from.N, from.E}))
	return k, nil
}

// parseMaterial leaves the reading of numbers and points to go-jose, which refuses
// points that are not on the curve, and sees to the strength of the key.
func (k *key) parseMaterial(from keyText) error {
	text, err := json.Marshal(struct {
		KeyType string `json:"kty"`
		material
	}{from.KeyType, from.material})
	if err != nil {
		return err
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(text); err != nil {
		return err
	}
	switch public := parsed.Key.(type) {
	case *rsa.PublicKey:
		// go-jose drops what of the exponent does not fit an int.
		exponent, err := base64.RawURLEncoding.DecodeString(from.E)
		if err != nil || len(exponent) > 4 || public.E < 3 || public.E%2 == 0 {
			return errors.New("e: not an odd number of at most 32 bits, 3 or more")
		}
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits || public.N.Bit(0) == 0 {
			return fmt.Errorf("n: not an odd number of %d to %d bits", minRSABits, maxRSABits)
		}
		if k.curve != "" {
			return errors.New("crv: an RSA key has none")
		}
		if predictable(public.N) {
			return errors.New("n: of the kind a faulty chip makes (CVE-2017-15361)")
		}
	case *ecdsa.PublicKey:
		if public.Curve != jws.CurveNamed(k.curve) {
			return errors.New("crv: not supported")
		}
	case ed25519.PublicKey:
		// go-jose fills what is too short with zeros, and cuts what is too long.
		if x, err := base64.RawURLEncoding.DecodeString(from.X); err != nil || len(x) != ed25519.PublicKeySize {
			return fmt.Errorf("x: not of %d bytes", ed25519.PublicKeySize)
		}
	default:
		return errors.New("kty: not supported")
	}
	k.public = parsed.Key
	return nil
}

// predictable reports whether n is built from primes of the form that made RSA keys
// of many smart cards guessable (ROCA): such a modulus is a power of 65537 by each
// of the first odd primes, which others are once in some hundred million times.
func predictable(n *big.Int) bool {
	for _, prime := range []int64{
		3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73,
		79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
	} {
		rest := new(big.Int).Mod(n, big.NewInt(prime)).Int64()
		power, isPower := int64(1), false
		for range prime {
			isPower = isPower || power == rest
			power = power * 65537 % prime
		}
		if !isPower {
			return false
		}
	}
	return true
}

// find returns the one key of that id for that algorithm. Known says whether there
// is any key of that id.
func (ks *keys) find(id, algorithm string) (found *key, known bool) {
	if ks == nil {
		return nil, false
	}
	for _, k := range ks.byID[id] {
		known = true
		if !k.fits(algorithm) {
			continue
		}
		if found != nil {
			return nil, true // two that fit: no telling which is genuine
		}
		found = k
	}
	return found, known
}
