package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
)

// With secrets, what stands in Redis is JSON as well:
//
//	{
//	  "v": 3,
//	  "key": "0f1e2d3c4b5a6978",   which secret it was encrypted with, and …
//	  "salt": "…",                 … 32 random bytes, in base64
//	  "data": "…"                  the encrypted entry and its tag, in base64
//	}
//
// where
//
//	key  = hex(HKDF-SHA-256(secret, no salt, "keycloak-cache-auth key id", 8 bytes))
//	k    = HKDF-SHA-256(secret, salt, "keycloak-cache-auth entry v3", 32 bytes)
//	data = AES-256-GCM(k, nonce: 12 zero bytes, the entry, additional data: its Redis key)
//
// Each k encrypts one entry, so its nonce may be a constant, and no number of
// entries is too many: salts of 256 bits do not meet. With one key for all and
// random nonces of 96 bits, 2^32 entries would be the limit. HKDF and AES-GCM
// are everywhere; XAES-256-GCM, which does the same, is not.
//
// An entry is bound to its whole key, so values that were swapped are refused.
// An old value of the same key is not, by this: its generation, position and
// times are in what is encrypted, and end it like any other entry.
const (
	secretKeyID = "keycloak-cache-auth key id"
	secretEntry = "keycloak-cache-auth entry v3"
	saltSize    = 32
	keySize     = 32
	minSecret   = 16
)

// sealedEnvelope is what stands in Redis with secrets.
type sealedEnvelope struct {
	Version *int64  `json:"v"`
	Key     *string `json:"key"`
	Salt    []byte  `json:"salt"`
	Data    []byte  `json:"data"`
}

// sealer encrypts entries. A nil one leaves them as they are.
type sealer struct {
	first   string // the id of the secret to write with
	secrets map[string][]byte
}

func newSealer(secrets []string) (*sealer, error) {
	if len(secrets) == 0 {
		return nil, nil //nolint:nilnil // nil is good for use, see above
	}
	s := &sealer{secrets: map[string][]byte{}}
	for i, secret := range secrets {
		if len(secret) < minSecret {
			return nil, fmt.Errorf("store: secret %d has less than %d bytes", i+1, minSecret)
		}
		id, err := hkdf.Key(sha256.New, []byte(secret), nil, secretKeyID, 8)
		if err != nil {
			return nil, fmt.Errorf("store: secret %d: %w", i+1, err)
		}
		name := hex.EncodeToString(id)
		if i == 0 {
			s.first = name
		}
		s.secrets[name] = []byte(secret)
	}
	return s, nil
}

// seal encrypts what encode has returned, for this Redis key.
func (s *sealer) seal(redisKey string, plain []byte) ([]byte, error) {
	if s == nil {
		return plain, nil
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	return s.sealWith(redisKey, plain, salt)
}

func (s *sealer) sealWith(redisKey string, plain, salt []byte) ([]byte, error) {
	aead, err := entryCipher(s.secrets[s.first], salt)
	if err != nil {
		return nil, err
	}
	version := int64(envelopeVersion)
	//nolint:gosec // the nonce is constant, and the key is used once
	data := aead.Seal(nil, make([]byte, aead.NonceSize()), plain, []byte(redisKey))
	value, err := json.Marshal(&sealedEnvelope{Version: &version, Key: &s.first, Salt: salt, Data: data})
	if err != nil {
		return nil, err
	}
	if len(value) > MaxEntrySize {
		return nil, fmt.Errorf("%w: larger than %d bytes when encrypted", ErrInvalid, MaxEntrySize)
	}
	return value, nil
}

var errNotSealed = errors.New("not encrypted with a known secret")

// open returns what decode takes. Values that are not encrypted are refused:
// anybody could have written them.
func (s *sealer) open(redisKey string, value []byte) ([]byte, error) {
	if s == nil {
		return value, nil
	}
	if len(value) > MaxEntrySize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxEntrySize)
	}
	var wire sealedEnvelope
	if err := json.Unmarshal(value, &wire, json.RejectUnknownMembers(true)); err != nil ||
		wire.Version == nil || *wire.Version != envelopeVersion || wire.Key == nil || len(wire.Salt) != saltSize {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, errNotSealed)
	}
	secret, ok := s.secrets[*wire.Key]
	if !ok {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, errNotSealed)
	}
	aead, err := entryCipher(secret, wire.Salt)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), wire.Data, []byte(redisKey))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, errNotSealed)
	}
	return plain, nil
}

// entryCipher is for one entry, that with the salt.
func entryCipher(secret, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, salt, secretEntry, keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
