package keycloakcacheauth

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
)

// flightResult is what one look-up found for all who wait for it.
type flightResult struct {
	found
	refused outcome
	lookup  *store.Lookup // nil for none; a flush may overtake it until it is given to somebody
}

// join waits for the one look-up of this member that is under way on this
// node, or carries it out: on the caller's goroutine as long as Redis is asked, which
// takes no longer than it may, and on one of its own from there on; if the caller has
// a deadline, on one of its own from the beginning. A caller that goes away leaves
// it running for the others.
func (f *finder) join(ctx context.Context, q question) (found, outcome) {
	q.shelf.settle(ctx)
	var patience <-chan time.Time
	arrived := q.shelf.Position()
	key := q.flight()
	for {
		flight, first := q.shelf.flights.board(key)
		_, hurried := ctx.Deadline()
		switch {
		case !first:
		case hurried: // it may have to go on before Redis has answered
			q.shelf.flights.await(flight)
			go f.soar(q, key, flight, func() flightResult { return f.lookUp(context.WithoutCancel(ctx), q) })
		case f.fly(context.WithoutCancel(ctx), q, key, flight):
			return flight.result.found, flight.result.refused
		}
		if patience == nil {
			timer := time.NewTimer(f.patience)
			defer timer.Stop()
			patience = timer.C
		}
		select {
		case <-patience:
			q.shelf.flights.forget(key, flight) // the next request tries anew
			return found{}, outcomeResolverTimeout
		case <-ctx.Done():
			return found{}, outcomeOfWaiting(ctx)
		case <-flight.landed:
			result := flight.result
			if result.lookup != nil && result.lookup.Overtaken() && result.lookup.BeganBefore(arrived) {
				continue // it began before a flush, perhaps one that we came after
			}
			return result.found, result.refused
		}
	}
}

// flight tells which look-ups may answer a question.
func (q question) flight() flightKey {
	return flightKey{key: q.key, ttl: q.want.TTL, stale: q.want.Stale}
}

// fly carries a look-up out as far as Redis, and tells whether that is all. If not,
// it goes on by itself.
func (f *finder) fly(ctx context.Context, q question, key flightKey, flight *flight) (landed bool) {
	var begun begunLookup
	result := f.guarded(q, func() (result flightResult) {
		landed = true // if it panics, too
		begun, landed = f.beginLookUp(ctx, q)
		return flightResult{found: begun.found, lookup: begun.lookup}
	})
	if landed {
		q.shelf.flights.land(key, flight, result)
		return true
	}
	q.shelf.flights.await(flight)
	go f.soar(q, key, flight, func() flightResult { return f.endLookUp(ctx, q, begun) })
	return false
}

// soar carries a look-up, or what is left of it, out to its end.
func (f *finder) soar(q question, key flightKey, flight *flight, lookUp func() flightResult) {
	result := flightResult{refused: outcomeResolverError} // of a resolver that ends its goroutine
	defer func() { q.shelf.flights.land(key, flight, result) }()
	result = f.guarded(q, lookUp)
}

// inBackground carries a look-up out that nobody waits for, unless it is under way.
func (f *finder) inBackground(q question, key flightKey, lookUp func() flightResult) {
	if flight, first := q.shelf.flights.board(key); first {
		go f.soar(q, key, flight, lookUp)
	}
}

// guarded recovers panics: on a flight nobody else could, and one would end
// Caddy.
func (f *finder) guarded(q question, lookUp func() flightResult) (result flightResult) {
	defer func() {
		if p := recover(); p != nil {
			f.logger.Error("look-up of a member panicked", zap.Any("panic", p), zap.Stack("stack"))
			f.staleness.failed(q.key, f.now())
			result = flightResult{refused: outcomeResolverError}
		}
	}()
	return lookUp()
}

// lookUp goes through the levels below memory.
func (f *finder) lookUp(ctx context.Context, q question) flightResult {
	begun, done := f.beginLookUp(ctx, q)
	if done {
		return flightResult{found: begun.found, lookup: begun.lookup}
	}
	return f.endLookUp(ctx, q, begun)
}

// begunLookup is a look-up for which Redis has been asked.
type begunLookup struct {
	found  found // if that is all
	lookup *store.Lookup
	entry  *store.Entry // what was found otherwise, if anything
	level  store.Level  // where
}

// beginLookUp asks Redis, and tells whether it has who was asked for.
func (f *finder) beginLookUp(ctx context.Context, q question) (begun begunLookup, done bool) {
	begun.lookup = q.shelf.Begin(q.key, q.want, f.observer(q.want))
	var result store.Result
	begun.entry, begun.level, result = begun.lookup.Get(ctx)
	if result != store.Hit || checkMember(&begun.entry.Member, q.want) != "" {
		return begun, false
	}
	f.staleness.over(q.key)
	begun.found = f.foundIn(begun.entry, sourceOfLevel(begun.level))
	return begun, true
}

// endLookUp asks the resolvers. Redis had nothing better than a stale entry, or one
// that does not fit.
func (f *finder) endLookUp(ctx context.Context, q question, begun begunLookup) flightResult {
	lookup, entry := begun.lookup, begun.entry
	if entry != nil {
		if why := checkMember(&entry.Member, q.want); why != "" {
			f.dropWrong(ctx, q, sourceOfLevel(begun.level), why)
			lookup = q.shelf.Begin(q.key, q.want, f.observer(q.want)) // what is stored now was loaded after the drop
			entry = nil
		}
	}
	resolved := f.resolveInto(ctx, lookup, q, true)
	if entry != nil && resolved.refused.isOfResolver() {
		resolved.found, resolved.refused = f.staleFound(q, entry), ""
	}
	return resolved
}
