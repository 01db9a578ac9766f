package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	gocache "github.com/eko/gocache/lib/v4/store"
	redisstore "github.com/eko/gocache/store/redis/v4"
	"github.com/redis/go-redis/v9"
)

// ErrUnavailable says that Redis could not do what was asked: it does not
// answer, refuses, or is left alone because it did not answer before.
var ErrUnavailable = errors.New("redis is unavailable")

// redisLevel keeps entries where all nodes find them. It is a level of
// gocache's chain, made of gocache's own redis store with what that lacks:
// decoding and checking, a time budget, a breaker, one round trip for value
// and age, and the difference between a missing key and a broken server.
type redisLevel struct {
	client  redis.UniversalClient
	values  values
	inner   *redisstore.RedisStore // for writing
	breaker *breaker               // where there is no cluster
	shards  *shards                // of a cluster, nil without one
	fences  *fences
	log     *flushLog
	sealer  *sealer
	now     func() time.Time
	timeout time.Duration // of all operations of one look-up
}

// values is what reads in Redis.
type values interface {
	Get(ctx context.Context, key string) *redis.StringCmd
}

func newRedisLevel(client redis.UniversalClient, cfg *Config, f *fences, log *flushLog, s *sealer) *redisLevel {
	bounded := newBoundedClient(client)
	r := &redisLevel{
		client: client, values: &batches{alone: bounded}, inner: redisstore.NewRedis(bounded),
		fences: f, log: log, sealer: s, now: cfg.Now, timeout: cfg.Timeout,
	}
	// A key of ours that is never set: rights to read ours are enough for it.
	key := probeKey(cfg.Prefix)
	get := func(ctx context.Context, key string) error {
		return fault(bounded.Get(ctx, key).Err())
	}
	patient := func(probe func(context.Context) error) *breaker {
		return newBreaker(cfg.Now, func(ctx context.Context) error {
			// Connecting may take longer than a request's budget, reading may not:
			// the client's read time-out sees to that.
			ctx, cancel := context.WithTimeout(ctx, dialTimeout+cfg.Timeout)
			defer cancel()
			return probe(ctx)
		})
	}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		r.values = bounded // a batch would fall apart into one for each master
		r.shards = newShards(cluster, cfg.Prefix, get, patient)
		return r
	}
	r.breaker = patient(func(ctx context.Context) error { return get(ctx, key) })
	return r
}

// breakerOf returns the breaker to ask, and to tell, about a key.
func (r *redisLevel) breakerOf(key string) *breaker {
	if r.shards != nil {
		return r.shards.of(key)
	}
	return r.breaker
}

// check makes sure of the state of the server, or of that which has a key.
func (r *redisLevel) check(key string) {
	if r.shards != nil {
		r.shards.check(key)
		return
	}
	r.breaker.check()
}

func (r *redisLevel) state() State {
	if r.shards != nil {
		state, _ := r.shards.state()
		return state
	}
	return State(r.breaker.state.Load())
}

func (r *redisLevel) tell(observer Observer) {
	if r.shards != nil {
		r.shards.tell(observer)
		return
	}
	r.breaker.tell(observer)
}

// stop leaves Redis alone for good.
func (r *redisLevel) stop() {
	if r.shards != nil {
		r.shards.stop()
		return
	}
	r.breaker.stop()
}

// find looks an entry up, fresh or stale, and says how that went.
func (r *redisLevel) find(ctx context.Context, l *Lookup) (*Entry, Result) {
	entry, result := r.read(ctx, l)
	l.observer.Lookup(Redis, result)
	return entry, result
}

// read is find for l to observe.
func (r *redisLevel) read(ctx context.Context, l *Lookup) (*Entry, Result) {
	if !r.breakerOf(l.key).allowsReads() {
		l.redisFailed = true
		return nil, Skipped
	}
	// Freshness as it is now: later, less could be said of what is read now.
	known := r.log.fresh.Load()
	if r.log.followed(r.now()) == nil {
		return nil, Blind
	}
	value, result := r.fetch(ctx, l)
	if result != Hit {
		if result == Invalid {
			r.discard(ctx, l)
		}
		l.redisFailed = result == Failed
		return nil, result
	}
	entry, at, err := r.decode(l.key, value)
	if err != nil {
		r.discard(ctx, l)
		return nil, Invalid
	}
	now := r.now()
	result = entry.judge(&l.want, now, false)
	if result == Mismatch || entry.left(now) <= 0 {
		r.discard(ctx, l) // other readers of an entry that only we find old may go on
	}
	if result != Hit && result != Stale {
		return nil, result
	}
	// What is read counts as read when the look-up began, so that neither this
	// look-up nor a promotion that comes later brings back what was flushed.
	entry.position, entry.known = l.position, known
	entry.places = l.places
	entry.places[scopeMemberID] = r.fences.memberID(&l.want, entry.Member.ID)
	if !r.admits(l, entry, at) {
		return nil, Fenced
	}
	l.store.texts.lean(l.key, entry)
	return entry, result
}

// fetch reads what stands under the look-up's key, whatever it is.
func (r *redisLevel) fetch(ctx context.Context, l *Lookup) ([]byte, Result) {
	var value []byte
	err := r.do(ctx, l, OpGet, func(ctx context.Context) (err error) {
		value, err = r.values.Get(ctx, l.key).Bytes()
		return err
	})
	switch {
	case err == nil:
		l.sawRedis = true
		return value, Hit
	case isMiss(err):
		return nil, Miss
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return nil, Invalid
	default:
		return nil, Failed
	}
}

// decode decrypts, if there are secrets, and decodes.
func (r *redisLevel) decode(key string, value []byte) (*Entry, mark, error) {
	plain, err := r.sealer.open(key, value)
	if err != nil {
		return nil, mark{}, err
	}
	return decode(plain)
}

// admits tells whether no flush known here refuses an entry that was read.
func (r *redisLevel) admits(l *Lookup, entry *Entry, at mark) bool {
	return r.log.admits(&entry.places, at) && r.fences.admitsOwn(&entry.places, l.position, l.own)
}

// discard deletes a value that is of no use to anybody. If that fails, the
// next look-up finds it again.
func (r *redisLevel) discard(ctx context.Context, l *Lookup) {
	_ = r.do(ctx, l, OpDelete, func(ctx context.Context) error {
		return r.inner.Delete(ctx, l.key)
	})
}

// write stores an entry for as long as it is to be kept.
func (r *redisLevel) write(ctx context.Context, l *Lookup, entry *Entry) error {
	switch {
	case l.redisFailed, !r.breakerOf(l.key).allowsWrites():
		return ErrUnavailable
	case l.head == nil, l.Overtaken():
		return nil
	}
	encoded, err := encode(entry, l.head.mark())
	if err == nil {
		encoded, err = r.sealer.seal(l.key, encoded)
	}
	if err != nil {
		l.observer.RedisOp(OpSet, 0, err)
		return err
	}
	// go-redis takes 0 for "keep it for ever" and complains below a millisecond.
	rest := entry.left(r.now()).Truncate(time.Millisecond)
	if rest <= 0 {
		return nil
	}
	err = r.do(ctx, l, OpSet, func(ctx context.Context) error {
		return r.inner.Set(ctx, l.key, encoded, gocache.WithExpiration(rest))
	})
	if l.Overtaken() {
		// The deletion may have reached Redis first. It is not a matter of this
		// look-up's budget that it holds.
		l.spent = 0
		return r.remove(ctx, l)
	}
	return err
}

// remove deletes the look-up's key. The fence has been raised for the deletion,
// so that nothing loaded earlier is set; it is raised again afterwards, so that
// nothing stays that was read from Redis before it was gone there.
func (r *redisLevel) remove(ctx context.Context, l *Lookup) error {
	defer r.fences.raiseKey(l.key)
	if !r.breakerOf(l.key).allowsReads() {
		return ErrUnavailable
	}
	return r.do(ctx, l, OpDelete, func(ctx context.Context) error {
		return r.inner.Delete(ctx, l.key)
	})
}

// do runs one operation within the budget of the look-up and draws conclusions
// from its outcome. The caller's cancellation does not end it, because go-redis
// would throw the connection away with it; the caller's deadline does.
func (r *redisLevel) do(ctx context.Context, l *Lookup, op Op, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	budget, hurried := r.timeout-l.spent, false
	if deadline, ok := ctx.Deadline(); ok {
		if rest := time.Until(deadline); rest < budget {
			budget, hurried = rest, true
		}
	}
	if budget <= 0 {
		return fmt.Errorf("%w: no time left", ErrUnavailable)
	}
	bounded, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()

	b := r.breakerOf(l.key) // before it runs: what it learns of a cluster is for the next
	start := time.Now()
	err := f(bounded)
	took := time.Since(start)
	l.spent += took

	broken := fault(err)
	l.observer.RedisOp(op, took, broken)
	if !errors.Is(broken, errWaited) {
		b.conclude(op, broken, hurried)
	}
	r.tell(l.observer)
	if broken != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, broken)
	}
	return err
}

// fault returns nil for what is no fault of the server: success, a missing
// key, a value of another type. redis.Nil is the only way to miss; a closed
// client, for one, is a server that cannot be reached.
func fault(err error) error {
	if err == nil || isMiss(err) || redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil
	}
	return err
}

func isMiss(err error) bool {
	var missing *gocache.NotFound
	return errors.As(err, &missing) || errors.Is(err, redis.Nil)
}

// Get implements gocache's StoreInterface.
func (r *redisLevel) Get(ctx context.Context, key any) (any, error) {
	entry, _, err := r.GetWithTTL(ctx, key)
	return entry, err
}

// GetWithTTL implements gocache's StoreInterface, for the look-up in ctx. The
// time to live is the rest of the entry's own life, whatever Redis thinks.
func (r *redisLevel) GetWithTTL(ctx context.Context, key any) (any, time.Duration, error) {
	l := lookupFrom(ctx)
	if l == nil || l.key != keyOf(key) {
		return nil, 0, errMisuse
	}
	entry, result := r.find(ctx, l)
	switch result {
	case Hit:
		return entry, entry.left(r.now()), nil
	case Failed, Skipped, Blind:
		return nil, 0, ErrUnavailable
	default:
		return nil, 0, gocache.NotFoundWithCause(nil)
	}
}

// Set implements gocache's StoreInterface, for the look-up in ctx.
func (r *redisLevel) Set(ctx context.Context, key, value any, _ ...gocache.Option) error {
	l := lookupFrom(ctx)
	entry, ok := value.(*Entry)
	if l == nil || l.key != keyOf(key) || !ok || entry == nil {
		return errMisuse
	}
	return r.write(ctx, l, entry)
}

// Delete implements gocache's StoreInterface, for the look-up in ctx.
func (r *redisLevel) Delete(ctx context.Context, key any) error {
	l := lookupFrom(ctx)
	if l == nil || l.key != keyOf(key) {
		return errMisuse
	}
	r.fences.raiseKey(l.key)
	return r.remove(ctx, l)
}

// Invalidate implements gocache's StoreInterface; there are no tags.
func (r *redisLevel) Invalidate(context.Context, ...gocache.InvalidateOption) error {
	return errMisuse
}

// Clear implements gocache's StoreInterface, and refuses: gocache's redis
// store would empty the whole server.
func (r *redisLevel) Clear(context.Context) error { return errMisuse }

// GetType implements gocache's StoreInterface.
func (r *redisLevel) GetType() string { return redisstore.RedisType }
