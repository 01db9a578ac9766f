package keycloakcacheauth

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// finder finds the member a request is for: in memory, else in Redis, else by
// asking the resolvers. Whatever the way, the member is checked against the
// request before it is used.
type finder struct {
	store     *memberStore
	keys      *store.Keys
	resolvers []member.Resolver
	ttl       time.Duration // how old a cached member may be
	timeout   time.Duration // for the resolvers together
	metrics   *metrics
	logger    *zap.Logger
	now       func() time.Time

	// patience bounds how long a request waits, should a resolver not keep to
	// its time.
	patience time.Duration

	// down tells of each resolver whether its last call failed, so that each
	// change is logged once.
	down []atomic.Bool
}

// found is a member that fits the request, and where it came from.
type found struct {
	member   *member.Member
	source   source
	loadedAt time.Time
}

// find returns the member that the token's user is in the tenant, or the
// outcome that refuses the request.
func (f *finder) find(ctx context.Context, tok *token.Token, tenant string) (found, outcome) {
	key := f.keys.Member(tenant, tok.Issuer, tok.Subject)
	want := store.Want{Tenant: tenant, Issuer: tok.Issuer, KCID: tok.Subject, TTL: f.ttl}

	entry, result := f.store.Memory(key, want)
	f.metrics.lookup(store.Memory.String(), result.String())
	switch result {
	case store.Hit:
		why := checkMember(entry.Member, want)
		if why == "" {
			return found{entry.Member, sourceMemory, entry.LoadedAt}, ""
		}
		f.dropWrong(ctx, key, sourceMemory, why, want)
	case store.Mismatch:
		f.dropWrong(ctx, key, sourceMemory, outcomeWrongEntry, want)
	default: // memory has nothing to offer
	}
	return f.join(ctx, key, want)
}

// checkMember tells why a member is not the one who may use the tenant, "" if
// it is. It has the last word on every path: on what a resolver returns, and on
// cached members, which the store has compared with the request before.
// Comparison is by bytes, whatever the source compared by.
func checkMember(m *member.Member, want store.Want) outcome {
	switch {
	case m.KCID != want.KCID:
		return outcomeKCIDMismatch
	case m.Tenant != want.Tenant:
		return outcomeTenantOfMember
	case m.Issuer != "" && m.Issuer != want.Issuer:
		return outcomeIssuerOfMember
	case !m.Active:
		return outcomeMemberInactive
	default:
		return ""
	}
}

// sourceOfLevel names the place of a cached entry.
func sourceOfLevel(level store.Level) source {
	switch level {
	case store.Memory:
		return sourceMemory
	case store.Redis:
		return sourceRedis
	default:
		return sourceNone
	}
}

// dropWrong forgets a cached member that does not fit the request. That should
// never be: it means that somebody wrote to the cache who should not have, or
// that the application's own records changed their user.
func (f *finder) dropWrong(ctx context.Context, key string, from source, why outcome, want store.Want) {
	f.reportWrong("cached member does not fit the request; it is dropped and resolved again", from, why, want)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxRedisTimeout)
	defer cancel()
	if err := f.store.Delete(ctx, key, f.observer(want)); err != nil {
		f.logger.Warn("could not drop a cached member everywhere", zap.Error(err))
	}
}

func (f *finder) reportWrong(message string, from source, why outcome, want store.Want) {
	f.metrics.mismatch(from, why)
	f.logger.Error(message,
		zap.String("reason", string(why)),
		zap.String("source", string(from)),
		zap.String("tenant", want.Tenant),
		zap.String("kc_id", want.KCID))
}

// flightResult is what one look-up found for all who wait for it.
type flightResult struct {
	found
	refused outcome
}

// join waits for the one look-up of this member that is under way on this
// node, or starts it. A caller that goes away leaves it running for the others.
func (f *finder) join(ctx context.Context, key string, want store.Want) (found, outcome) {
	// whoever accepts another age of members may need another answer
	flight := fmt.Sprintf("%d %s", want.TTL, key)
	results := f.store.flights.DoChan(flight, func() (result any, err error) {
		// a panic in here could be recovered by nobody else and would end Caddy
		defer func() {
			if p := recover(); p != nil {
				f.logger.Error("look-up of a member panicked", zap.Any("panic", p), zap.Stack("stack"))
				result = flightResult{refused: outcomeResolverError}
			}
		}()
		return f.lookUp(context.WithoutCancel(ctx), key, want), nil
	})
	patience := time.NewTimer(f.patience)
	defer patience.Stop()
	select {
	case <-patience.C:
		f.store.flights.Forget(flight) // the next request tries anew
		return found{}, outcomeResolverTimeout
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return found{}, outcomeResolverTimeout
		}
		return found{}, outcomeClientGone
	case r := <-results:
		result := r.Val.(flightResult)
		return result.found, result.refused
	}
}

// lookUp goes through the levels below memory.
func (f *finder) lookUp(ctx context.Context, key string, want store.Want) flightResult {
	lookup := f.store.Begin(key, want, f.observer(want))
	if entry, level := lookup.Get(ctx); entry != nil {
		why := checkMember(entry.Member, want)
		if why == "" {
			return flightResult{found: found{entry.Member, sourceOfLevel(level), entry.LoadedAt}}
		}
		f.dropWrong(ctx, key, sourceOfLevel(level), why, want)
		lookup = f.store.Begin(key, want, f.observer(want)) // what is stored now was loaded after the drop
	}

	resolved, refused := f.resolve(ctx, want)
	if refused != "" {
		return flightResult{refused: refused}
	}
	if why := checkMember(resolved, want); why != "" {
		f.metrics.mismatch(sourceResolver, why)
		if why != outcomeMemberInactive {
			f.reportWrong("resolver returned a member that was not asked for; check its query", sourceResolver, why, want)
		}
		return flightResult{refused: why}
	}
	entry := lookup.Put(ctx, resolved, f.ttl)
	return flightResult{found: found{resolved, sourceResolver, entry.LoadedAt}}
}

// resolve asks the resolvers in their order, the next only when the one before
// certainly does not know the user.
func (f *finder) resolve(ctx context.Context, want store.Want) (*member.Member, outcome) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	query := member.Query{Tenant: want.Tenant, Issuer: want.Issuer, KCID: want.KCID}

	for i, resolver := range f.resolvers {
		started := f.now()
		m, err := resolver.Resolve(ctx, query)
		took := f.now().Sub(started)
		switch {
		case err == nil && m != nil:
			f.metrics.resolved(resolverFound, took)
			f.answers(i)
			return m, ""
		case errors.Is(err, member.ErrUnknown):
			f.metrics.resolved(resolverUnknown, took)
			f.answers(i)
		case err == nil:
			return nil, f.fails(i, errors.New("resolver returned neither a member nor an error"), took)
		default:
			return nil, f.fails(i, err, took)
		}
	}
	return nil, outcomeNotAMember
}

// answers notes that a resolver could be asked.
func (f *finder) answers(resolver int) {
	if f.down[resolver].Load() && f.down[resolver].CompareAndSwap(true, false) {
		f.logger.Info("resolver answers again", zap.Int("resolver", resolver))
	}
}

// fails tells how a failed call refuses the request. An ambiguous
// answer is one member's trouble, not the resolver's, and is logged as such.
func (f *finder) fails(resolver int, err error, took time.Duration) outcome {
	switch {
	case errors.Is(err, member.ErrAmbiguous):
		f.metrics.resolved(resolverError, took)
		f.logger.Error("resolver found more than one member; make (tenant, kc_id) unique", zap.Error(err))
		return outcomeResolverAmbiguous
	case errors.Is(err, context.DeadlineExceeded):
		f.metrics.resolved(resolverTimeout, took)
		f.fell(resolver, err)
		return outcomeResolverTimeout
	default:
		f.metrics.resolved(resolverError, took)
		f.fell(resolver, err)
		return outcomeResolverError
	}
}

func (f *finder) fell(resolver int, err error) {
	if f.down[resolver].CompareAndSwap(false, true) {
		f.logger.Error("resolver cannot answer; members in no cache get 503 until it does",
			zap.Int("resolver", resolver), zap.Error(err))
	}
}

// observer returns what carries the store's observations here.
func (f *finder) observer(want store.Want) store.Observer {
	return storeObserver{finder: f, want: want}
}

// storeObserver carries what the shared store sees to the configuration that
// asked: its metrics and its log.
type storeObserver struct {
	finder *finder
	want   store.Want
}

// Lookup implements [store.Observer].
func (o storeObserver) Lookup(level store.Level, result store.Result) {
	o.finder.metrics.lookup(level.String(), result.String())
	if result == store.Mismatch {
		o.finder.reportWrong("cached member does not fit the request; it is dropped and resolved again",
			sourceOfLevel(level), outcomeWrongEntry, o.want)
	}
}

// RedisOp implements [store.Observer].
func (o storeObserver) RedisOp(op store.Op, took time.Duration, err error) {
	o.finder.metrics.redisCommand(op.String(), took, err)
}

// LogState implements [store.Observer]: one line per change of state.
func (o storeObserver) LogState(state store.LogState, err error) {
	level, message := zapcore.InfoLevel, "the log of flushes is followed"
	switch state {
	case store.LogBlind:
		level, message = zapcore.WarnLevel, "the log of flushes cannot be read; members are resolved anew more often until it can"
	case store.LogStarting:
		level, message = zapcore.DebugLevel, "the log of flushes has not been read yet"
	case store.LogFollowed:
	}
	if c := o.finder.logger.Check(level, message); c != nil {
		c.Write(zap.String("state", state.String()), zap.Error(err))
	}
}

// LogNews implements [store.Observer].
func (o storeObserver) LogNews(news store.LogNews) {
	o.finder.metrics.logNews(news)
	if news.Malformed > 0 {
		o.finder.logger.Warn("the log of flushes holds what cannot be read; to be safe, every member was flushed",
			zap.Int("entries", news.Malformed), zap.String("id", news.MalformedAt))
	}
}

// RedisState implements [store.Observer]: one line per change of state.
func (o storeObserver) RedisState(state store.State, err error) {
	var level zapcore.Level
	var message string
	switch state {
	case store.Up:
		level, message = zapcore.InfoLevel, "redis is up"
	case store.ReadOnly:
		level, message = zapcore.WarnLevel, "redis takes no writes; members found by this node are not shared"
	case store.Down:
		level, message = zapcore.WarnLevel, "redis is unavailable; members come from memory and the resolvers"
	}
	if c := o.finder.logger.Check(level, message); c != nil {
		c.Write(zap.String("state", state.String()), zap.Error(err))
	}
}
