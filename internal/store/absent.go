package store

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"
)

// DefaultAbsentBytes is how much memory the users that nobody knows may use
// unless the configuration says otherwise: 4 MiB, about 8000 of them.
const DefaultAbsentBytes = 4 << 20

// absence is a resolver's answer that there is no such member.
type absence struct {
	tenant, issuer, kcID string
	reason               string
	loadedAt, ends       time.Time

	// These are as an [Entry] has them, save that own is the height of the key's
	// fence that does not count; see [Lookup.PutAbsent].
	position, own uint64
	places        places
	known         int64
}

// absences are the negative entries. They are in memory only and apart from
// members: a flood of unknown users pushes no member out.
type absences struct {
	entries *otter.Cache[string, *absence]
	fences  *fences
	log     *flushLog // nil without a Redis level
	now     func() time.Time
}

func newAbsences(maxBytes int64, f *fences, now func() time.Time, clock otter.Clock) (*absences, error) {
	entries, err := otter.New(&otter.Options[string, *absence]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       weighAbsence,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, *absence]) time.Duration {
			return max(e.Value.ends.Sub(now()), 1)
		}),
		Clock:  clock,
		Logger: &otter.NoopLogger{},
	})
	if err != nil {
		return nil, err
	}
	return &absences{entries: entries, fences: f, now: now}, nil
}

// find takes no lock and allocates nothing.
func (a *absences) find(key string, want *Want) (string, bool) {
	there, ok := a.entries.GetIfPresent(key)
	if !ok {
		return "", false
	}
	now := a.now()
	switch {
	case there.tenant != want.Tenant || there.issuer != want.Issuer || there.kcID != want.KCID,
		!now.Before(there.ends),
		!a.fences.admitsOwn(&there.places, there.position, there.own):
		a.entries.Invalidate(key)
		return "", false
	case a.log.blind(now, there.known): // who was unknown may have been added
		return "", false
	default:
		return there.reason, true
	}
}

// replace forgets that a user is unknown because the look-up has found a member.
// It returns false if a look-up that began later says otherwise.
func (a *absences) replace(l *Lookup) bool {
	there, ok := a.entries.GetIfPresent(l.key)
	if !ok {
		return true
	}
	if _, holds := a.find(l.key, &l.want); holds && there.loadedAt.After(l.began) {
		return false
	}
	a.entries.Invalidate(l.key)
	return true
}

func (a *absences) close() { a.entries.StopAllGoroutines() }

// absenceOverhead is what an absence costs beside its text: otter's node and
// its place in hash table, policy and timer wheel; absence.
const absenceOverhead = 390

func weighAbsence(key string, a *absence) uint32 {
	return uint32(absenceOverhead + len(key) + len(a.tenant) + len(a.issuer) + len(a.kcID) + len(a.reason))
}

// maxReason bounds the reason of an absence, in bytes.
const maxReason = 256

// Absent tells whether a resolver has said that there is no such member, for
// the reason that [Lookup.PutAbsent] was given. It is not so any more once the
// life of that has passed, or a flush concerns the member; nor while the flush
// log cannot be followed for longer than [Config.MaxBlind]. A flush by a member
// id concerns every unknown user of its tenant. It costs neither a lock nor an
// allocation.
func (s *Store) Absent(key string, want Want) (reason string, ok bool) {
	return s.absent.find(key, &want)
}

// PutAbsent stores that the resolver knows no such member, on this node, for
// the given life, counted from the beginning of the look-up. What is stored of
// the member is removed, the stale entry too: in memory at once, also what is
// on its way there, and in Redis within what is left of the budget.
//
// Nothing is done if the member was flushed since the look-up began, or if a
// look-up that began later has found it.
func (l *Lookup) PutAbsent(ctx context.Context, reason string, life time.Duration) {
	s := l.store
	stored, known := s.memory.peek(l.key)
	if l.Overtaken() || known && stored.loaded.after(momentOf(l.began)) && s.fences.admits(&stored.places, stored.position) {
		return
	}
	if known || l.sawRedis {
		// From here on an entry that was loaded or read earlier is refused wherever
		// it turns up. The look-up itself is not meant by that. Not so for users who
		// never were members: fences are shared, and a flood of such users would
		// flush everybody.
		if l.own = s.fences.raiseOwn(l.places[scopeKey], l.position); l.own == 0 {
			return
		}
		s.memory.remove(l.key)
	}
	there := &absence{
		tenant: l.want.Tenant, issuer: l.want.Issuer, kcID: l.want.KCID,
		reason: reason[:min(len(reason), maxReason)], loadedAt: l.began, ends: l.began.Add(life),
		position: l.position, own: l.own, places: l.places,
	}
	if s.log != nil {
		there.known = s.log.elapsed(l.began)
	}
	if s.now().Before(there.ends) {
		s.absent.entries.Set(l.key, there)
	}
	if s.redis != nil && (known || l.sawRedis || life > 0) {
		s.redis.forget(ctx, l)
	}
	l.tell()
}

// forget deletes the look-up's key, because there is no such member any more.
func (r *redisLevel) forget(ctx context.Context, l *Lookup) {
	if l.redisFailed || !r.breakerOf(l.key).allowsWrites() {
		return
	}
	r.discard(ctx, l)
}
