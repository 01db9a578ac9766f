package dpop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

const (
	accessToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	resource    = "https://resource.example.org/protectedresource"
)

var start = time.Unix(1562262618, 0) // as in RFC 9449 §7.1

// signers are one key per algorithm, made once since RSA keys take their time.
var signers = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return key
	}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	ed := must(edKey, err)
	all := map[string]crypto.Signer{
		"ES256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"ES384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"EdDSA": ed, "Ed25519": ed,
	}
	for _, name := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		all[name] = rsaKey
	}
	return all
})

func allAlgorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
}

// jwkOf is the public key in the form clients send it.
func jwkOf(t testing.TB, key crypto.Signer) map[string]any {
	t.Helper()
	text, err := jose.JSONWebKey{Key: key.Public()}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	members := make(map[string]any)
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	return members
}

// jktOf is the thumbprint as go-jose has it.
func jktOf(t testing.TB, key crypto.Signer) string {
	t.Helper()
	sum, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return b64(sum)
}

func b64(text []byte) string { return base64.RawURLEncoding.EncodeToString(text) }

func athOf(token string) string {
	digest := sha256.Sum256([]byte(token))
	return b64(digest[:])
}

// draft is a proof to be, and the request it comes with: good, until it is edited.
type draft struct {
	t                      testing.TB
	header, jwk, claims    map[string]any
	key                    crypto.Signer
	headerText, claimsText func(string) string // edit the JSON
	signature              func(signed string, good []byte) []byte
	raw                    func(string) string // edits the whole
	request                Request
	config                 Config
	replay                 *memory
}

func newDraft(t testing.TB, algorithm string) *draft {
	t.Helper()
	key := signers()[algorithm]
	d := &draft{
		t: t, key: key, jwk: jwkOf(t, key), replay: newMemory(),
		header: map[string]any{"typ": "dpop+jwt", "alg": algorithm},
		claims: map[string]any{
			"jti": "e1j3V_bKic8-LAEB", "htm": "GET", "htu": resource,
			"iat": start.Unix(), "ath": athOf(accessToken),
		},
		request: Request{Method: "GET", URLs: []string{resource}, AccessToken: accessToken, Thumbprint: jktOf(t, key)},
	}
	d.config = Config{Replay: d.replay, Leeway: 10 * time.Second, Now: func() time.Time { return start }}
	return d
}

// proof writes and signs the draft.
func (d *draft) proof() string {
	d.t.Helper()
	header := maps.Clone(d.header)
	if d.jwk != nil {
		header["jwk"] = d.jwk
	}
	text := func(members map[string]any, edit func(string) string) string {
		written, err := json.Marshal(members)
		if err != nil {
			d.t.Fatal(err)
		}
		if edit != nil {
			written = []byte(edit(string(written)))
		}
		return b64(written)
	}
	signed := text(header, d.headerText) + "." + text(d.claims, d.claimsText)
	algorithm, _ := header["alg"].(string)
	signature := d.sign(algorithm, signed)
	if d.signature != nil {
		signature = d.signature(signed, signature)
	}
	raw := signed + "." + b64(signature)
	if d.raw != nil {
		raw = d.raw(raw)
	}
	return raw
}

func (d *draft) sign(algorithm, signed string) []byte {
	d.t.Helper()
	alg, ok := jws.Named(algorithm)
	if !ok {
		return []byte("whatever")
	}
	digest := []byte(signed)
	if alg.Hash != 0 {
		h := alg.Hash.New()
		_, _ = h.Write(digest)
		digest = h.Sum(nil)
	}
	var opts crypto.SignerOpts = alg.Hash
	switch key := d.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			d.t.Fatal(err)
		}
		return joined(key, r, s)
	case *rsa.PrivateKey:
		if alg.PSS {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: alg.Hash}
		}
	}
	signature, err := d.key.Sign(rand.Reader, digest, opts)
	if err != nil {
		d.t.Fatal(err)
	}
	return signature
}

// joined is an ECDSA signature as RFC 7518 §3.4 writes it.
func joined(key *ecdsa.PrivateKey, r, s *big.Int) []byte {
	size := (key.Curve.Params().BitSize + 7) / 8
	both := make([]byte, 2*size)
	r.FillBytes(both[:size])
	s.FillBytes(both[size:])
	return both
}

func (d *draft) verifier() *Verifier {
	d.t.Helper()
	v, err := New(d.config)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

// verify writes the proof and has it verified by a new verifier.
func (d *draft) verify() error {
	d.t.Helper()
	d.request.Proof = d.proof()
	return d.verifier().Verify(context.Background(), d.request)
}

// memory is a Replay that never forgets.
type memory struct {
	mu    sync.Mutex
	lives map[[32]byte]time.Duration
	asked int
	err   error
}

func newMemory() *memory { return &memory{lives: make(map[[32]byte]time.Duration)} }

func (m *memory) First(_ context.Context, _ string, id [32]byte, life time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.err != nil {
		return true, m.err
	}
	_, seen := m.lives[id]
	m.lives[id] = life
	return !seen, nil
}
