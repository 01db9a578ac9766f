package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eko/gocache/lib/v4/cache"
	gocache "github.com/eko/gocache/lib/v4/store"
	redisstore "github.com/eko/gocache/store/redis/v4"
	"github.com/redis/go-redis/v9"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

var schedules = flag.Int("schedules", defaultSchedules, "how many interleavings of flushes and look-ups are tried")

const (
	schedulesPerWorld = 250
	worldNodes        = 3
)

// world is a few nodes that share a model of Redis and a database with one
// member, who changes or is gone with each version. All that happens is carried
// out by actors, of which one at a time goes on to the next point where another
// one could come between: whatever is asked of Redis, or of the database. Who is
// next is drawn by a seeded generator.
type world struct {
	t      *testing.T
	random *rand.Rand
	clock  *testClock
	nodes  []*worldNode

	// The model of Redis.
	values  map[string]worldValue
	records []record
	last    uint64 // position in the stream

	// The member.
	key     string
	want    Want
	version int

	actors  []*actor
	running *actor
	flushes []*worldFlush     // of this schedule, as far as they stand in the log
	sent    map[*outgoing]int // the versions that events on their way are about
	trace   []string
	asked   int
	hits    map[string]int
}

type worldValue struct {
	text string
	ends time.Time
}

type worldNode struct {
	*Store
	promotions chan promotion
	least      int // the oldest version that may be served after a flush of this node
}

// worldFlush is a flush in the log, and who has read it.
type worldFlush struct {
	at      position
	version int
	read    [worldNodes]bool
}

type promotion struct{ key, value any }

// actor is one thing that happens, and version is that of its flush.
type actor struct {
	next    func() (struct{}, bool)
	yield   func(struct{}) bool
	version int
}

// refusal is an error that the model of Redis answers.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), clock: newTestClock(),
		values: map[string]worldValue{}, sent: map[*outgoing]int{}, hits: map[string]int{},
	}
	for range worldNodes {
		w.nodes = append(w.nodes, w.newNode())
	}
	return w
}

// newNode is New without anything that runs by itself.
func (w *world) newNode() *worldNode {
	cfg := Config{URL: "redis://unused", Now: w.clock.now, Timeout: time.Hour}
	if err := cfg.complete(); err != nil {
		w.t.Fatal(err)
	}
	n := &worldNode{promotions: make(chan promotion, 1)}
	s := &Store{fences: newFences(), now: cfg.Now, prefix: cfg.Prefix, logouts: newLogouts(1), claims: newClaims(1)}
	n.Store = s
	var err error
	if s.memory, err = newMemoryLevel(1<<20, s.fences, cfg.Now, injectedClock(cfg.Now)); err != nil {
		w.t.Fatal(err)
	}
	if s.absent, err = newAbsences(1<<20, s.fences, cfg.Now, injectedClock(cfg.Now)); err != nil {
		w.t.Fatal(err)
	}
	s.log = newFlushLog(worldLog{w}, &cfg, cfg.Now(), s.fences, s.logouts)
	s.log.check = func() {}
	s.memory.log, s.absent.log = s.log, s.log
	s.redis = &redisLevel{
		inner: redisstore.NewRedis(worldRedis{world: w}), breaker: newBreaker(cfg.Now, nil),
		fences: s.fences, log: s.log, now: cfg.Now, timeout: cfg.Timeout,
	}
	s.chain = cache.NewChain[*Entry](
		cache.New[*Entry](lateMemory{s.memory, n.promotions}), cache.New[*Entry](s.redis))
	return n
}

func (w *world) close() {
	for _, node := range w.nodes {
		_ = node.chain.Close()
		node.memory.close()
		node.absent.close()
	}
}

// lateMemory leaves it to an actor when promotions are carried out.
type lateMemory struct {
	*memoryLevel
	promotions chan promotion
}

func (l lateMemory) Set(ctx context.Context, key, value any, options ...gocache.Option) error {
	if lookupFrom(ctx) != nil {
		return l.memoryLevel.Set(ctx, key, value, options...)
	}
	l.promotions <- promotion{key, value}
	return nil
}

// pause lets others come between.
func (w *world) pause() {
	if w.running != nil {
		w.running.yield(struct{}{})
	}
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// chance is true n times out of a hundred.
func (w *world) chance(n int) bool { return w.random.IntN(100) < n }

func (w *world) spawn(f func()) *actor {
	a := &actor{}
	a.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		a.yield = yield
		f()
	})
	w.actors = append(w.actors, a)
	return a
}

func (w *world) step() {
	i := w.random.IntN(len(w.actors))
	a := w.actors[i]
	w.running = a
	_, more := a.next()
	w.running = nil
	if !more {
		i = slices.Index(w.actors, a)
		w.actors = slices.Delete(w.actors, i, i+1)
	}
}

// worldRedis is what the store sees of Redis' values. Other methods are not
// called.
type worldRedis struct {
	redisstore.RedisClientInterface
	*world
}

func (r worldRedis) Get(ctx context.Context, key string) *redis.StringCmd {
	r.pause() // on its way there
	cmd := redis.NewStringCmd(ctx)
	if value, ok := r.values[key]; ok && r.clock.now().Before(value.ends) {
		cmd.SetVal(value.text)
	} else {
		cmd.SetErr(redis.Nil)
	}
	r.pause() // on its way back
	return cmd
}

func (r worldRedis) Set(ctx context.Context, key string, value any, life time.Duration) *redis.StatusCmd {
	r.pause()
	cmd := redis.NewStatusCmd(ctx)
	if r.chance(3) {
		cmd.SetErr(refusal("OOM"))
	} else {
		r.values[key] = worldValue{string(value.([]byte)), r.clock.now().Add(life)}
	}
	r.pause()
	return cmd
}

func (r worldRedis) Del(ctx context.Context, keys ...string) *redis.IntCmd {
	r.pause()
	cmd := redis.NewIntCmd(ctx)
	if r.chance(3) {
		cmd.SetErr(refusal("NOPERM"))
	} else {
		delete(r.values, keys[0])
	}
	r.pause()
	return cmd
}

// worldLog is the stream.
type worldLog struct{ *world }

func (l worldLog) append(_ context.Context, fields []string) (position, error) {
	r := record{fields: fieldsOf(fields)}
	version := l.versionOf(r.fields[fieldRef])
	l.pause()
	if l.chance(5) {
		return position{}, refusal("LOADING")
	}
	l.last++
	at := position{millis: l.last}
	r.at = at
	l.records = append(l.records, r)
	if r.fields[fieldKind] == kindFlush {
		l.flushes = append(l.flushes, &worldFlush{at: at, version: version})
	}
	lost := l.chance(5) // the answer
	l.pause()
	if lost {
		return position{}, errors.New("connection lost")
	}
	return at, nil
}

// versionOf returns the version that the flush with this ref is about.
func (w *world) versionOf(ref string) int {
	for _, node := range w.nodes {
		if item := node.log.sent.items[ref]; item != nil {
			if w.running.version > 0 {
				w.sent[item] = w.running.version
			}
			return w.sent[item]
		}
	}
	return 0
}

func (l worldLog) read(_ context.Context, from position, count int) ([]record, error) {
	l.pause()
	if l.chance(3) {
		return nil, refusal("LOADING")
	}
	i, _ := slices.BinarySearchFunc(l.records, from, func(r record, at position) int { return r.at.compare(at) })
	page := slices.Clone(l.records[i:min(len(l.records), i+count)])
	l.pause()
	return page, nil
}

func (l worldLog) wait(context.Context, position) error { return nil }
func (l worldLog) drop(context.Context) error           { return nil }
func (l worldLog) close() error                         { return nil }

// failover loses the last events. The new primary gives their ids to others.
func (w *world) failover() {
	w.noteReaders()
	lost := min(w.random.IntN(4), len(w.records))
	w.records = w.records[:len(w.records)-lost]
	w.last = 0
	if len(w.records) > 0 {
		w.last = w.records[len(w.records)-1].at.millis
	}
	w.flushes = slices.DeleteFunc(w.flushes, func(f *worldFlush) bool {
		if f.at.millis <= w.last {
			return false
		}
		for n, read := range f.read { // those who knew it still do
			if read {
				w.nodes[n].least = max(w.nodes[n].least, f.version)
			}
		}
		return true
	})
	w.note("failover: %d events lost", lost)
	if w.chance(20) {
		clear(w.values)
	}
}

// noteReaders notes which flushes have been read by whom.
func (w *world) noteReaders() {
	for n, node := range w.nodes {
		h := node.log.head.Load()
		for _, f := range w.flushes {
			// A position says nothing of a log that was lost, unless its last event is
			// the one that the node knows.
			if h != nil && h.at.compare(f.at) >= 0 && w.knows(node, h) {
				f.read[n] = true
			}
		}
	}
}

func (w *world) knows(node *worldNode, h *head) bool {
	i, ok := slices.BinarySearchFunc(w.records, h.at, func(r record, at position) int { return r.at.compare(at) })
	return ok && w.records[i].same(node.log.tail.last)
}

// least is the oldest version that a node may serve to whoever asks now.
func (w *world) least(n int) int {
	w.noteReaders()
	least := w.nodes[n].least
	for _, f := range w.flushes {
		if f.read[n] {
			least = max(least, f.version)
		}
	}
	return least
}

// exists tells whether the database has the member.
func exists(version int) bool { return version%4 != 3 }

// ask is a request for the member.
func (w *world) ask(n int) {
	node, least, from := w.nodes[n], w.least(n), "memory"
	version := -1
	defer func() {
		w.asked++
		w.hits[from]++
		w.note("node %d answers %d from %s, asked when %d was the least", n, version, from, least)
		if version < least {
			w.t.Errorf("node %d serves version %d from %s after the flush of %d; what happened:\n%s",
				n, version, from, least, strings.Join(w.trace, "\n"))
		}
	}()
	spare, result := node.Memory(w.key, w.want)
	if result == Hit {
		version = versionOf(spare)
		return
	}
	if reason, ok := node.Absent(w.key, w.want); ok {
		version, _ = strconv.Atoi(reason)
		from = "absence"
		return
	}
	w.pause()
	l := node.Begin(w.key, w.want, nil)
	w.pause()
	entry, level, result := l.Get(context.Background())
	if result == Hit && level == Redis {
		late := <-node.promotions
		w.spawn(func() {
			w.pause()
			w.note("node %d promotes version %d", n, versionOf(late.value.(*Entry)))
			_ = node.memory.Set(context.Background(), late.key, late.value)
		})
	}
	if result == Hit {
		version, from = versionOf(entry), level.String()
		return
	}
	w.pause()
	if w.chance(35) { // the resolver fails
		version, from = w.version, "nothing"
		if entry != nil {
			version, from = versionOf(entry), "stale "+level.String()
		}
		return
	}
	version, from = w.resolve(l), "database"
}

// resolve asks the database and stores what it says.
func (w *world) resolve(l *Lookup) int {
	version := w.version
	w.pause()
	if exists(version) {
		m, _ := alice()
		m.KCID = w.want.KCID
		m.Attributes = map[string]member.Value{"version": member.Text(strconv.Itoa(version))}
		l.Put(context.Background(), m, 10*time.Second, 20*time.Second)
	} else {
		l.PutAbsent(context.Background(), strconv.Itoa(version), 5*time.Second)
	}
	return version
}

func versionOf(e *Entry) int {
	version, _ := strconv.Atoi(e.Member.Attributes["version"].Text())
	return version
}

// flush changes the member and flushes it.
func (w *world) flush(n int) {
	w.version++
	version := w.version
	w.running.version = version
	scopes := []Scope{
		{Tenant: w.want.Tenant, KCID: w.want.KCID},
		{Issuer: w.want.Issuer, KCID: w.want.KCID},
		{KCID: w.want.KCID},
		{Tenant: w.want.Tenant},
		{All: true},
		{Tenant: w.want.Tenant, MemberID: "4711"},
	}
	i := w.random.IntN(len(scopes))
	w.note("node %d begins to flush version %d: %+v", n, version, scopes[i])
	_, err := w.nodes[n].Flush(context.Background(), scopes[i], nil)
	for _, item := range w.nodes[n].log.sent.items {
		if _, known := w.sent[item]; !known {
			w.sent[item] = version // it was not even tried to send it
		}
	}
	w.nodes[n].least = max(w.nodes[n].least, version)
	w.note("node %d has flushed version %d: %v", n, version, err)
}

// tail lets a node read the log.
func (w *world) tail(n int) {
	t := &w.nodes[n].log.tail
	t.quietUntil = time.Time{}
	if _, err := t.round(context.Background()); err != nil {
		t.failed(err)
	}
	w.note("node %d has read up to %v", n, t.last.at)
}

// refresh renews what is stored without looking at it.
func (w *world) refresh(n int) {
	l := w.nodes[n].Begin(w.key, w.want, nil)
	w.pause()
	w.note("node %d has refreshed version %d", n, w.resolve(l))
}

// run carries out one schedule.
func (w *world) run(number int) {
	_, want := alice()
	want.KCID = "user-" + strconv.Itoa(number)
	want.TTL, want.Stale = 10*time.Second, 20*time.Second
	w.want, w.key, w.version = want, "key-"+strconv.Itoa(number), 0
	w.flushes, w.trace = nil, nil
	clear(w.sent)
	for _, node := range w.nodes {
		node.least = 0
	}
	reading := [worldNodes]bool{} // a node has one tail
	for budget := 20 + w.random.IntN(40); budget > 0 || len(w.actors) > 0; budget-- {
		if budget > 0 && (len(w.actors) == 0 || w.chance(40)) {
			n := w.random.IntN(worldNodes)
			switch p := w.random.IntN(100); {
			case p < 45:
				w.spawn(func() { w.ask(n) })
			case p < 60:
				w.spawn(func() { w.flush(n) })
			case p < 80:
				if !reading[n] {
					reading[n] = true
					w.spawn(func() { w.tail(n); reading[n] = false })
				}
			case p < 84:
				w.spawn(func() { w.refresh(n) })
			case p < 92: // evicted
				w.nodes[n].memory.remove(w.key)
			case p < 97:
				w.clock.advance(time.Duration(w.random.IntN(8000)) * time.Millisecond)
			case p < 98:
				w.failover()
			default:
				w.clock.advance(time.Duration(w.random.IntN(1000)) * time.Millisecond)
			}
			continue
		}
		if len(w.actors) > 0 {
			w.step()
		}
	}
	// In the end all nodes have read the log, and nobody is behind.
	for range 2 {
		for n := range w.nodes {
			w.spawn(func() { w.tail(n) })
			for len(w.actors) > 0 {
				w.step()
			}
		}
	}
	for n := range w.nodes {
		w.spawn(func() { w.ask(n) })
		for len(w.actors) > 0 {
			w.step()
		}
	}
}

// After a flush has returned, its node never serves what was loaded before it,
// and another node never does once it has read it, whatever comes in between.
func TestFlushWinsInAllSchedules(t *testing.T) {
	t.Run("IV-001 IV-013 IV-014", flushWinsInAllSchedules)
}

func flushWinsInAllSchedules(t *testing.T) {
	var (
		mu    sync.Mutex
		hits  = map[string]int{}
		asked int
		seeds atomic.Int64
		wait  sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for !t.Failed() {
				seed := seeds.Add(1)
				if (seed-1)*schedulesPerWorld >= int64(*schedules) {
					return
				}
				w := newWorld(t, uint64(seed))
				for number := range schedulesPerWorld {
					if w.run(number); t.Failed() {
						t.Errorf("seed %d, schedule %d", seed, number)
						return
					}
				}
				w.close()
				mu.Lock()
				asked += w.asked
				for from, n := range w.hits {
					hits[from] += n
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	t.Logf("%d answers in %d schedules: %v", asked, *schedules, hits)
	for _, from := range []string{"memory", "redis", "database", "absence", "stale memory", "stale redis"} {
		if *schedules >= 5000 && hits[from] == 0 {
			t.Errorf("only %d answers came from %s: the schedules are not what they should be", hits[from], from)
		}
	}
}
