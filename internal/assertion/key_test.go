package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newEd25519(tb testing.TB) ed25519.PrivateKey {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newECDSA(tb testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func pkcs8(tb testing.TB, key crypto.Signer) string {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func pkix(tb testing.TB, key crypto.Signer) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return block("PUBLIC KEY", der)
}

func sec1(tb testing.TB, key *ecdsa.PrivateKey) string {
	tb.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return block("EC PRIVATE KEY", der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func mustParse(tb testing.TB, text string) *Key {
	tb.Helper()
	key, err := ParseKey([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func TestParseKey(t *testing.T) {
	ed, p256 := newEd25519(t), newECDSA(t, elliptic.P256())
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old := pem.EncodeToMemory(&pem.Block{
		Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x"),
	})
	headed := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Proc-Type": "x"}, Bytes: pemBytes(t, pkcs8(t, ed))})
	for name, test := range map[string]struct {
		text string
		alg  string // "": refused
	}{
		"Ed25519 in PKCS #8":                      {pkcs8(t, ed), "EdDSA"},
		"P-256 in PKCS #8":                        {pkcs8(t, p256), "ES256"},
		"P-256 in SEC 1":                          {sec1(t, p256), "ES256"},
		"P-256 behind its parameters":             {block("EC PARAMETERS", []byte("\x06\x08")) + sec1(t, p256), "ES256"},
		"an explanation before the key":           {"Bag Attributes\n" + pkcs8(t, ed), "EdDSA"},
		"a public key of Ed25519":                 {pkix(t, ed), "EdDSA"},
		"a public key of P-256":                   {pkix(t, p256), "ES256"},
		"RSA in PKCS #8":                          {pkcs8(t, weak), ""},
		"RSA in PKCS #1":                          {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weak)), ""},
		"a public key of RSA":                     {pkix(t, weak), ""},
		"P-224":                                   {pkcs8(t, newECDSA(t, elliptic.P224())), ""},
		"P-384":                                   {pkcs8(t, newECDSA(t, elliptic.P384())), ""},
		"P-521":                                   {sec1(t, newECDSA(t, elliptic.P521())), ""},
		"encrypted in PKCS #8":                    {block("ENCRYPTED PRIVATE KEY", []byte("x")), ""},
		"encrypted in the old way":                {string(old), ""},
		"headers, which only encrypted ones have": {string(headed), ""},
		"two keys in one file":                    {pkcs8(t, ed) + pkcs8(t, p256), ""},
		"something behind the key":                {pkcs8(t, ed) + "secret", ""},
		"a certificate":                           {block("CERTIFICATE", []byte("x")), ""},
		"a broken key":                            {block("PRIVATE KEY", []byte("secret")), ""},
		"no PEM":                                  {"secret", ""},
		"nothing":                                 {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParseKey([]byte(test.text))
			if test.alg == "" {
				if !errors.Is(err, ErrKey) || key != nil {
					t.Fatalf("got %v, %v", key, err)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the error quotes the text: %v", err)
				}
				return
			}
			if err != nil || key.Algorithm() != test.alg || len(key.ID()) != 43 {
				t.Fatalf("got %+v, %v", key, err)
			}
		})
	}
	if mustParse(t, pkix(t, ed)).ID() != mustParse(t, pkcs8(t, ed)).ID() {
		t.Error("public and private key have different thumbprints")
	}
}

func pemBytes(tb testing.TB, text string) []byte {
	tb.Helper()
	found, _ := pem.Decode([]byte(text))
	return found.Bytes
}

// The key and thumbprint of RFC 8037, appendix A.
func TestThumbprintOfTheStandard(t *testing.T) {
	seed := []byte("\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60")
	key := mustParse(t, pkcs8(t, ed25519.NewKeyFromSeed(seed)))
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; key.ID() != want {
		t.Errorf("kid %s, want %s", key.ID(), want)
	}
}

func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	ed := newEd25519(t)
	write := func(t *testing.T, text string, mode os.FileMode) string {
		t.Helper()
		file, err := os.CreateTemp(dir, "key")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Close(), os.Chmod(file.Name(), mode)); err != nil {
			t.Fatal(err)
		}
		return file.Name()
	}
	for name, test := range map[string]struct {
		text  string
		mode  os.FileMode
		warns bool
	}{
		"a private key of the owner alone":   {pkcs8(t, ed), 0o600, false},
		"a private key the group may read":   {pkcs8(t, ed), 0o440, false},
		"a private key the group may change": {pkcs8(t, ed), 0o660, true},
		"a private key others may read":      {pkcs8(t, ed), 0o604, true},
		"a private key others may change":    {pkcs8(t, ed), 0o602, true},
		"a public key everybody may read":    {pkix(t, ed), 0o644, false},
	} {
		t.Run(name, func(t *testing.T) {
			key, warning, err := ReadKey(write(t, test.text, test.mode))
			if err != nil || key == nil || (warning != "") != test.warns {
				t.Errorf("got %v, %q, %v", key, warning, err)
			}
		})
	}
	for name, test := range map[string]struct {
		path string
		want error
	}{
		"a file that is not there": {filepath.Join(dir, "none"), os.ErrNotExist},
		"a directory":              {dir, nil},
		"a file that is no key":    {write(t, "secret", 0o600), ErrKey},
		"a file that is too large": {write(t, pkcs8(t, ed)+strings.Repeat("\n", maxKeyFile), 0o600), ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ReadKey(test.path)
			if err == nil || (test.want != nil && !errors.Is(err, test.want)) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v", err)
			}
		})
	}
}
