package store

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/eko/gocache/lib/v4/cache"
	redisstore "github.com/eko/gocache/store/redis/v4"
)

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
	reading [worldNodes]bool  // a node has one tail
	flushes []*worldFlush     // of this schedule, as far as they stand in the log
	sent    map[*outgoing]int // the versions that events on their way are about
	trace   []string
	stale   []string // what must not be: answers of before a flush
	asked   int
	hits    map[string]int
}

type worldValue struct {
	text string
	ends time.Time
}

type worldNode struct {
	*Store
	least int // the oldest version that may be served after a flush of this node
}

// worldFlush is a flush in the log, and who has read it.
type worldFlush struct {
	at      position
	version int
	read    [worldNodes]bool
}

// actor is one thing that happens on a node, and version is that of its flush.
type actor struct {
	node    int
	next    func() (struct{}, bool)
	stop    func()
	yield   func(struct{}) bool
	version int
	died    bool
}

// death ends an actor whose node has died, wherever it is.
type death struct{}

// refusal is an error that the model of Redis answers.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, random: rand.New(rand.NewPCG(seed, *scheduleSeed)), clock: newTestClock(),
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
	n := &worldNode{}
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
		values: worldRedis{world: w}, inner: redisstore.NewRedis(worldRedis{world: w}), breaker: newBreaker(cfg.Now, nil),
		fences: s.fences, log: s.log, now: cfg.Now, timeout: cfg.Timeout,
	}
	s.chain = cache.NewChain[*Entry](cache.New[*Entry](s.memory), cache.New[*Entry](s.redis))
	return n
}

func (w *world) close() {
	for _, node := range w.nodes {
		node.close()
	}
}

// close ends the goroutines that libraries have for a node.
func (n *worldNode) close() {
	_ = n.chain.Close()
	n.memory.close()
	n.absent.close()
}

// between lets others come between what a look-up has found in Redis and its
// promotion into memory.
type between struct {
	silent
	*world
}

func (b between) Lookup(Level, Result) { b.pause() }

// pause lets others come between.
func (w *world) pause() {
	if a := w.running; a != nil && (a.died || !a.yield(struct{}{})) {
		a.died = true
		panic(death{})
	}
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// chance is true n times out of a hundred.
func (w *world) chance(n int) bool { return w.random.IntN(100) < n }

func (w *world) spawn(n int, f func()) {
	a := &actor{node: n}
	a.next, a.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if cause := recover(); cause != nil && cause != any(death{}) {
				panic(cause)
			}
		}()
		a.yield = yield
		f()
	})
	w.actors = append(w.actors, a)
}

// restart has a node die with all that it is doing and knows, and another one
// take its place.
func (w *world) restart(n int) {
	w.noteReaders()
	w.actors = slices.DeleteFunc(w.actors, func(a *actor) bool {
		if a.node == n {
			w.running = a
			a.stop()
			w.running = nil
		}
		return a.node == n
	})
	w.nodes[n].close()
	w.nodes[n] = w.newNode()
	w.reading[n] = false
	for _, f := range w.flushes {
		f.read[n] = false
	}
	w.note("node %d dies, and begins anew", n)
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
