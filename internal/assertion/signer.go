package assertion

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
)

const (
	// MediaType is the typ of every assertion.
	MediaType = "kca-assertion+jwt"

	// JWKSMediaType is that of the key set (RFC 7517 section 8.5.1).
	JWKSMediaType = "application/jwk-set+json"

	// DefaultTTL is how long an assertion is good unless the configuration says
	// otherwise. MinTTL and MaxTTL are its bounds: below, clocks that differ count for
	// more than it does; above, it is not short-lived.
	DefaultTTL = time.Minute
	MinTTL     = 5 * time.Second
	MaxTTL     = 10 * time.Minute

	// DefaultCacheBytes is the size of the cache unless the configuration says otherwise.
	DefaultCacheBytes = 8 << 20

	// MaxSize is that of the largest assertion, in bytes. Many servers take no more than
	// 8 KiB of headers in all.
	MaxSize = 6 << 10
)

var (
	// ErrConfig says what is wrong with a [Config].
	ErrConfig = errors.New("assertion")

	// ErrClaims says that a user cannot be asserted: something is missing, or is not text.
	ErrClaims = errors.New("not enough to assert, or not UTF-8")

	// ErrTooLarge says that an assertion would have more than [MaxSize] bytes.
	ErrTooLarge = fmt.Errorf("the assertion would have more than %d bytes", MaxSize)
)

// Config is all that makes one signer different from another.
type Config struct {
	// Keys: the first one signs, all are published. To change keys without refusals,
	// first add the new one behind, and put it in front when upstreams have had the time
	// to fetch it; drop the old one when the last of its assertions has ended.
	Keys []*Key

	// Algorithm is what the first key has to be for: "EdDSA", "ES256", or "" for either.
	Algorithm string

	// Issuer is iss: the site.
	Issuer string

	// Audience is aud: the upstreams that are to accept the assertion. At least one.
	Audience []string

	// TTL is how long an assertion is good at most. Default: a minute.
	TTL time.Duration

	// CacheBytes is about how much memory is used to remember assertions. Default: 8 MiB.
	CacheBytes int64

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

// Claims say who a request's user is. All texts are required and have to be UTF-8.
type Claims struct {
	Subject  string   // sub: the user's Keycloak id
	Tenant   string   // tenant
	MemberID string   // member_id: the application's own
	Roles    []string // roles; not to be changed afterwards

	// TokenEnd is when the user's access token expires, MemberEnd when the member's
	// entry ends for this site. No assertion says it is good for longer.
	TokenEnd, MemberEnd time.Time
}

func (c *Claims) check() error {
	texts := append([]string{c.Subject, c.Tenant, c.MemberID}, c.Roles...)
	for i, text := range texts {
		if i < 3 && text == "" || !utf8.ValidString(text) {
			return ErrClaims
		}
	}
	if c.TokenEnd.IsZero() || c.MemberEnd.IsZero() {
		return ErrClaims
	}
	return nil
}

// Signer signs assertions of one site. It is safe for concurrent use.
type Signer struct {
	issuer   string
	audience any // a string or several
	ttl      time.Duration
	now      func() time.Time
	signer   jose.Signer
	keySet   []byte
	made     *memory
	signed   atomic.Uint64
	reused   atomic.Uint64
}

// New returns a signer. [Signer.Close] ends it.
func New(cfg Config) (*Signer, error) {
	cfg.TTL = cmp.Or(cfg.TTL, DefaultTTL)
	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, DefaultCacheBytes)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	first := cfg.Keys[0]
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: first.alg, Key: jose.JSONWebKey{Key: first.private, KeyID: first.id}},
		(&jose.SignerOptions{}).WithType(MediaType))
	if err != nil {
		return nil, fmt.Errorf("%w: the first key cannot sign", ErrKey) // err is not known to be free of it
	}
	s := &Signer{issuer: cfg.Issuer, audience: cfg.Audience, ttl: cfg.TTL, now: cfg.Now, signer: signer}
	if len(cfg.Audience) == 1 {
		s.audience = cfg.Audience[0]
	}
	var set jose.JSONWebKeySet
	for _, key := range cfg.Keys {
		set.Keys = append(set.Keys, *key.jwk())
	}
	if s.keySet, err = json.Marshal(set); err != nil {
		return nil, fmt.Errorf("%w: a key cannot be published", ErrKey)
	}
	if s.made, err = newMemory(cfg.CacheBytes, cfg.Now); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s, nil
}

func (c *Config) check() error {
	if c.Issuer == "" || !utf8.ValidString(c.Issuer) {
		return fmt.Errorf("%w: issuer: missing, or not UTF-8", ErrConfig)
	}
	if len(c.Audience) == 0 {
		return fmt.Errorf("%w: audience: missing; name the upstream", ErrConfig)
	}
	for _, name := range c.Audience {
		if name == "" || !utf8.ValidString(name) {
			return fmt.Errorf("%w: audience: an empty name, or one that is not UTF-8", ErrConfig)
		}
	}
	switch {
	case c.TTL < MinTTL || c.TTL > MaxTTL:
		return fmt.Errorf("%w: ttl: want %v to %v", ErrConfig, MinTTL, MaxTTL)
	case c.CacheBytes < 0:
		return fmt.Errorf("%w: the size of the cache is negative", ErrConfig)
	case c.Algorithm != "" && c.Algorithm != string(jose.EdDSA) && c.Algorithm != string(jose.ES256):
		return fmt.Errorf("%w: algorithm: want EdDSA or ES256", ErrConfig)
	case len(c.Keys) == 0:
		return fmt.Errorf("%w: key: missing", ErrConfig)
	}
	seen := map[string]bool{}
	for _, key := range c.Keys {
		if key == nil || seen[key.id] {
			return fmt.Errorf("%w: key: one that is nil, or there twice", ErrConfig)
		}
		seen[key.id] = true
	}
	switch first := c.Keys[0]; {
	case first.private == nil:
		return fmt.Errorf("%w: the first key is a public one, and cannot sign", ErrKey)
	case c.Algorithm != "" && c.Algorithm != string(first.alg):
		return fmt.Errorf("%w: the first one is for %s, not for %s", ErrKey, first.alg, c.Algorithm)
	}
	return nil
}

// KeySet returns the JWK set (RFC 7517 section 5) that the upstream verifies with. It
// holds public keys only. Nobody may change it.
func (s *Signer) KeySet() []byte { return s.keySet }

// Sign returns an assertion, a new one or one that it has given out before: then reused
// is true. That is done until a quarter of its time is left.
//
// If the token or the entry ends within the second, or has ended and was accepted within
// the leeway, so has the assertion: upstreams need a leeway as well.
//
// Errors are [ErrClaims] and [ErrTooLarge].
func (s *Signer) Sign(c Claims) (text string, reused bool, err error) {
	now := s.now()
	latest := c.TokenEnd // whatever happens
	if c.MemberEnd.Before(latest) {
		latest = c.MemberEnd
	}
	end := now.Add(s.ttl)
	if latest.Before(end) {
		end = latest
	}
	end = end.Truncate(time.Second) // exp is in seconds, and not to be too late
	if old := s.made.find(&c); old != nil && !old.end.After(latest) &&
		(old.end.Sub(now) >= s.ttl/4 || old.end.Equal(end)) {
		s.reused.Add(1)
		return old.text, true, nil
	}
	if text, err = s.sign(&c, now, end); err != nil {
		return "", false, err
	}
	s.signed.Add(1)
	s.made.put(&c, text, end)
	return text, false, nil
}

type payload struct {
	Issuer   string   `json:"iss"`
	Audience any      `json:"aud"`
	Subject  string   `json:"sub"`
	Tenant   string   `json:"tenant"`
	MemberID string   `json:"member_id"`
	Roles    []string `json:"roles"`
	IssuedAt int64    `json:"iat"`
	Expiry   int64    `json:"exp"`
}

func (s *Signer) sign(c *Claims, now, end time.Time) (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	roles := c.Roles
	if roles == nil {
		roles = []string{} // never null
	}
	text, err := json.Marshal(payload{
		s.issuer, s.audience, c.Subject, c.Tenant, c.MemberID, roles, now.Unix(), end.Unix(),
	})
	if err != nil {
		return "", ErrClaims // which check has made sure of; the cause might quote it
	}
	signed, err := s.signer.Sign(text)
	if err != nil {
		return "", errors.New("signing the assertion failed") // as above
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		return "", errors.New("signing the assertion failed")
	}
	if len(compact) > MaxSize {
		return "", ErrTooLarge
	}
	return compact, nil
}

// Stats describes a signer at one moment.
type Stats struct {
	Signed, Reused uint64 // assertions that were made, and that were given out again
	Entries        int    // remembered, about
	Bytes          uint64 // that they take, about
}

// Stats returns the signer's figures.
func (s *Signer) Stats() Stats {
	return Stats{s.signed.Load(), s.reused.Load(), s.made.entries.EstimatedSize(), s.made.entries.WeightedSize()}
}

// Close ends the work in the background. Sign can be used afterwards.
func (s *Signer) Close() { s.made.entries.StopAllGoroutines() }
