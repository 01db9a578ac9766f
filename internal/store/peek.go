package store

import (
	"context"
)

// maxFound bounds what [Store.InMemory] returns: members of one user and tenant
// that differ by claims, or by who asks for them.
const maxFound = 100

// Peeked is what the levels have of one member.
type Peeked struct{ Memory, Redis Seen }

// Seen is what one level has of a member. The entry is there too with [Expired],
// [Stale], [Blind] and [Fenced]: the result says how it may be used.
type Seen struct {
	Entry  *Entry
	Result Result
}

// Peek shows what the levels have under key, and changes nothing: nothing is
// promoted, dropped, or counted as used. Redis is given the time of a look-up;
// [Skipped] says that it was not asked, because it does not answer or there is
// none.
func (s *Store) Peek(ctx context.Context, key string, want Want) Peeked {
	seen := Peeked{Memory: s.memory.look(key, &want), Redis: Seen{nil, Skipped}}
	if s.redis != nil {
		seen.Redis = s.redis.look(ctx, s.Begin(key, want, nil))
	}
	return seen
}

// InMemory returns the entries of a user in a tenant that are in memory, by their
// keys, whatever issuer, namespace and claims they were found with: 100 of them at
// most. It looks at every entry there is, and is for the eyes of operators.
func (s *Store) InMemory(tenant, kcID string) map[string]*Entry {
	found := make(map[string]*Entry)
	for key, entry := range s.memory.entries.All() {
		if entry.Tenant == tenant && entry.KCID == kcID && len(found) < maxFound {
			found[key] = entry
		}
	}
	return found
}

// peek returns the entry as it is, without an effect on what is evicted.
func (m *memoryLevel) peek(key string) (*Entry, bool) {
	there, ok := m.entries.GetEntryQuietly(key)
	return there.Value, ok
}

func (m *memoryLevel) look(key string, want *Want) Seen {
	entry, ok := m.peek(key)
	if !ok {
		return Seen{nil, Miss}
	}
	now := m.now()
	result := entry.judge(want, now, m.log.blind(now, entry.known))
	if result == Mismatch {
		return Seen{nil, Mismatch}
	}
	if !m.fences.admits(&entry.places, entry.position) {
		result = Fenced
	}
	return Seen{entry, result}
}

func (r *redisLevel) look(ctx context.Context, l *Lookup) Seen {
	if !r.breakerOf(l.key).allowsReads() {
		return Seen{nil, Skipped}
	}
	value, result := r.fetch(ctx, l)
	if result != Hit {
		return Seen{nil, result}
	}
	entry, at, err := r.decode(l.key, value)
	if err != nil {
		return Seen{nil, Invalid}
	}
	if result = entry.judge(&l.want, r.now(), false); result == Mismatch {
		return Seen{nil, Mismatch}
	}
	entry.places = r.fences.entry(l.key, &l.want, entry.Member.ID)
	switch {
	case r.log.followed(r.now()) == nil:
		result = Blind
	case !r.admits(l, entry, at):
		result = Fenced
	}
	return Seen{entry, result}
}
