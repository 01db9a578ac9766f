package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/eko/gocache/lib/v4/cache"
	"github.com/maypok86/otter/v2"
)

// Config is all that makes one store different from another.
type Config struct {
	// URL says where the shared level is: redis://[user:password@]host:port/db,
	// rediss:// for TLS, unix:///path?db=0. With "" or memory:// there is none.
	URL string

	// Prefix begins the keys of this store; see [NewKeys]. Default: "kca".
	Prefix string

	// MemoryBytes is about how much memory entries may use. Default: 64 MiB.
	MemoryBytes int64

	// Timeout is the time that all Redis operations of one look-up have
	// together. Default: 50 ms.
	Timeout time.Duration

	// TLS is how to connect to a rediss:// URL. Its ServerName defaults to the
	// URL's host, its minimum version to TLS 1.2. Default: the system's roots.
	TLS *tls.Config

	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Store is one configured store. It is safe for concurrent use.
type Store struct {
	memory *memoryLevel
	redis  *redisLevel // nil without one
	chain  *cache.ChainCache[*Entry]
	fences *fences
	now    func() time.Time

	destruct func() error
}

// New returns a store. It does not connect, so a server that is down is no
// error. Its errors name no part of the URL but its scheme's remedy.
func New(cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	var clock otter.Clock // nil: otter's own, which is the same as ours
	if cfg.Now == nil {
		cfg.Now = time.Now
	} else {
		clock = injectedClock(cfg.Now)
	}
	s := &Store{fences: newFences(), now: cfg.Now}

	var err error
	if s.memory, err = newMemoryLevel(cfg.MemoryBytes, s.fences, cfg.Now, clock); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	levels := []cache.SetterCacheInterface[*Entry]{cache.New[*Entry](s.memory)}
	if cfg.shared() {
		client, err := newClient(&cfg)
		if err != nil {
			s.memory.close()
			return nil, err
		}
		s.redis = newRedisLevel(client, &cfg, s.fences)
		levels = append(levels, cache.New[*Entry](s.redis))
	}
	s.chain = cache.NewChain(levels...)
	s.destruct = sync.OnceValue(s.close)
	return s, nil
}

func (c *Config) shared() bool { return c.URL != "" && c.URL != "memory://" }

// complete fills in defaults and refuses what cannot be meant.
func (c *Config) complete() error {
	switch {
	case c.MemoryBytes < 0:
		return errors.New("store: the size of memory is negative")
	case c.Timeout < 0:
		return errors.New("store: the timeout is negative")
	case c.TLS != nil && !c.shared():
		return errors.New("store: TLS settings need a rediss:// URL")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if err := checkPart("key prefix", c.Prefix); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = DefaultMemoryBytes
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	return nil
}

// injectedClock is a test's clock. It does not tick, so entries that ended are
// cleared away by later writes only.
type injectedClock func() time.Time

// NowNano implements otter's Clock.
func (c injectedClock) NowNano() int64 { return c().UnixNano() }

// Tick implements otter's Clock.
func (c injectedClock) Tick(time.Duration) <-chan time.Time { return nil }

// Memory returns the entry for want that is in memory under key. The result
// tells why there is none; it is [Hit] if and only if there is one.
func (s *Store) Memory(key string, want Want) (*Entry, Result) {
	return s.memory.find(key, &want)
}

// Delete removes the entry under key from both levels. Once it has returned,
// this node serves nothing that was loaded or read before it was called. An
// error says that Redis may still have the entry; it wraps [ErrUnavailable].
func (s *Store) Delete(ctx context.Context, key string, observer Observer) error {
	s.fences.raise(key)
	s.memory.remove(key)
	if s.redis == nil {
		return nil
	}
	// Not through the chain, which swallows errors.
	return s.redis.remove(ctx, s.Begin(key, Want{}, observer))
}

// Stats describes a store at one moment.
type Stats struct {
	// Entries is about how many entries are in memory.
	Entries int

	// Bytes is about how much memory they use, MaxBytes how much they may.
	Bytes, MaxBytes uint64

	// Shared tells whether there is a Redis level, Redis its state.
	Shared bool
	Redis  State
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	stats := Stats{
		Entries:  s.memory.entries.EstimatedSize(),
		Bytes:    s.memory.entries.WeightedSize(),
		MaxBytes: s.memory.entries.GetMaximum(),
	}
	if s.redis != nil {
		stats.Shared = true
		stats.Redis = State(s.redis.breaker.state.Load())
	}
	return stats
}

// Destruct ends the store's goroutines and connections. Requests of an old
// configuration may still use it: memory goes on as before, and Redis looks
// like a server that cannot be reached. Only the first call does anything.
func (s *Store) Destruct() error { return s.destruct() }

func (s *Store) close() error {
	var errs []error
	if s.redis != nil {
		s.redis.breaker.stop()
	}
	errs = append(errs, s.chain.Close()) // hands pending promotions to memory
	if s.redis != nil {
		errs = append(errs, s.redis.client.Close())
	}
	s.memory.close()
	return errors.Join(errs...)
}
