package store

import (
	"errors"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// ClockTolerance is how far in the future an entry may have been loaded. Clocks
// of nodes differ a little; an entry from beyond that is not used, because its
// age cannot be told.
const ClockTolerance = time.Second

// ErrMismatch says that an entry is about somebody else than was asked for.
var ErrMismatch = errors.New("entry belongs to another member")

// Want says who is looked for, and how old the answer may be.
type Want struct {
	// Tenant, Issuer and KCID are as the request's verified token has them.
	Tenant, Issuer, KCID string

	// Claims is a digest of what else of the token the resolvers were asked with,
	// by [Digest]; "" if nothing.
	Claims string

	// TTL is how old a member may be for this reader. An entry is never fresh
	// for a reader whose TTL is not positive.
	TTL time.Duration

	// Stale is how much older it may be, or read while the flush log cannot be
	// followed, for a reader whose resolver fails. Such an entry is told apart by
	// the result [Stale]. Zero for never.
	Stale time.Duration
}

// Entry is a member as it is cached. It is shared between requests: nobody
// changes it once it is stored or returned.
type Entry struct {
	// Member is what the resolver answered: a copy, in the same piece of memory, and
	// packed: ask it for an Attribute, not for its Attributes.
	Member member.Member

	// Tenant, Issuer, KCID and Claims are what was asked for when the entry was
	// loaded.
	Tenant, Issuer, KCID, Claims string

	// loaded is when the resolver was asked, by its node's clock.
	loaded moment

	// life is how long after that the entry ends for its writer. A reader with a
	// shorter TTL ends it earlier.
	life time.Duration

	// keep is how long after that it may serve as a stale one. It is life if its
	// writer wants none.
	keep time.Duration

	// position is what the store's fences stood at when loading or reading the
	// entry began, places are the fences it has to pass. They mean nothing
	// outside this process.
	position uint64
	places   places

	// known is until when no flush of the entry can have been missed, should the
	// log not be readable from then on: when this node began to load it, or when
	// the log was last read before Redis gave the entry. In the time of
	// [flushLog.elapsed].
	known int64

	// size is how many bytes its texts take, but for those that it shares.
	size int
}

// LoadedAt is when the resolver was asked, by its node's clock.
func (e *Entry) LoadedAt() time.Time { return e.loaded.time() }

// Expires is when the entry ends for its writer.
func (e *Entry) Expires() time.Time { return e.loaded.time().Add(e.life) }

// FreshFor is how much longer a reader who accepts members up to ttl old may use the
// entry: by the clock that says less.
func (e *Entry) FreshFor(now time.Time, ttl time.Duration) time.Duration {
	return min(ttl, e.life) - max(e.loaded.age(now), 0)
}

// left is how much longer the entry may serve anybody, even as a stale one.
func (e *Entry) left(now time.Time) time.Duration {
	return e.keep - max(e.loaded.age(now), 0) // a time in the future does not lengthen it
}

// For returns nil if the entry and the member in it are the one asked for, and
// otherwise [ErrMismatch]. Comparison is by bytes.
func (e *Entry) For(tenant, issuer, kcID string) error {
	m := &e.Member
	if kcID == "" || tenant == "" ||
		e.Tenant != tenant || e.Issuer != issuer || e.KCID != kcID ||
		m.Tenant != tenant || m.KCID != kcID || (m.Issuer != "" && m.Issuer != issuer) {
		return ErrMismatch
	}
	return nil
}

// Fresh tells whether a reader who accepts members up to ttl old may use the
// entry at now: until the earlier of its own expiry and LoadedAt + ttl.
func (e *Entry) Fresh(now time.Time, ttl time.Duration) bool {
	age := e.loaded.age(now)
	return age >= -ClockTolerance && age < ttl && age < e.life
}

// stale tells whether a reader whose resolver fails may use the entry at now:
// until the earlier of how long its writer keeps it and LoadedAt + TTL + Stale.
func (e *Entry) stale(now time.Time, want *Want) bool {
	age := e.loaded.age(now)
	return want.TTL > 0 && want.Stale > 0 && age < e.keep &&
		age >= -ClockTolerance && age-want.TTL < want.Stale // a sum could overflow
}

// judge returns [Hit] if the entry may be used for want at now, [Stale] if it
// may be while the resolver fails, and otherwise what is wrong with it. blind
// tells that flushes of it may have been missed.
func (e *Entry) judge(want *Want, now time.Time, blind bool) Result {
	switch {
	case e.For(want.Tenant, want.Issuer, want.KCID) != nil, e.Claims != want.Claims:
		return Mismatch
	case e.Fresh(now, want.TTL) && !blind:
		return Hit
	case e.stale(now, want):
		return Stale
	case e.Fresh(now, want.TTL):
		return Blind
	default:
		return Expired
	}
}
