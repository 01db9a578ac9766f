package kctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// Key is a key of a realm.
type Key struct {
	ID        string // kid
	Algorithm string // alg

	private  crypto.Signer    // nil for HMAC and encryption
	public   crypto.PublicKey // nil for HMAC
	secret   []byte           // for HMAC
	disabled bool             // guarded by the realm's lock
}

// NewKey returns a key for alg that belongs to no realm: an attacker's, say. Alg is
// RS, PS or ES with 256, 384 or 512, EdDSA, HS with 256 or 512, or RSA-OAEP. It
// panics for others.
func NewKey(alg string) *Key { return newKey(alg) }

func newKey(alg string) *Key {
	k := &Key{Algorithm: alg}
	var err error
	switch {
	case alg == "RSA-OAEP":
		k.public = unreadable()
	case strings.HasPrefix(alg, "RS"), strings.HasPrefix(alg, "PS"):
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case strings.HasPrefix(alg, "ES"):
		k.private, err = ecdsa.GenerateKey(curveOf(alg), rand.Reader)
	case alg == "EdDSA":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	case strings.HasPrefix(alg, "HS"):
		k.secret = make([]byte, 64)
		_, err = rand.Read(k.secret)
	default:
		err = fmt.Errorf("no algorithm %q", alg)
	}
	if err != nil {
		panic("kctest: " + err.Error()) // a mistake in the calling code: no input leads here
	}
	if k.private != nil {
		k.public = k.private.Public()
	}
	var id [sha256.Size]byte
	_, _ = rand.Read(id[:]) // never fails
	k.ID = encode(id[:])    // 43 characters, like Keycloak's
	return k
}

// unreadable returns a public key that has no private half, made in no time: what is
// encrypted for the stand-in is never read.
func unreadable() *rsa.PublicKey {
	n := make([]byte, 256)
	_, _ = rand.Read(n) // never fails
	n[0], n[255] = n[0]|0x80, n[255]|1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
}

// WithID returns a copy of k with another kid: to claim to be some other key.
func (k *Key) WithID(id string) *Key {
	return &Key{ID: id, Algorithm: k.Algorithm, private: k.private, public: k.public, secret: k.secret}
}

// Public returns the public half, nil for HMAC.
func (k *Key) Public() crypto.PublicKey { return k.public }

// JWK returns the public half as a realm publishes it, nil for HMAC.
func (k *Key) JWK() map[string]any {
	jwk := map[string]any{"kid": k.ID, "alg": k.Algorithm, "use": "sig"}
	if k.Algorithm == "RSA-OAEP" {
		jwk["use"] = "enc"
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		jwk["kty"] = "RSA"
		jwk["n"] = encode(public.N.Bytes())
		jwk["e"] = encode(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			return nil
		}
		size := (len(point) - 1) / 2
		jwk["kty"], jwk["crv"] = "EC", public.Curve.Params().Name
		jwk["x"], jwk["y"] = encode(point[1:1+size]), encode(point[1+size:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", encode(public)
	default:
		return nil
	}
	return jwk
}

// Sign makes a compact JWS of any header and payload, without looking at them: alg
// says how to sign, whatever the header says. "none" leaves the signature empty. It
// panics if k cannot sign that way.
func (k *Key) Sign(alg string, header, payload []byte) string {
	signed := encode(header) + "." + encode(payload)
	return signed + "." + encode(k.signature(alg, []byte(signed)))
}

func (k *Key) signature(alg string, signed []byte) []byte {
	if alg == "none" {
		return nil
	}
	hash := hashOf(alg)
	digest := signed
	if hash != 0 && !strings.HasPrefix(alg, "HS") {
		h := hash.New()
		_, _ = h.Write(signed)
		digest = h.Sum(nil)
	}
	var signature []byte
	var err error
	switch {
	case strings.HasPrefix(alg, "HS"):
		mac := hmac.New(hash.New, k.secret)
		_, _ = mac.Write(signed)
		return mac.Sum(nil)
	case strings.HasPrefix(alg, "PS"):
		signature, err = k.private.Sign(rand.Reader, digest,
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
	case strings.HasPrefix(alg, "ES"):
		private := k.private.(*ecdsa.PrivateKey)
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, private, digest); err == nil {
			size := (private.Curve.Params().BitSize + 7) / 8
			signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	default:
		signature, err = k.private.Sign(rand.Reader, digest, hash)
	}
	if err != nil {
		panic("kctest: signing: " + err.Error()) // a mistake in the calling code
	}
	return signature
}

func hashOf(alg string) crypto.Hash {
	switch {
	case strings.HasSuffix(alg, "256"):
		return crypto.SHA256
	case strings.HasSuffix(alg, "384"):
		return crypto.SHA384
	case strings.HasSuffix(alg, "512"):
		return crypto.SHA512
	}
	return 0 // EdDSA
}

func curveOf(alg string) elliptic.Curve {
	switch alg {
	case "ES384":
		return elliptic.P384()
	case "ES512":
		return elliptic.P521()
	}
	return elliptic.P256()
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// encodeJSON is for what this package puts together itself.
func encodeJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("kctest: " + err.Error()) // a claim JSON cannot express
	}
	return text
}
