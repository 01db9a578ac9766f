package token

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// Encrypted tokens are refused by their form, before anything is derived, decrypted or
// unpacked.
func TestEncryptedTokensAreRefusedByTheirForm(t *testing.T) {
	s := newIntrospected(t)
	inner := s.realm.AccessToken(s.alice, kctest.Claim("aud", "api"))
	encryption, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	for name, raw := range map[string]string{
		"JS-012 a JWE with a good token in it": encrypted(t, jose.Recipient{Algorithm: jose.RSA_OAEP, Key: &encryption.PublicKey},
			jose.EncrypterOptions{}, []byte(inner)),
		"JS-013 a JWE whose key takes two thousand million rounds": encode([]byte(
			`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAAAAAAAAAAAAAAAAAAAA"}`)) + ".AAAA.AAAA.AAAA.AAAA",
		"JS-014 a JWE of nine megabytes": encrypted(t, jose.Recipient{Algorithm: jose.DIRECT, Key: make([]byte, 32)},
			jose.EncrypterOptions{Compression: jose.DEFLATE}, make([]byte, 9<<20)),
		"JS-014 a JWS that says it is packed": s.realm.AccessToken(s.alice, kctest.Claim("aud", "api"),
			kctest.Header("alg", "dir"), kctest.Header("zip", "DEF")),
	} {
		t.Run(name, func(t *testing.T) {
			if len(raw) > defaultMaxSize {
				t.Fatalf("%d bytes are refused as too many", len(raw))
			}
			before, start := allocated(), time.Now()
			_, err := s.issuers.Verify(t.Context(), raw)
			bytes, took := allocated()-before, time.Since(start)
			want := ReasonMalformed
			if name == "JS-014 a JWS that says it is packed" {
				want = ReasonAlgorithm
			}
			if ReasonOf(err) != want {
				t.Errorf("got %v", err)
			}
			if bytes > 256<<10 || took > time.Second { // far beyond what refusing takes, far below what else would
				t.Errorf("it took %d bytes and %s", bytes, took)
			}
		})
	}
	if n := s.asked.calls.Load() + int64(s.realm.Requests(kctest.Discovery)); n != 0 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

func encrypted(t *testing.T, to jose.Recipient, options jose.EncrypterOptions, text []byte) string {
	t.Helper()
	encrypter, err := jose.NewEncrypter(jose.A256GCM, to, &options)
	if err != nil {
		t.Fatal(err)
	}
	message, err := encrypter.Encrypt(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := message.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
