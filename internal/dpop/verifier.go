package dpop

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

const (
	defaultMaxSize = 8 << 10
	defaultWindow  = time.Minute
)

// Config says which proofs a [Verifier] accepts.
type Config struct {
	// Algorithms that may sign: RS, PS and ES with 256, 384 and 512, and EdDSA, also
	// called Ed25519. Default: [jws.DefaultAlgorithms].
	Algorithms []string

	// Window is how old a proof may be, by its iat. Default: 1 min.
	Window time.Duration

	// Leeway is how far iat may lie ahead, exp back and nbf ahead, since clocks differ.
	// Default: none.
	Leeway time.Duration

	// MaxSize of a proof, in bytes. Default: 8 KiB.
	MaxSize int

	// Now is the clock. Default: [time.Now].
	Now func() time.Time

	// Replay remembers which proofs were here. Required.
	Replay Replay

	// Nonce, if given, is asked of every proof.
	Nonce *Nonce
}

// Replay remembers proofs. It must be safe for concurrent use, and of many calls at
// once with one id, exactly one may be the first.
type Replay interface {
	// First reports whether id comes for the first time within life, and remembers it
	// for that long. The thumbprint is that of the key whose proof it is: who sends
	// very many must not take the room of others. With an error nothing is known, and the proof does not pass:
	// where an answer of this node alone shall do, the implementation is to give it
	// without one. The error must hold no secrets.
	First(ctx context.Context, thumbprint string, id [32]byte, life time.Duration) (bool, error)
}

// Request is what a proof has to fit.
type Request struct {
	// Proof is the value of the one DPoP header field. That there is no second, the
	// caller sees to (RFC 9449 §4.3, check 1).
	Proof string

	// Method of the request, as it came.
	Method string

	// URLs are the addresses the client may have used, of which htu must be one:
	// absolute, as the client sees them, before anything was rewritten and with the
	// path escaped as it came. Queries and fragments are ignored.
	URLs []string

	// AccessToken that came with the proof, as it came.
	AccessToken string

	// Thumbprint of the key the token is bound to: its cnf.jkt.
	Thumbprint string
}

// Verifier verifies proofs. It is safe for concurrent use.
type Verifier struct {
	cfg        Config
	algorithms []string // with aliases
}

// New returns a verifier.
func New(cfg Config) (*Verifier, error) {
	switch {
	case cfg.Replay == nil:
		return nil, errors.New("replay: missing")
	case cfg.Window < 0:
		return nil, errors.New("window: negative")
	case cfg.Leeway < 0:
		return nil, errors.New("leeway: negative")
	case cfg.MaxSize < 0:
		return nil, errors.New("max size: negative")
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = jws.DefaultAlgorithms()
	}
	for _, name := range cfg.Algorithms {
		if _, ok := jws.Named(name); !ok {
			return nil, fmt.Errorf("algorithms: %q is none that may sign; "+
				"RS, PS and ES with 256, 384 or 512, and EdDSA, are", name)
		}
	}
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	cfg.Window = cmp.Or(cfg.Window, defaultWindow)
	cfg.MaxSize = cmp.Or(cfg.MaxSize, defaultMaxSize)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg: cfg, algorithms: jws.WithAliases(cfg.Algorithms)}, nil
}

// Algorithms are those accepted, sorted, with both names of Ed25519: for the algs of
// the challenge (RFC 9449 §7.1). They must not be changed.
func (v *Verifier) Algorithms() []string { return v.algorithms }

// Verify says whether the proof shows that who sent r holds the key of its token. A
// refusal is an [*Error]; any other error, wrapping [ErrReplayUnknown], means that it
// could not be told.
//
// A proof is good once: to ask twice for one request is to refuse it.
func (v *Verifier) Verify(ctx context.Context, r Request) error {
	p, err := v.parse(r.Proof)
	if err != nil {
		return err
	}
	if !equal(p.key.thumbprint, r.Thumbprint) {
		return refuse(ReasonBinding, "")
	}
	if !p.algorithm.Verify(p.key.public, []byte(p.signed), p.signature) {
		return refuse(ReasonSignature, "")
	}
	c, err := parseClaims(p.payload)
	if err != nil {
		return err
	}
	now := v.cfg.Now()
	if c.method != r.Method { // methods are case-sensitive (RFC 9110 §9.1)
		return refuse(ReasonMethod, "")
	}
	to, err := matchTarget(c.url, r.URLs)
	if err != nil {
		return err
	}
	if err := v.checkTimes(c, now); err != nil {
		return err
	}
	if digest := sha256.Sum256([]byte(r.AccessToken)); r.AccessToken == "" ||
		!equal(c.tokenHash, base64.RawURLEncoding.EncodeToString(digest[:])) {
		return refuse(ReasonTokenHash, "")
	}
	// Near the end: only who did everything else right is worth another try.
	if v.cfg.Nonce != nil && !v.cfg.Nonce.Check(c.nonce) {
		return &Error{Reason: ReasonNonce, Err: ErrNonce}
	}
	return v.checkFirst(ctx, p.key.thumbprint, useOf(p.key.thumbprint, to, c.id), c.issuedAt, now)
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// matchTarget returns htu in normal form if it is one of urls.
func matchTarget(htu string, urls []string) (target, error) {
	claimed, ok := parseTarget(htu)
	if !ok {
		return target{}, refuse(ReasonURL, "htu is not an absolute http or https URL without user and dot segments")
	}
	hint := "no address of the request is known, or it has dot segments"
	for _, text := range urls {
		came, ok := parseTarget(text)
		switch {
		case !ok:
			continue
		case came == claimed:
			return claimed, nil
		case came.origin == claimed.origin:
			hint = "the paths differ: was the request rewritten on its way?"
		default:
			hint = fmt.Sprintf("the proof is for %s, the request came to %s: is there a proxy that has to be trusted?",
				quote(claimed.origin), quote(came.origin))
		}
	}
	return target{}, refuse(ReasonURL, hint)
}

func (v *Verifier) checkTimes(c *claims, now time.Time) error {
	leeway := v.cfg.Leeway
	switch age := now.Sub(c.issuedAt); {
	case age > v.cfg.Window:
		return refuse(ReasonTooOld, fmt.Sprintf("the proof is %s old, of which %s are taken: is the client's clock right?",
			age.Truncate(time.Second), v.cfg.Window))
	case age < -leeway:
		return refuse(ReasonIssuedInFuture, fmt.Sprintf("the proof is from %s ahead: is the client's clock right?",
			(-age).Truncate(time.Second)))
	case !c.expiry.IsZero() && !now.Before(c.expiry.Add(leeway)):
		return refuse(ReasonExpired, "")
	case !c.notBefore.IsZero() && now.Add(leeway).Before(c.notBefore):
		return refuse(ReasonNotYetValid, "")
	}
	return nil
}

// useOf is what may happen once: that a key's proof of this id is used for this target
// (RFC 9449 §11.1). With the key in it, no client can use up another's ids. It is not
// the hash of the proof, because an ECDSA signature has a second valid form, which
// anybody can compute.
func useOf(thumbprint string, to target, id string) [32]byte {
	var text []byte
	for _, part := range []string{"DPoP proof", thumbprint, to.origin, to.path, id} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part))) // so that no two lists look the same
		text = append(text, part...)
	}
	return sha256.Sum256(text)
}

// checkFirst comes last, so that only good proofs take up memory. They are remembered
// until they are too old on every node, also one whose clock is late by the leeway.
func (v *Verifier) checkFirst(ctx context.Context, thumbprint string, use [32]byte, issuedAt, now time.Time) error {
	life := issuedAt.Add(v.cfg.Window + v.cfg.Leeway + time.Second).Sub(now)
	switch first, err := v.cfg.Replay.First(ctx, thumbprint, use, life); {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrReplayUnknown, err)
	case !first:
		return refuse(ReasonReplay, "")
	}
	return nil
}
