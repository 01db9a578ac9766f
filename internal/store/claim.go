package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// DefaultMaxClaims is how many ids may be claimed at a time unless the
// configuration says otherwise.
const DefaultMaxClaims = 100000

// One owner may hold one of so many shares of the claims, and no fewer than the
// least share.
const (
	claimShares   = 100
	minClaimShare = 100
)

// ErrClaimsFull says that as many ids are claimed as may be, by this owner or by
// all. Whether an id was
// claimed before cannot be told then, so it must not be accepted.
var ErrClaimsFull = errors.New("too many ids are claimed at a time")

var errNoClaim = errors.New("store: a claim needs an owner, an id and a life")

// claims are the ids that this node has seen claimed, exactly. Each owner has a
// share of them, so that nobody can use up those of the others.
type claims struct {
	max, share int

	mu     sync.Mutex
	held   map[claimID]heldClaim
	owners map[claimID]*claimOwner
	swept  time.Time
}

// claimID is a digest of an id, or of an owner, so that its size is bounded.
type claimID [sha256.Size / 2]byte

func newClaimID(text string) claimID {
	sum := sha256.Sum256([]byte(text))
	return claimID(sum[:len(claimID{})])
}

// heldClaim is one claim, in as few bytes as will do.
type heldClaim struct {
	owner *claimOwner
	ends  int64 // Unix time in nanoseconds
}

// claimOwner is who holds claims, and how many.
type claimOwner struct {
	id   claimID
	held int
}

func newClaims(limit int) *claims {
	return &claims{
		max: limit, share: min(max(limit/claimShares, minClaimShare), limit),
		held: map[claimID]heldClaim{}, owners: map[claimID]*claimOwner{},
	}
}

// claim tells whether an id is not claimed, and claims it for an owner.
func (c *claims) claim(ownerID, id claimID, life time.Duration, now time.Time) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held, ok := c.held[id]; ok {
		if now.UnixNano() < held.ends {
			return false, nil
		}
		c.release(id, held)
	}
	if c.full(ownerID) {
		if c.sweep(now); c.full(ownerID) {
			return false, ErrClaimsFull
		}
	}
	owner := c.owners[ownerID]
	if owner == nil {
		owner = &claimOwner{id: ownerID}
		c.owners[ownerID] = owner
	}
	owner.held++
	c.held[id] = heldClaim{owner, now.Add(life).UnixNano()}
	return true, nil
}

// full tells whether there is no room for one more claim of an owner.
func (c *claims) full(ownerID claimID) bool {
	owner := c.owners[ownerID]
	return len(c.held) >= c.max || owner != nil && owner.held >= c.share
}

func (c *claims) release(id claimID, held heldClaim) {
	delete(c.held, id)
	if held.owner.held--; held.owner.held == 0 {
		delete(c.owners, held.owner.id)
	}
}

// sweep drops claims that have ended, once a second at most: somebody who fills
// the set must not make each claim cost its size.
func (c *claims) sweep(now time.Time) {
	if since := now.Sub(c.swept); since >= 0 && since < time.Second {
		return
	}
	c.swept = now
	for id, held := range c.held {
		if now.UnixNano() >= held.ends {
			c.release(id, held)
		}
	}
}

// Claim tells whether nobody has claimed the id within the life of that claim,
// and claims it: here, and then for all nodes, within the budget of a look-up.
// It is for what may be used only once, such as the proofs of RFC 9449.
//
// Ids are the same whoever claims them; the owner is who pays. One owner may hold
// a hundredth of [Config.MaxClaims] at a time, at least 100 of them.
//
// Three answers have an error. First with [ErrUnavailable] means that the id is
// new to this node, and Redis could not be asked about the others. Not first
// with [ErrClaimsFull] means that a bound is reached, of the owner or of all, and
// nothing can be said. Anything else is a mistake of the caller.
func (s *Store) Claim(ctx context.Context, owner, id string, life time.Duration, observer Observer) (first bool, err error) {
	if owner == "" || id == "" || life <= 0 {
		return false, errNoClaim
	}
	life = max(life, time.Millisecond)
	first, err = s.claims.claim(newClaimID(owner), newClaimID(id), life, s.now())
	if !first || s.redis == nil {
		return first, err
	}
	return s.redis.claim(ctx, s.Begin(claimKey(s.prefix, id), Want{}, observer), life)
}

// claim sets the look-up's key unless it is set. An error comes with true.
func (r *redisLevel) claim(ctx context.Context, l *Lookup, life time.Duration) (bool, error) {
	defer l.tell()
	if !r.breakerOf(l.key).allowsWrites() {
		return true, ErrUnavailable
	}
	set := true
	err := r.do(ctx, l, OpClaim, func(ctx context.Context) error {
		err := r.client.SetArgs(ctx, l.key, "1", redis.SetArgs{Mode: "NX", TTL: life}).Err()
		if errors.Is(err, redis.Nil) {
			set, err = false, nil
		}
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable):
		return true, err
	default: // the caller had no time left
		return true, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return set, nil
}
