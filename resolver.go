package keycloakcacheauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// finder finds the member a request is for: in memory, else in Redis, else by
// asking the resolvers. Whatever the way, the member is checked against the
// request before it is used.
type finder struct {
	stores    *storeSet
	gate      *gate
	resolvers []member.Resolver
	claims    claimsRead
	uncached  bool // of all resolvers: nothing is looked up, or kept, anywhere
	aside     bool // no request depends on the answers
	metrics   *metrics
	logger    *zap.Logger
	now       func() time.Time
	life      memberLife
	timeout   time.Duration // for the resolvers together

	// patience bounds how long a request waits, should a resolver not keep to
	// its time.
	patience time.Duration

	staleness *staleness

	// down tells of each resolver whether its last call failed, so that each
	// change is logged once.
	down []atomic.Bool
}

// memberLife says how long members are good for.
type memberLife struct {
	ttl      time.Duration // how old a cached member may be
	negative time.Duration // how long it is remembered that somebody is no member
	stale    time.Duration // how much older a member may be while the resolvers fail
	refresh  time.Duration // how long before its end a member is renewed; 0: not
}

// jittered returns ttl, shortened by up to a tenth, so that members that were
// loaded together do not end together.
func (l memberLife) jittered() time.Duration {
	return l.ttl - rand.N(l.ttl/10+1) //nolint:gosec // it keeps no secret
}

// isDue tells whether a member in use should be renewed now, ahead of its end.
func (l memberLife) isDue(entry *store.Entry, now time.Time) bool {
	return l.refresh > 0 && entry.FreshFor(now, l.ttl) < l.refresh
}

// found is a member that fits the request, and where it came from.
type found struct {
	member   *member.Member
	source   source
	loadedAt time.Time
	end      time.Time // when it has to be looked at anew
}

// foundIn is the member of a cached entry.
func (f *finder) foundIn(entry *store.Entry, from source) found {
	now := f.now()
	return found{&entry.Member, from, entry.LoadedAt(), now.Add(entry.FreshFor(now, f.life.ttl))}
}

// find returns the member that the token's user is in the tenant, or the
// outcome that refuses the request. last is the token's last visit there, or nil.
func (f *finder) find(ctx context.Context, tok *token.Token, tenant string, last *visit) (found, outcome) {
	q := f.question(tok, tenant, last)
	if f.uncached {
		return f.findUncached(ctx, q)
	}
	entry, result := q.shelf.Memory(q.key, q.want)
	f.metrics.lookupInMemory(result)
	if result == store.Hit && checkMember(&entry.Member, q.want) == "" {
		if f.life.refresh > 0 && f.life.isDue(entry, f.now()) {
			f.renew(ctx, q)
		}
		return f.foundIn(entry, sourceMemory), ""
	}
	return f.findFurther(ctx, q, entry, result)
}

// findUncached finds a member where none is cached.
func (f *finder) findUncached(ctx context.Context, q question) (found, outcome) {
	if f.aside {
		return f.askAside(ctx, q)
	}
	return f.ask(ctx, q)
}

// findFurther goes on where memory had no member to let in.
func (f *finder) findFurther(ctx context.Context, q question, entry *store.Entry, result store.Result) (found, outcome) {
	switch {
	case entry == nil:
		if result == store.Mismatch {
			f.dropWrong(ctx, q, sourceMemory, outcomeWrongEntry)
		}
	case checkMember(&entry.Member, q.want) != "":
		f.dropWrong(ctx, q, sourceMemory, checkMember(&entry.Member, q.want))
		entry = nil
	}
	if reason, known := q.shelf.Absent(q.key, q.want); known {
		f.metrics.negativeHits.Inc()
		return found{}, outcome(reason)
	}
	if entry != nil && f.staleness.inTrouble(q.key, f.now()) { // nobody waits to hear once more that it fails
		f.retry(ctx, q)
		return f.staleFound(q, entry), ""
	}
	return f.join(ctx, q)
}

// levelNegative is the level of the metric of look-ups that says of users that
// they are no members.
const levelNegative = "negative"

// question is what is asked for a request: the same for all that may share the
// answer.
type question struct {
	shelf *shelf // where the tenant's members are cached
	key   string
	want  store.Want
	query member.Query
}

// question puts together what is asked for the token's user in a tenant. last is the
// token's last visit there, or nil.
func (f *finder) question(tok *token.Token, tenant string, last *visit) question {
	claims, digest := f.claims.of(tok)
	want := store.Want{
		Tenant: tenant, Issuer: tok.Issuer, KCID: tok.Subject, Claims: digest, TTL: f.life.ttl, Stale: f.life.stale,
	}
	cached := f.stores.of(tenant)
	key := last.knownKey()
	if key == "" {
		key = cached.keys.MemberWith(tenant, tok.Issuer, tok.Subject, digest)
	}
	return question{
		shelf: cached,
		key:   key,
		want:  want,
		query: member.Query{Tenant: tenant, Issuer: tok.Issuer, KCID: tok.Subject, Claims: claims},
	}
}

// ask asks the resolvers and nobody else.
func (f *finder) ask(ctx context.Context, q question) (found, outcome) {
	resolved, _, refused := f.resolve(ctx, q, true)
	if refused != "" {
		return found{}, refused
	}
	if why := checkMember(resolved, q.want); why != "" {
		f.refuseResolved(q, why)
		return found{}, why
	}
	now := f.now()
	return found{resolved, sourceResolver, now, now.Add(f.life.ttl)}, ""
}

// askAside is ask for requests that go on whatever is answered: a resolver that
// panics or does not keep to its time harms none.
func (f *finder) askAside(ctx context.Context, q question) (found, outcome) {
	answers := make(chan flightResult, 1)
	go func() {
		answers <- f.guarded(q, func() flightResult {
			answer, refused := f.ask(ctx, q)
			return flightResult{found: answer, refused: refused}
		})
	}()
	select {
	case answer := <-answers:
		return answer.found, answer.refused
	case <-ctx.Done():
		return found{}, outcomeOfWaiting(ctx)
	}
}

// outcomeOfWaiting tells why a request that waited for its member's look-up
// does so no longer.
func outcomeOfWaiting(ctx context.Context) outcome {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return outcomeResolverTimeout
	}
	return outcomeClientGone
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

// resolveInto asks the resolvers and stores what they say. Without patience it
// does so only if nobody else waits for them.
func (f *finder) resolveInto(ctx context.Context, lookup *store.Lookup, q question, patient bool) flightResult {
	resolved, by, refused := f.resolve(ctx, q, patient)
	if refused == "" {
		if refused = checkMember(resolved, q.want); refused != "" {
			f.refuseResolved(q, refused)
		}
	}
	now := f.now()
	result := flightResult{found: found{resolved, sourceResolver, now, now.Add(f.life.ttl)}, refused: refused, lookup: lookup}
	switch {
	case refused.isOfResolver():
		f.staleness.failed(q.key, f.now())
		return flightResult{refused: refused, lookup: lookup}
	case by != nil && uncached(by):
		// What it says follows from the token at hand, and is not kept; nor is what
		// others said before.
		lookup.PutAbsent(ctx, string(refused), 0)
	case refused == "":
		result.found = f.foundIn(lookup.Put(ctx, resolved, f.life.jittered(), f.life.stale), sourceResolver)
	case refused == outcomeNotAMember || refused == outcomeTenantUnknown || refused == outcomeMemberInactive:
		lookup.PutAbsent(ctx, string(refused), f.life.negative)
	default: // an answer about somebody else: what was known before is not believed either
		lookup.PutAbsent(ctx, string(refused), 0)
	}
	f.staleness.over(q.key)
	return result
}

// refuseResolved tells of a member that a resolver returned and that is not the
// one who may use the tenant. An inactive one is no fault of anybody's.
func (f *finder) refuseResolved(q question, why outcome) {
	f.metrics.mismatch(sourceResolver, why)
	if why != outcomeMemberInactive {
		f.reportWrong("resolver returned a member that was not asked for; check its query", sourceResolver, why, q.want)
	}
}

// renew has the resolvers asked about a member in the background, ahead of its
// time. The member that is cached serves until they have answered; if they say
// that it is none any more, it is gone.
func (f *finder) renew(ctx context.Context, q question) {
	if !f.staleness.try(q.key, f.now()) {
		return
	}
	key := q.flight()
	key.renewal = true
	f.inBackground(q, key, func() flightResult {
		return f.resolveInto(context.WithoutCancel(ctx), q.shelf.Begin(q.key, q.want, f.observer(q.want)), q, false)
	})
}

// retry looks a member up in the background that serves stale meanwhile. Another
// node may have put it into Redis.
func (f *finder) retry(ctx context.Context, q question) {
	if !f.staleness.try(q.key, f.now()) {
		return
	}
	f.inBackground(q, q.flight(), func() flightResult { return f.lookUp(context.WithoutCancel(ctx), q) })
}

// staleFound is a member that is too old, and serves while the resolvers fail.
// For no longer than they are taken to fail is it vouched for.
func (f *finder) staleFound(q question, entry *store.Entry) found {
	f.staleness.serves(q.key)
	end := entry.LoadedAt().Add(f.life.ttl + f.life.stale)
	if soon := f.now().Add(trouble); soon.Before(end) {
		end = soon
	}
	return found{&entry.Member, sourceStale, entry.LoadedAt(), end}
}

// dropWrong forgets a cached member that does not fit the request. That should
// never be: it means that somebody wrote to the cache who should not have, or
// that the application's own records changed their user.
func (f *finder) dropWrong(ctx context.Context, q question, from source, why outcome) {
	f.reportWrong("cached member does not fit the request; it is dropped and resolved again", from, why, q.want)
	f.drop(ctx, q)
}

func (f *finder) drop(ctx context.Context, q question) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxRedisTimeout)
	defer cancel()
	if err := q.shelf.Delete(ctx, q.key, f.observer(q.want)); err != nil {
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
