package clientauth

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
)

// signingKey is a client's private key and how it signs.
type signingKey struct {
	key       crypto.Signer
	algorithm jose.SignatureAlgorithm
	id        string // may be ""
}

// minRSA is in bits (RFC 7518 §3.3).
const minRSA = 2048

// parseKey reads the content of a key file. What it says of one that is none quotes
// nothing of it.
func parseKey(content, algorithm, id string) (signingKey, error) {
	text := bytes.TrimSpace([]byte(content))
	var jwk jose.JSONWebKey
	var key any
	var err error
	if bytes.HasPrefix(text, []byte{'{'}) {
		if jwk, err = parseJWK(text); err != nil {
			return signingKey{}, err
		}
		key = jwk.Key
	} else if key, err = parsePEM(text); err != nil {
		return signingKey{}, err
	}
	signer, algorithms, err := usable(key)
	if err != nil {
		return signingKey{}, err
	}
	chosen := jose.SignatureAlgorithm(cmp.Or(algorithm, jwk.Algorithm, string(algorithms[0])))
	if !slices.Contains(algorithms, chosen) {
		return signingKey{}, fmt.Errorf("its algorithm has to be one of %v", algorithms)
	}
	return signingKey{signer, chosen, cmp.Or(id, jwk.KeyID)}, nil
}

// usable returns a key that may sign, with the algorithms it can, its usual one first.
func usable(key any) (crypto.Signer, []jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() < minRSA {
			return nil, nil, fmt.Errorf("an RSA key has to have at least %d bits", minRSA)
		}
		return key, []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}, nil
	case *ecdsa.PrivateKey:
		byCurve := map[string]jose.SignatureAlgorithm{"P-256": jose.ES256, "P-384": jose.ES384, "P-521": jose.ES512}
		if algorithm, ok := byCurve[key.Params().Name]; ok {
			return key, []jose.SignatureAlgorithm{algorithm}, nil
		}
		return nil, nil, errors.New("an EC key has to be on P-256, P-384 or P-521")
	case ed25519.PrivateKey:
		return key, []jose.SignatureAlgorithm{jose.EdDSA}, nil
	}
	return nil, nil, errors.New("not a private key of RSA, EC or Ed25519")
}

func parseJWK(text []byte) (jose.JSONWebKey, error) {
	var members map[string]any // go-jose would take repeated names
	if json.Unmarshal(text, &members) != nil {
		return jose.JSONWebKey{}, errors.New("not a JSON object with unambiguous names")
	}
	if _, isSet := members["keys"]; isSet {
		return jose.JSONWebKey{}, errors.New("a JWK set: give the one JWK out of it")
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(text) != nil || !jwk.Valid() {
		return jose.JSONWebKey{}, errors.New("not a valid JWK")
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return jose.JSONWebKey{}, errors.New("the JWK's use is not sig")
	}
	if !consistent(jwk.Key) {
		return jose.JSONWebKey{}, errors.New("a JWK that is not a private key, or whose public part is another key's")
	}
	return jwk, nil
}

// consistent reports whether key is a private key whose public part belongs to it. A
// JWK has both, and with another's public part Ed25519 would sign away the private one.
func consistent(key any) bool {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return false
	}
	again, err := x509.ParsePKCS8PrivateKey(der) // which computes the public part
	if err != nil {
		return false
	}
	private, ok := again.(interface {
		Equal(other crypto.PrivateKey) bool
	})
	if !ok || !private.Equal(key) {
		return false
	}
	given, ok := key.(crypto.Signer)
	derived, ok2 := again.(crypto.Signer)
	if !ok || !ok2 {
		return false
	}
	public, ok := derived.Public().(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && public.Equal(given.Public())
}

func parsePEM(text []byte) (any, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("neither a JWK nor a PEM file with a private key")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("encrypted: give it without passphrase")
		default:
			continue // a certificate, EC parameters
		}
		if err != nil || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("a PEM file with a private key that is broken or encrypted")
		}
		return key, nil
	}
}
