package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"sync"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"
)

// SeenConfig bounds [Seen].
type SeenConfig struct {
	// MaxBytes of memory for what is remembered: some 3 KiB for a token of Keycloak,
	// twice that if claims are asked for that Token has no fields for. Default: 64 MiB.
	MaxBytes int64

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

const defaultSeenBytes = 64 << 20

// Seen remembers what verified tokens say, so that their signatures are not verified
// on each request. It holds facts, never verdicts and never failures: who finds a
// token here asks [Verifier.Check] for the verdict. For that reason one Seen can serve
// any number of [Issuers], with whatever settings. It is safe for concurrent use.
//
// Of the tokens it keeps only a digest, with a key that never leaves the process: what
// is in memory tells nobody which tokens they were, and nobody can make two of them
// meet.
type Seen struct {
	now    func() time.Time
	life   time.Duration // the longest a token is remembered, if not 0
	tokens *otter.Cache[seenID, *Token]
	key    [sha256.BlockSize]byte
	hashes sync.Pool // of *keyedHash
}

// seenID stands for a token.
type seenID [sha256.Size]byte

// keyedHash is a hash and room for its result, so that neither is allocated anew.
type keyedHash struct {
	hash.Hash
	sum seenID
}

// NewSeen returns an empty memory. [Seen.Close] ends it.
func NewSeen(cfg SeenConfig) (*Seen, error) { return newSeen(cfg, 0) }

func newSeen(cfg SeenConfig, life time.Duration) (*Seen, error) {
	switch {
	case cfg.MaxBytes < 0:
		return nil, errors.New("max bytes: negative")
	case cfg.MaxBytes == 0:
		cfg.MaxBytes = defaultSeenBytes
	}
	s := &Seen{now: cfg.Now, life: life}
	options := &otter.Options[seenID, *Token]{
		MaximumWeight: uint64(cfg.MaxBytes),
		Weigher:       func(_ seenID, tok *Token) uint32 { return s.weight(tok) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[seenID, *Token]) time.Duration {
			left := e.Value.Expiry.Sub(s.now())
			if s.life > 0 {
				left = min(left, s.life)
			}
			return left
		}),
		Logger: &otter.NoopLogger{}, // it logs panics of the functions above, which have none
	}
	if cfg.Now == nil {
		s.now = time.Now
	} else {
		options.Clock = movedClock(cfg.Now)
	}
	tokens, err := otter.New(options)
	if err != nil {
		return nil, err
	}
	s.tokens = tokens

	_, _ = rand.Read(s.key[:]) // never fails
	s.hashes.New = func() any { return &keyedHash{Hash: sha256.New()} }
	return s, nil
}

// Close ends the work in the background. What is remembered can still be found.
func (s *Seen) Close() { s.tokens.StopAllGoroutines() }

// Size returns how many tokens are remembered, about, and the memory they take, in
// bytes.
func (s *Seen) Size() (tokens int, bytes int64) {
	return s.tokens.EstimatedSize(), int64(s.tokens.WeightedSize())
}

// digest returns what a token is remembered by: SHA-256 of a secret block and its text.
// HMAC would hash three blocks more, against somebody who sees digests and extends
// them; nobody sees these.
func (s *Seen) digest(raw string) (id seenID) {
	if s == nil {
		return id
	}
	h, _ := s.hashes.Get().(*keyedHash)
	h.Reset()
	_, _ = h.Write(s.key[:])
	_, _ = h.Write(bytesOf(raw))
	h.Sum(h.sum[:0])
	id = h.sum
	s.hashes.Put(h)
	return id
}

// bytesOf returns the bytes of a text as they are, for a hash, which neither changes nor
// keeps them: a copy of each token on each request would be most of what a seen token
// costs in memory.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

// get returns the token of that digest, or nil.
func (s *Seen) get(id seenID) *Token {
	if s == nil {
		return nil
	}
	tok, _ := s.tokens.GetIfPresent(id)
	return tok
}

// put remembers a token that nobody else has yet.
func (s *Seen) put(id seenID, tok *Token) {
	if s == nil || !s.now().Before(tok.Expiry) { // it may be over, and within the leeway
		return
	}
	if s.life == 0 {
		tok.claims.grow = func() { s.weighAnew(id) }
	}
	s.tokens.Set(id, tok)
}

func (s *Seen) forget(id seenID) {
	if s != nil {
		s.tokens.Invalidate(id)
	}
}

// weight estimates the memory a remembered token takes, in bytes. Claims that nobody
// has asked for are text, and count when they are decoded; but where answers are
// remembered, whose time must not begin again, from the beginning.
func (s *Seen) weight(tok *Token) uint32 {
	const (
		fixed     = 1024 // the entry, the token and what else there is only once
		perByte   = 2    // the text, and its strings in fields
		perText   = 16   // the header of a string
		perObject = 100  // an entry in a map
	)
	const ( // and for decoded ones
		moreByByte   = 1
		moreByText   = 24  // a value that holds a string
		moreByObject = 300 // a map, of which the smallest has room for eight pairs
	)
	text := tok.claims.text
	size, texts, objects := len(text), bytes.Count(text, []byte{'"'})/2, bytes.Count(text, []byte{'{'})
	weight := fixed + Attachable + perByte*size + perText*texts + perObject*objects
	if s.life > 0 || tok.claims.decoded.Load() {
		weight += moreByByte*size + moreByText*texts + moreByObject*objects
	}
	return uint32(weight)
}

// weighAnew notes that a remembered token takes more memory now.
func (s *Seen) weighAnew(id seenID) {
	s.tokens.ComputeIfPresent(id, func(tok *Token) (*Token, otter.ComputeOp) { return tok, otter.WriteOp })
}

// movedClock makes otter follow a clock that a test moves. Without ticks, what has
// expired leaves when others come.
type movedClock func() time.Time

func (c movedClock) NowNano() int64 { return c().UnixNano() }

func (c movedClock) Tick(time.Duration) <-chan time.Time { return nil }
