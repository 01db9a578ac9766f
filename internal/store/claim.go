package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// DefaultMaxClaims is how many ids may be claimed at a time unless the
// configuration says otherwise.
const DefaultMaxClaims = 100000

// ErrClaimsFull says that as many ids are claimed as may be. Whether an id was
// claimed before cannot be told then, so it must not be accepted.
var ErrClaimsFull = errors.New("too many ids are claimed at a time")

var errNoClaim = errors.New("store: a claim needs an id and a life")

// claims are the ids that this node has seen claimed, exactly.
type claims struct {
	max int

	mu    sync.Mutex
	ends  map[string]time.Time // by digest, so that their size is bounded
	swept time.Time
}

func newClaims(limit int) *claims { return &claims{max: limit, ends: map[string]time.Time{}} }

// claim tells whether an id is not claimed, and claims it.
func (c *claims) claim(id string, life time.Duration, now time.Time) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end, ok := c.ends[id]; ok && now.Before(end) {
		return false, nil
	}
	if len(c.ends) >= c.max && !c.sweep(now) {
		return false, ErrClaimsFull
	}
	c.ends[id] = now.Add(life)
	return true, nil
}

// sweep drops claims that have ended, once a second at most: somebody who fills
// the set must not make each claim cost its size.
func (c *claims) sweep(now time.Time) bool {
	if since := now.Sub(c.swept); since >= 0 && since < time.Second {
		return false
	}
	c.swept = now
	for id, end := range c.ends {
		if !now.Before(end) {
			delete(c.ends, id)
		}
	}
	return len(c.ends) < c.max
}

// Claim tells whether nobody has claimed the id within the life of that claim,
// and claims it: here, and then for all nodes, within the budget of a look-up.
// It is for what may be used only once, such as the proofs of RFC 9449.
//
// Three answers have an error. First with [ErrUnavailable] means that the id is
// new to this node, and Redis could not be asked about the others. Not first
// with [ErrClaimsFull] means that the bound is reached, and nothing can be
// said. Anything else is a mistake of the caller.
func (s *Store) Claim(ctx context.Context, id string, life time.Duration, observer Observer) (first bool, err error) {
	if id == "" || life <= 0 {
		return false, errNoClaim
	}
	life = max(life, time.Millisecond)
	first, err = s.claims.claim(digest(id), life, s.now())
	if !first || s.redis == nil {
		return first, err
	}
	return s.redis.claim(ctx, s.Begin(claimKey(s.prefix, id), Want{}, observer), life)
}

// claim sets the look-up's key unless it is set. An error comes with true.
func (r *redisLevel) claim(ctx context.Context, l *Lookup, life time.Duration) (bool, error) {
	defer l.tell()
	if !r.breaker.allowsWrites() {
		return true, ErrUnavailable
	}
	set, err := r.do(ctx, l, OpClaim, func(ctx context.Context) (any, error) {
		err := r.client.SetArgs(ctx, l.key, "1", redis.SetArgs{Mode: "NX", TTL: life}).Err()
		if errors.Is(err, redis.Nil) {
			return false, nil
		}
		return true, err
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable):
		return true, err
	default: // the caller had no time left
		return true, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return set.(bool), nil
}
