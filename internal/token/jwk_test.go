package token

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestWhichKeysAreUsable(t *testing.T) {
	rsa, ec, ed := kctest.NewKey("RS256").JWK, kctest.NewKey("ES256").JWK, kctest.NewKey("EdDSA").JWK
	with := func(jwk func() map[string]any, pairs ...any) map[string]any {
		changed := jwk()
		for i := 0; i < len(pairs); i += 2 {
			if changed[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
				delete(changed, pairs[i].(string))
			}
		}
		return changed
	}
	small := kctest.NewKey("RS256").JWK()
	n, _ := small["n"].(string)
	for name, test := range map[string]struct {
		jwk    map[string]any
		usable bool
	}{
		"RSA":                              {rsa(), true},
		"EC":                               {ec(), true},
		"Ed25519":                          {ed(), true},
		"Ed25519 under its new name":       {with(ed, "alg", "Ed25519"), true},
		"without use":                      {with(rsa, "use", nil), true},
		"without alg":                      {with(rsa, "alg", nil), true},
		"for verifying":                    {with(rsa, "key_ops", []string{"verify"}), true},
		"a certificate that is none":       {with(rsa, "x5c", []string{"AAAA"}), true}, // not read
		"an unknown member":                {with(rsa, "nbf", 1), true},
		"AK-010 for encryption":            {with(rsa, "use", "enc"), false},
		"for an unknown use":               {with(rsa, "use", "SIG"), false},
		"AK-012 for encrypting operations": {with(rsa, "key_ops", []string{"encrypt"}), false},
		"for no operation":                 {with(rsa, "key_ops", []string{}), false},
		"for an encryption algorithm":      {with(rsa, "alg", "RSA-OAEP"), false},
		"for HMAC":                         {with(rsa, "alg", "HS256"), false},
		"alg of another type":              {with(rsa, "alg", "ES256"), false},
		"AK-024 alg of another curve":      {with(ec, "alg", "ES384"), false},
		"crv of another curve":             {with(ec, "crv", "P-384", "alg", "ES384"), false},
		"a point beside the curve":         {with(ec, "x", ec()["y"]), false},
		"without kid":                      {with(rsa, "kid", nil), false},
		"kid of 257 bytes":                 {with(rsa, "kid", strings.Repeat("x", 257)), false},
		"kid that is a number":             {with(rsa, "kid", 1), false},
		"with its private part":            {with(rsa, "d", "AQAB"), false},
		"an even exponent":                 {with(rsa, "e", "AQAA"), false},
		"AK-023 exponent 1":                {with(rsa, "e", "AQ"), false},
		"an exponent beyond 32 bits":       {with(rsa, "e", "AQABAAE"), false},
		"a modulus of fewer bits":          {with(rsa, "n", n[:len(n)/2]), false},
		"an even modulus":                  {with(rsa, "n", n[:len(n)-2]+"AA"), false},
		"a modulus that is no base64":      {with(rsa, "n", "???"), false},
		"a symmetric key":                  {map[string]any{"kty": "oct", "kid": "x", "k": "AAAA"}, false},
		"another Edwards curve":            {with(ed, "crv", "Ed448"), false},
		"a curve of another world":         {with(ec, "crv", "secp256k1"), false},
		"a type of the future":             {map[string]any{"kty": "AKP", "kid": "x", "alg": "ML-DSA-44", "pub": "AAAA"}, false},
		"without type":                     {with(rsa, "kty", nil), false},
		"an Ed25519 key of wrong size":     {with(ed, "x", "AAAA"), false},
		"an RSA key that names a curve":    {with(rsa, "crv", "P-256", "alg", nil), false},
	} {
		t.Run("KC-013 "+name, func(t *testing.T) {
			text, err := json.Marshal(map[string]any{"keys": []any{test.jwk, kctest.NewKey("EdDSA").JWK()}})
			if err != nil {
				t.Fatal(err)
			}
			set, err := parseKeys(text)
			if err != nil {
				t.Fatal(err) // one odd key must not cost the other
			}
			if got := set.usable == 2; got != test.usable {
				t.Errorf("usable: %t, want %t", got, test.usable)
			}
			if set.usable+set.skipped != 2 {
				t.Errorf("%d usable, %d skipped", set.usable, set.skipped)
			}
		})
	}
}

func TestOddTextAmongTheKeysIsSkipped(t *testing.T) {
	good, err := json.Marshal(kctest.NewKey("EdDSA").JWK())
	if err != nil {
		t.Fatal(err)
	}
	for name, odd := range map[string]string{
		"a number":               "1",
		"null":                   "null",
		"a repeated name":        `{"kty":"RSA","kty":"EC","kid":"x"}`,
		"invalid UTF-8":          "{\"kty\":\"\xff\"}",
		"names in other letters": strings.NewReplacer(`"kty"`, `"KTY"`).Replace(string(good)),
	} {
		t.Run(name, func(t *testing.T) {
			set, err := parseKeys(fmt.Appendf(nil, `{"keys":[%s,%s]}`, odd, good))
			if err != nil || set.usable != 1 || set.skipped != 1 {
				t.Errorf("got %+v, %v", set, err)
			}
		})
	}
}

func testTwoKeysOfOneID(t *testing.T) {
	rsa, ec := kctest.NewKey("RS256").WithID("same"), kctest.NewKey("ES256").WithID("same")
	otherRSA := kctest.NewKey("RS256").WithID("same")
	for name, test := range map[string]struct {
		keys []*kctest.Key
		want *kctest.Key // found for RS256
	}{
		"of two types":    {[]*kctest.Key{ec, rsa}, rsa},
		"of one type":     {[]*kctest.Key{rsa, otherRSA}, nil},
		"the same, twice": {[]*kctest.Key{rsa, rsa}, rsa},
	} {
		t.Run(name, func(t *testing.T) {
			var jwks []any
			for _, k := range test.keys {
				jwks = append(jwks, k.JWK())
			}
			text, err := json.Marshal(map[string]any{"keys": jwks})
			if err != nil {
				t.Fatal(err)
			}
			set, err := parseKeys(text)
			if err != nil {
				t.Fatal(err)
			}
			found, known := set.find("same", "RS256")
			if !known {
				t.Error("the id is not known")
			}
			switch {
			case test.want == nil && found != nil:
				t.Error("found one of two that fit")
			case test.want != nil && (found == nil || fmt.Sprint(found.public) != fmt.Sprint(test.want.Public())):
				t.Errorf("found %v", found)
			}
		})
	}
}

func testKeysBeyondTheBoundAreSkipped(t *testing.T) {
	key := kctest.NewKey("EdDSA")
	var jwks []any
	for i := range maxKeys + 20 {
		jwks = append(jwks, key.WithID(fmt.Sprint("key", i)).JWK())
	}
	text, err := json.Marshal(map[string]any{"keys": jwks})
	if err != nil {
		t.Fatal(err)
	}
	set, err := parseKeys(text)
	if err != nil || set.usable != maxKeys || set.skipped != 20 {
		t.Errorf("got %d usable, %d skipped, %v", set.usable, set.skipped, err)
	}
}

func FuzzKeySet(f *testing.F) {
	files, err := filepath.Glob("testdata/keycloak/jwks-*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range append(files, "testdata/forged/jwks.json") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"},{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseKeys(text)
		if err != nil {
			return
		}
		count := 0
		for id, sameID := range set.byID {
			for _, k := range sameID {
				count++
				switch {
				case k.id != id || !printable(id) || len(id) > maxKeyID:
					t.Errorf("key %q is listed as %q", k.id, id)
				case k.algorithm != "" && !k.fits(k.algorithm):
					t.Errorf("key %q does not fit its own alg", id)
				case k.fits("HS256") || k.fits("none"):
					t.Errorf("key %q is good for no signature", id)
				}
				// No key takes a signature of nothing.
				for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512"} {
					if a, _ := jws.Named(alg); k.fits(alg) && a.Verify(k.public, []byte("x"), bytes.Repeat([]byte{0}, 64)) {
						t.Errorf("key %q verifies a signature of zeros", id)
					}
				}
			}
		}
		if count == 0 || count != set.usable || count > maxKeys {
			t.Errorf("%d keys, said to be %d", count, set.usable)
		}
	})
}
