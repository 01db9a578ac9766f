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
	level       Level         // that had the entry
}

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

// Get returns the entry and the level that had it, or nil and [None]. A level
// that is broken has nothing; the observer hears why. An entry that came from
// Redis is in memory soon afterwards.
func (l *Lookup) Get(ctx context.Context) (*Entry, Level) {
	entry, err := l.store.chain.Get(withLookup(ctx, l), l.key)
	l.tell()
	// gocache has returned nil without an error before, so look at both.
	if err != nil || entry == nil || l.level == None {
		return nil, None
	}
	if !l.store.fences.admits(&entry.places, entry.position) {
		return nil, None // flushed while it was on its way
	}
	return entry, l.level
}

// Overtaken tells whether the member was flushed, or the key deleted, since the
// look-up began. Then what it found may be given to those who asked before
// that, but not to those who joined after it: they need a look-up of their own.
// Until Put has told which id the application has for the member, a flush by
// any such id in the tenant counts.
func (l *Lookup) Overtaken() bool { return !l.store.fences.admits(&l.places, l.position) }

// Put stores what the resolver answered, for the given life, counted from the
// beginning of the look-up: in memory at once, in Redis within what is left of
// the budget. It returns the entry for immediate use.
//
// Nothing is stored if m is not the member that was looked for, if life is not
// positive, or if the member was flushed since the look-up began. No failure to
// store is one of the request's: the observer hears of it.
func (l *Lookup) Put(ctx context.Context, m *member.Member, life time.Duration) *Entry {
	entry := &Entry{
		Member: m,
		Tenant: l.want.Tenant, Issuer: l.want.Issuer, KCID: l.want.KCID,
		LoadedAt: l.began, Expires: l.began.Add(life),
		position: l.position,
	}
	if m != nil {
		l.places = l.store.fences.entry(l.key, &l.want, m.ID)
	}
	entry.places = l.places
	if l.store.log != nil {
		entry.known = l.store.log.elapsed(l.began)
	}
	rest := entry.Expires.Sub(l.store.now())
	if rest <= 0 || entry.For(l.want.Tenant, l.want.Issuer, l.want.KCID) != nil {
		return entry
	}
	// Errors have been observed, and the caller has the entry whatever happens.
	_ = l.store.chain.Set(withLookup(ctx, l), l.key, entry, gocache.WithExpiration(rest))
	l.tell()
	return entry
}

func (l *Lookup) tell() { l.store.tell(l.observer) }

// The levels of gocache's chain get a context, a key and a value, and no more,
// so a look-up travels in the context. The chain promotes on a context of its
// own: a level that finds no look-up there knows that it is a promotion.
type lookupKey struct{}

func withLookup(ctx context.Context, l *Lookup) context.Context {
	return context.WithValue(ctx, lookupKey{}, l)
}

func lookupFrom(ctx context.Context) *Lookup {
	l, _ := ctx.Value(lookupKey{}).(*Lookup)
	return l
}
