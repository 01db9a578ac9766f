package store

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

const (
	// maxShards is how many masters of a cluster have a breaker of their own, at
	// most: as many as a cluster should have.
	maxShards = 1000

	// maxProbeKeys is how many keys are tried to find one that a master has. A
	// master with fewer than a thousandth of the slots may be missed.
	maxProbeKeys = 1 << 13
)

// shards are the breakers of a cluster's masters, so that one that is dead does
// not keep the others from being used. Before it is known who has which key, and
// for masters beyond the bound, one breaker stands for all: common.
type shards struct {
	client *redis.ClusterClient
	common *breaker
	make   func(probe func(context.Context) error) *breaker
	get    func(ctx context.Context, key string) error
	key    string          // begins the keys of probes
	ended  context.Context // with it, what would need a round trip fails at once

	changes atomic.Uint64 // counts changes of state
	told    atomic.Uint64 // as many as observers heard of …
	mu      sync.RWMutex
	masters map[string]*breaker // by address
	last    State               // … and what was told last
	stopped bool
}

// master returns the address of who has a key, "" if that is not known yet.
func (s *shards) master(key string) string {
	client, err := s.client.MasterForKey(s.ended, key)
	if err != nil {
		return ""
	}
	return client.Options().Addr
}

func newShards(client *redis.ClusterClient, prefix string, get func(context.Context, string) error,
	newBreaker func(func(context.Context) error) *breaker,
) *shards {
	s := &shards{client: client, make: newBreaker, get: get, key: probeKey(prefix), masters: map[string]*breaker{}}
	var end context.CancelFunc
	s.ended, end = context.WithCancel(context.Background())
	end()
	// The common breaker stands for finding out who has which key.
	s.common = s.make(func(ctx context.Context) error {
		_, err := client.MasterForKey(ctx, s.key)
		return err
	})
	s.common.changed = func() { s.changes.Add(1) }
	return s
}

// of returns the breaker to ask about a key.
func (s *shards) of(key string) *breaker {
	address := s.master(key)
	if address == "" {
		return s.common
	}
	s.mu.RLock()
	b := s.masters[address]
	s.mu.RUnlock()
	if b != nil {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch b := s.masters[address]; {
	case b != nil:
		return b
	case s.stopped:
		return s.common
	case len(s.masters) >= maxShards:
		for old, b := range s.masters { // those who are well, or gone, lose nothing
			if b.allowsReads() {
				delete(s.masters, old)
				go b.stop() // a look-up may still have it, and find that it fails
			}
		}
		if len(s.masters) >= maxShards {
			return s.common
		}
	}
	b = s.make(func(ctx context.Context) error { return s.probe(ctx, address) })
	b.changed = func() { s.changes.Add(1) }
	s.masters[address] = b
	return b
}

// probe reads a key of a master, as look-ups do. Who has no keys any more, because
// another has taken over, is asked nothing again, and need not be left alone.
func (s *shards) probe(ctx context.Context, address string) error {
	if key := s.keyOf(address); key != "" {
		return s.get(ctx, key)
	}
	return nil
}

// keyOf returns a key that a master has, or "" if it has none any more.
func (s *shards) keyOf(address string) string {
	for n := range maxProbeKeys {
		if key := s.key + separator + strconv.Itoa(n); s.master(key) == address {
			return key
		}
	}
	return ""
}

// check is that of the common breaker, and of the master that has a key.
func (s *shards) check(key string) {
	s.common.check()
	if b := s.of(key); b != s.common {
		b.check()
	}
}

// state is that of the cluster, as far as its masters were asked, and what led
// to it.
func (s *shards) state() (State, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	state, cause := s.common.current()
	if state == Down {
		return Down, cause
	}
	var counts [states]int
	all := 0
	for address, b := range s.masters {
		of, why := b.current()
		if of == ReadOnly && s.keyOf(address) == "" {
			continue // another has taken over, so that no write will tell
		}
		all++
		if counts[of]++; of != Up {
			cause = why
		}
	}
	switch {
	case all == 0:
		return state, cause
	case counts[Up] == all:
		return Up, nil
	case counts[Down] == all:
		return Down, cause
	case counts[Down] == 0 && counts[ReadOnly] == all:
		return ReadOnly, cause
	default:
		return Partial, cause
	}
}

// tell lets one observer know of each change of the cluster's state.
func (s *shards) tell(observer Observer) {
	changes := s.changes.Load()
	if changes == s.told.Load() || observer == (silent{}) {
		return
	}
	state, cause := s.state()
	s.mu.Lock()
	s.told.Store(changes)
	news := s.last != state
	s.last = state
	s.mu.Unlock()
	if news {
		observer.RedisState(state, cause)
	}
}

func (s *shards) stop() {
	s.mu.Lock()
	s.stopped = true
	masters := s.masters
	s.mu.Unlock()
	for _, b := range masters {
		b.stop()
	}
	s.common.stop()
}
