package store

import (
	"context"
	"time"

	gocache "github.com/eko/gocache/lib/v4/store"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Lookup is the way of one member through the store after memory did not have
// it: read Redis, and store what the resolver found. It remembers when it
// began, so that a flush or deletion since then wins over it, and how much of the time
// budget for Redis is left.
//
// A Lookup is used by one goroutine, once: at most one Get, at most one Put.
type Lookup struct {
	store    *Store
	key      string
	want     Want
	observer Observer

	position    uint64        // of the fences, when it began
	head        *head         // of the flush log, when it began; nil: not followed
	places      places        // the fences that its member has to pass
	began       time.Time     // by the store's clock
	spent       time.Duration // on Redis so far
	redisFailed bool          // then it is not asked again
	spare       *Entry        // the best of the stale ones seen on the way
	spareLevel  Level         // that had it
	sawRedis    bool          // a value of the key in Redis, whatever it was
	own         uint64        // height to which this look-up raised its key's fence; 0: it did not
}

// Position stands for now among the flushes and deletions that this node knows of: it
// grows with each of them.
func (s *Store) Position() uint64 { return s.fences.position() }

// Begin starts a look-up of the member that want names, whose key is key. It
// must be called before the resolver is.
func (s *Store) Begin(key string, want Want, observer Observer) *Lookup {
	if observer == nil {
		observer = silent{}
	}
	l := &Lookup{
		store: s, key: key, want: want, observer: observer,
		position: s.fences.position(), began: s.now(),
		places: s.fences.entry(key, &want, ""),
	}
	if s.log != nil {
		l.head = s.log.head.Load()
	}
	return l
}

// Get returns the entry and the level that had it, with [Hit], or a stale one
// with [Stale], or nil, [None] and [Miss]. A level that is broken has nothing;
// the observer hears why. An entry that came from Redis is in memory then, too.
//
// It asks the levels itself, in the order of the chain and without the chain, which
// would promote on another goroutine, and costs as much as decoding the entry.
func (l *Lookup) Get(ctx context.Context) (*Entry, Level, Result) {
	entry, level, result := l.search(ctx)
	l.tell()
	if entry == nil || !l.store.fences.admits(&entry.places, entry.position) {
		return nil, None, Miss // perhaps flushed while it was on its way
	}
	if level == Redis {
		// A stale one, too: for the time when neither the resolver nor Redis answers.
		l.store.memory.add(l.key, entry, true)
	}
	return entry, level, result
}

// search returns the first fresh entry, or else the best of the stale ones.
func (l *Lookup) search(ctx context.Context) (*Entry, Level, Result) {
	// Another look-up may have put it there since memory was asked.
	entry, result := l.store.memory.find(l.key, &l.want)
	if result == Hit {
		return entry, Memory, Hit
	}
	// A stale one does not end the search: Redis may have what another node has
	// loaded since.
	l.offer(entry, Memory)
	if l.store.redis != nil {
		if entry, result = l.store.redis.find(ctx, l); result == Hit {
			return entry, Redis, Hit
		}
		l.offer(entry, Redis)
	}
	return l.spare, l.spareLevel, Stale
}

// offer takes a stale entry in case that no level has a better one.
func (l *Lookup) offer(entry *Entry, level Level) {
	if entry != nil && (l.spare == nil || entry.loaded.after(l.spare.loaded)) {
		l.spare, l.spareLevel = entry, level
	}
}

// Overtaken tells whether the member was flushed, or the key deleted, since the
// look-up began. Then what it found may be given to those who asked before
// that, but not to those who joined after it: they need a look-up of their own.
// Until Put has told which id the application has for the member, a flush by
// any such id in the tenant counts.
func (l *Lookup) Overtaken() bool {
	return !l.store.fences.admitsOwn(&l.places, l.position, l.own)
}

// BeganBefore tells whether the look-up began at an earlier [Store.Position].
func (l *Lookup) BeganBefore(position uint64) bool { return l.position < position }

// Put stores what the resolver answered, in place of what was stored before: in
// memory at once, in Redis within what is left of the budget. The entry is fresh
// for life, counted from the beginning of the look-up, and kept for stale beyond
// that, for readers whose resolver fails. Put returns it for immediate use.
//
// Nothing is stored if m is not the member that was looked for, if life is not
// positive, if the member was flushed since the look-up began, or if one that
// began later has found that there is no such member. No failure to
// store is one of the request's: the observer hears of it.
func (l *Lookup) Put(ctx context.Context, m *member.Member, life, stale time.Duration) *Entry {
	entry := &Entry{
		Tenant: l.want.Tenant, Issuer: l.want.Issuer, KCID: l.want.KCID, Claims: l.want.Claims,
		loaded: momentOf(l.began), life: life, keep: life + max(stale, 0),
		position: l.position,
	}
	if m != nil {
		entry.Member = *m
		l.places = l.store.fences.entry(l.key, &l.want, m.ID)
	}
	entry.places = l.places
	if l.store.log != nil {
		entry.known = l.store.log.elapsed(l.began)
	}
	rest := life - entry.loaded.age(l.store.now())
	if rest <= 0 || entry.For(l.want.Tenant, l.want.Issuer, l.want.KCID) != nil {
		return entry
	}
	if l.Overtaken() || !l.store.absent.replace(l) {
		return entry
	}
	l.store.texts.lean(l.key, entry)
	// Errors have been observed, and the caller has the entry whatever happens.
	_ = l.store.chain.Set(withLookup(ctx, l), l.key, entry, gocache.WithExpiration(rest))
	l.tell()
	return entry
}

func (l *Lookup) tell() { l.store.tell(l.observer) }

// The levels of gocache's chain get a context, a key and a value, and no more,
// so a look-up travels in the context.
type lookupKey struct{}

func withLookup(ctx context.Context, l *Lookup) context.Context {
	return context.WithValue(ctx, lookupKey{}, l)
}

func lookupFrom(ctx context.Context) *Lookup {
	l, _ := ctx.Value(lookupKey{}).(*Lookup)
	return l
}
