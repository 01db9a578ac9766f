package assertion

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/go-jose/go-jose/v4"
)

// ErrKey says that a key is not one to sign or verify assertions with. What it says
// quotes nothing of the key.
var ErrKey = errors.New("not a key for assertions")

var errKind = fmt.Errorf("%w: neither Ed25519 nor ECDSA; make one with `openssl genpkey -algorithm ed25519`", ErrKey)

// maxKeyFile is in bytes. The largest keys there are take some hundred.
const maxKeyFile = 64 << 10

// Key is one of the keys of a site: Ed25519, or ECDSA on P-256.
type Key struct {
	private crypto.Signer // nil for one that is only published
	public  crypto.PublicKey
	alg     jose.SignatureAlgorithm
	id      string
}

// ID returns the key's thumbprint (RFC 7638, SHA-256, base64url), which is its kid.
func (k *Key) ID() string { return k.id }

// CanSign tells whether it is a private key.
func (k *Key) CanSign() bool { return k.private != nil }

// Algorithm returns "EdDSA" or "ES256".
func (k *Key) Algorithm() string { return string(k.alg) }

// ReadKey reads the key in a PEM file, as [ParseKey] does. The warning, if it is not
// "", says that others than the file's owner and group can read it, or others than its
// owner change it; whoever can may sign assertions.
func ReadKey(path string) (key *Key, warning string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("reading a key: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat() // of what is read, not of what stands there a moment later
	if err != nil {
		return nil, "", fmt.Errorf("reading a key: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, "", fmt.Errorf("reading a key: %w", err)
	}
	if len(text) > maxKeyFile {
		return nil, "", fmt.Errorf("%w: %s is larger than %d bytes", ErrKey, path, maxKeyFile)
	}
	if key, err = ParseKey(text); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	if key.private != nil {
		warning = exposure(path, info.Mode().Perm())
	}
	return key, warning, nil
}

// exposure allows the group to read, as mounted secrets of containers do.
func exposure(path string, mode fs.FileMode) string {
	const groupWrites, othersAny = 0o020, 0o007
	if runtime.GOOS == "windows" || mode&(groupWrites|othersAny) == 0 {
		return ""
	}
	return fmt.Sprintf("the private key in %s can be read or replaced by other users (mode %04o): chmod 600 it", path, mode)
}

// ParseKey reads the one key in a PEM text: a private key in PKCS #8 or SEC 1, or the
// public key of one that is not to sign any more, in PKIX form. Errors are [ErrKey].
func ParseKey(text []byte) (*Key, error) {
	var found *pem.Block
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type == "EC PARAMETERS" { // which OpenSSL writes before the key
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: more than one PEM block; give each key a file", ErrKey)
		}
		found = block
	}
	if found == nil || len(bytes.TrimSpace(text)) > 0 {
		return nil, fmt.Errorf("%w: not PEM, or something stands behind it", ErrKey)
	}
	return parseBlock(found)
}

func parseBlock(block *pem.Block) (*Key, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PRIVATE KEY", "RSA PUBLIC KEY":
		return nil, errKind
	case "ENCRYPTED PRIVATE KEY":
		return nil, fmt.Errorf("%w: it is encrypted; give it without passphrase", ErrKey)
	default:
		return nil, fmt.Errorf("%w: PEM of something that is no key", ErrKey)
	}
	if err != nil || len(block.Headers) > 0 { // headers: encrypted in OpenSSL's old way
		return nil, fmt.Errorf("%w: broken, encrypted, or of an unknown kind", ErrKey)
	}
	return newKey(key)
}

func newKey(key any) (*Key, error) {
	k := &Key{public: key}
	if private, ok := key.(crypto.Signer); ok {
		k.private, k.public = private, private.Public()
	}
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		k.alg = jose.EdDSA
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%w: the curve is %s; ES256 has P-256", ErrKey, public.Params().Name)
		}
		k.alg = jose.ES256
	default:
		return nil, errKind
	}
	digest, err := k.jwk().Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: no thumbprint", ErrKey)
	}
	k.id = base64.RawURLEncoding.EncodeToString(digest)
	return k, nil
}

// jwk is what is published.
func (k *Key) jwk() *jose.JSONWebKey {
	return &jose.JSONWebKey{Key: k.public, KeyID: k.id, Algorithm: string(k.alg), Use: "sig"}
}
