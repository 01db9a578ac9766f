package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eko/gocache/lib/v4/cache"
	"github.com/maypok86/otter/v2"
)

// Config is all that makes one store different from another.
type Config struct {
	// URL says where the shared level is: a server as redis://host:6379/0 or
	// unix:///path?db=0, redis+sentinel://host:26379,…/master or
	// redis+cluster://host:6379,…; rediss instead of redis for TLS, and a user
	// and password before the first host. With "" or memory:// there is none.
	URL string

	// Secrets encrypt and authenticate what is stored in Redis. The first is
	// written with, all are read with. Events of the flush log are not encrypted.
	// At least 16 bytes each. Default: none.
	Secrets []string

	// Prefix begins the keys of this store; see [NewKeys]. Default: "kca".
	Prefix string

	// MemoryBytes is about how much memory entries may use. Default: 64 MiB.
	MemoryBytes int64

	// AbsentBytes is about how much memory unknown users may use. Default: 4 MiB.
	AbsentBytes int64

	// Timeout is the time that all Redis operations of one look-up have
	// together. Default: 50 ms.
	Timeout time.Duration

	// MaxBlind is how long this node may use what it has if it cannot read the
	// flush log; then only what it loads itself, for as long. At least 1 s.
	// Default: 5 s.
	MaxBlind time.Duration

	// LogLength is about how many events the flush log keeps. A node that is
	// further behind has lost events, and makes all entries invalid.
	// Default: 100000.
	LogLength int64

	// MaxLogouts is how many logouts are remembered, at about 90 bytes each. With
	// more, those are forgotten that end first of the issuer with the most, and
	// counted. Default: 500000.
	MaxLogouts int

	// MaxLogoutLife is how long a logout lasts at most, whoever tells of it: as
	// long as tokens are good, and the leeway. Default: 24 h and 10 min.
	MaxLogoutLife time.Duration

	// MaxClaims is how many ids may be claimed at a time, by one owner a hundredth
	// of them or 100. Default: 100000.
	MaxClaims int

	// TLS is how to connect to a rediss:// URL. Its ServerName defaults to the
	// URL's host, its minimum version to TLS 1.2. Default: the system's roots.
	TLS *tls.Config

	// Lazy has the store connect to nothing before [Store.Start] is called: for
	// configurations that are made to be checked, and never serve.
	Lazy bool

	// Now is the clock. Default: time.Now.
	Now func() time.Time

	// logClient replaces Redis' stream, for tests.
	logClient logClient
}

// Store is one configured store. It is safe for concurrent use.
type Store struct {
	memory *memoryLevel
	absent *absences
	redis  *redisLevel // nil without one
	chain  *cache.ChainCache[*Entry]
	log    *flushLog // nil without Redis
	fences *fences
	now    func() time.Time

	prefix  string
	texts   sharedTexts
	logouts *logouts
	claims  *claims
	flushed atomic.Uint64

	destruct func() error
}

// New returns a store. It does not connect, so a server that is down is no
// error. Its errors name no part of the URL but its scheme's remedy.
func New(cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	sealer, err := newSealer(cfg.Secrets)
	if err != nil {
		return nil, err
	}
	var clock otter.Clock // nil: otter's own, which is the same as ours
	if cfg.Now == nil {
		cfg.Now = time.Now
	} else {
		clock = injectedClock(cfg.Now)
	}
	s := &Store{
		fences: newFences(), now: cfg.Now, prefix: cfg.Prefix,
		logouts: newLogouts(cfg.MaxLogouts), claims: newClaims(cfg.MaxClaims),
	}

	s.logouts.life = cfg.MaxLogoutLife
	if s.memory, err = newMemoryLevel(cfg.MemoryBytes, s.fences, cfg.Now, clock); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if s.absent, err = newAbsences(cfg.AbsentBytes, s.fences, cfg.Now, clock); err != nil {
		s.memory.close()
		return nil, fmt.Errorf("store: %w", err)
	}
	levels := []cache.SetterCacheInterface[*Entry]{cache.New[*Entry](s.memory)}
	if cfg.shared() {
		client, logClient, err := newClients(&cfg)
		if err != nil {
			s.memory.close()
			s.absent.close()
			return nil, err
		}
		s.log = newFlushLog(logClient, &cfg, cfg.Now(), s.fences, s.logouts)
		s.memory.log, s.absent.log = s.log, s.log
		s.redis = newRedisLevel(client, &cfg, s.fences, s.log, sealer)
		s.log.check = func() { s.redis.check(logKey(cfg.Prefix)) }
		levels = append(levels, cache.New[*Entry](s.redis))
	}
	s.chain = cache.NewChain(levels...)
	s.destruct = sync.OnceValue(s.close)
	if !cfg.Lazy {
		s.Start()
	}
	return s, nil
}

// Start begins to follow the flush log, if there is one, without waiting for
// it. It does nothing unless [Config.Lazy] is set, and only once.
func (s *Store) Start() {
	if s.log != nil {
		s.log.start()
	}
}

func (c *Config) shared() bool { return c.URL != "" && c.URL != memoryURL }

// complete fills in defaults and refuses what cannot be meant.
func (c *Config) complete() error {
	switch {
	case c.MemoryBytes < 0, c.AbsentBytes < 0:
		return errors.New("store: the size of memory is negative")
	case c.Timeout < 0:
		return errors.New("store: the timeout is negative")
	case c.MaxLogoutLife < 0:
		return errors.New("store: the life of logouts is negative")
	case c.MaxBlind != 0 && c.MaxBlind < minMaxBlind:
		return fmt.Errorf("store: max_blind is less than %v, which reading the flush log may take", minMaxBlind)
	case c.LogLength < 0 || c.MaxLogouts < 0 || c.MaxClaims < 0:
		return errors.New("store: a bound is negative")
	case c.TLS != nil && !c.shared():
		return errors.New("store: TLS settings need a rediss:// URL")
	}
	c.Prefix = cmp.Or(c.Prefix, DefaultPrefix)
	if err := checkPart("key prefix", c.Prefix); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	c.MemoryBytes = cmp.Or(c.MemoryBytes, DefaultMemoryBytes)
	c.AbsentBytes = cmp.Or(c.AbsentBytes, DefaultAbsentBytes)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.MaxBlind = cmp.Or(c.MaxBlind, DefaultMaxBlind)
	c.LogLength = cmp.Or(c.LogLength, DefaultLogLength)
	c.MaxLogouts = cmp.Or(c.MaxLogouts, DefaultMaxLogouts)
	c.MaxLogoutLife = cmp.Or(c.MaxLogoutLife, DefaultMaxLogoutLife)
	c.MaxClaims = cmp.Or(c.MaxClaims, DefaultMaxClaims)
	return nil
}

// injectedClock is a test's clock. It does not tick, so entries that ended are
// cleared away by later writes only.
type injectedClock func() time.Time

// NowNano implements otter's Clock.
func (c injectedClock) NowNano() int64 { return c().UnixNano() }

// Tick implements otter's Clock.
func (c injectedClock) Tick(time.Duration) <-chan time.Time { return nil }

// Memory returns the entry for want that is in memory under key, with [Hit] or
// [Stale]. Otherwise there is none, and the result tells why.
func (s *Store) Memory(key string, want Want) (*Entry, Result) {
	return s.memory.find(key, &want)
}

// Delete removes the entry under key from both levels: one that should not be
// there. Once it has returned, this node serves nothing that was loaded or read
// before it was called. Other nodes may: to make a member invalid everywhere is
// what [Store.Flush] is for. An error says that Redis may still have the entry; it wraps [ErrUnavailable].
func (s *Store) Delete(ctx context.Context, key string, observer Observer) error {
	s.fences.raiseKey(key)
	s.memory.remove(key)
	if s.redis == nil {
		return nil
	}
	// Not through the chain, which swallows errors.
	return s.redis.remove(ctx, s.Begin(key, Want{}, observer))
}

// tell lets one observer know of what happened while there was none.
func (s *Store) tell(observer Observer) {
	if observer == (silent{}) {
		return // somebody else is to hear of it
	}
	s.logouts.tell(observer)
	if s.redis != nil {
		s.redis.tell(observer)
		s.log.news.tell(observer)
	}
}

// Stats describes a store at one moment.
type Stats struct {
	// Entries is about how many entries are in memory.
	Entries int

	// Bytes is about how much memory they use, MaxBytes how much they may.
	Bytes, MaxBytes uint64

	// Absent is about how many unknown users are in memory.
	Absent int

	// Shared tells whether there is a Redis level, Redis its state.
	Shared bool
	Redis  State

	// Flushes is how often [Store.Flush] was called, Logouts how many logouts
	// are remembered, LogoutsEvicted how many were forgotten before their end.
	Flushes        uint64
	Logouts        int
	LogoutsEvicted uint64

	// LogoutsKnown is what [Store.LogoutsKnown] says.
	LogoutsKnown bool

	// Log is how this node follows the flush log, if there is a Redis level.
	Log LogStats
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	stats := Stats{
		Entries:  s.memory.entries.EstimatedSize(),
		Bytes:    s.memory.entries.WeightedSize(),
		MaxBytes: s.memory.entries.GetMaximum(),
		Absent:   s.absent.entries.EstimatedSize(),
		Flushes:  s.flushed.Load(),
		Logouts:  s.logouts.len(),

		LogoutsEvicted: s.logouts.evicted.Load(),
		LogoutsKnown:   s.LogoutsKnown(),
	}
	if s.redis != nil {
		stats.Shared = true
		stats.Redis = s.redis.state()
		stats.Log = s.log.stats()
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
		s.redis.stop() // first: the tail may be in its check
		errs = append(errs, s.log.stop())
	}
	errs = append(errs, s.chain.Close())
	if s.redis != nil {
		errs = append(errs, s.redis.client.Close())
	}
	s.memory.close()
	s.absent.close()
	return errors.Join(errs...)
}
