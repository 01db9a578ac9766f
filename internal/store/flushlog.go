package store

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxBlind is how long a node that cannot read the flush log may use
// what it has, unless the configuration says otherwise.
const DefaultMaxBlind = 5 * time.Second

// minMaxBlind is the shortest time that makes sense: the log of a server that
// is well is read a little less than once a second, if nothing happens.
const minMaxBlind = time.Second

// never is before any time that elapsed returns.
const never = math.MinInt64

// flushLog is this node's view of the flush log of a store that is shared.
//
// One goroutine, the tail, reads the log and carries out what it says here. It
// proves that nothing was lost by reading the last event that it knows along
// with those after it: a log in which that event is missing is another log.
// Until this node notices, and until others do, an entry of Redis shows by its
// mark at which event of which log it was loaded: none is used but those of
// events that this node has read.
//
// The order in which flushes become visible is what makes them win:
//
//  1. A flush of this node first holds its scope: no entry of it is used that
//     Redis has. Then it raises the local fence. Then it is appended.
//  2. The tail raises the shared fence of an event, then the local one, then
//     publishes its position; if the event is our own it then ends the hold.
//  3. A look-up notes the local count and the published position, reads Redis,
//     looks for holds, then at the shared fences, then at the local ones.
//
// So between a flush and its event a hold refuses entries of the time before,
// and from then on the shared fence does; and an entry that was read before
// the fences were raised has a count that the local one refuses.
type flushLog struct {
	client  logClient
	fences  *fences
	logouts *logouts
	now     func() time.Time
	born    time.Time

	maxBlind time.Duration
	budget   time.Duration // of appending one event for a caller
	length   int64         // of the log, at the least

	head  atomic.Pointer[head] // nil while the log is not followed
	fresh atomic.Int64         // when it was last read to its end, by elapsed

	// logoutsKnown: it was read to its end at least once, whatever came then.
	logoutsKnown atomic.Bool

	held []atomic.Int32 // how many flushes hold a place
	sent outbox
	news logNews

	// check makes sure of the level's state when the log cannot be read. It may
	// be only the log that cannot.
	check func()

	tail tail
	life context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	starting sync.Once

	// read is closed once the log was read to its end.
	read      chan struct{}
	closeRead func()
}

// head is how far this node has read the log. It is replaced, never changed.
type head struct {
	generation *generation
	history    history  // no entry is valid that was loaded at none of these events
	last       sighting // of them: all up to this has been carried out
}

// begun is the head of a generation before its first event counts as read. It
// admits nothing.
func (g *flushLog) begun(of *generation) *head {
	return &head{generation: of, history: newHistory(g.length)}
}

// next is the head after one more event.
func (h *head) next(r record) *head {
	s := r.sighting()
	return &head{h.generation, h.history.next(s), s}
}

func (h *head) mark() mark { return mark{h.generation.id, h.last} }

// generation is the log since it last began, as far as it was read.
type generation struct {
	id     string
	fences heights // no entry is valid below those that it has to pass
}

func beginGeneration(id string) *generation {
	return &generation{id: id, fences: make(heights, fenceSlots)}
}

// restart makes one that nobody has seen yet another.
func (g *generation) restart(id string) {
	g.id = id
	for i := range g.fences {
		g.fences[i].Store(0)
	}
}

func newFlushLog(client logClient, cfg *Config, born time.Time, f *fences, l *logouts) *flushLog {
	g := &flushLog{
		client: client, fences: f, logouts: l, now: cfg.Now, born: born,
		maxBlind: cfg.MaxBlind, budget: max(cfg.Timeout, minAppendBudget), length: cfg.LogLength,
		held: make([]atomic.Int32, fenceSlots),
	}
	g.fresh.Store(never)
	g.read = make(chan struct{})
	g.closeRead = sync.OnceFunc(func() { close(g.read) })
	g.sent.items = map[string]*outgoing{}
	g.tail.log = g
	g.tail.resayer.length = cfg.LogLength
	if stream, ok := client.(*redisLog); ok {
		stream.keep = g.logLength
	}
	g.life, g.end = context.WithCancel(context.Background())
	return g
}

// start begins to follow the log, without waiting for it, unless it does already
// or was stopped.
func (g *flushLog) start() {
	g.starting.Do(func() { g.done.Go(g.tail.run) })
}

// stop ends the tail. It waits no longer than closing connections takes.
func (g *flushLog) stop() error {
	g.starting.Do(func() {}) // from here on nothing starts
	g.end()
	err := g.client.close()
	g.done.Wait()
	return err
}

// elapsed is the time of day as the log knows it: nanoseconds since the store
// was made, whatever becomes of the wall clock.
func (g *flushLog) elapsed(now time.Time) int64 { return int64(now.Sub(g.born)) }

// blind tells whether flushes of an entry may have been missed for too long.
// Without a log there are none to miss.
func (g *flushLog) blind(now time.Time, known int64) bool {
	return g != nil && max(g.fresh.Load(), known) < g.elapsed(now)-int64(g.maxBlind)
}

// followed returns how far the log was read, or nil if nothing can be said of
// entries that Redis has.
func (g *flushLog) followed(now time.Time) *head {
	if g.blind(now, never) {
		return nil
	}
	return g.head.Load()
}

// admits tells whether no flush known here refuses an entry of Redis. Holds are
// looked at first: one that has ended left its fence behind.
func (g *flushLog) admits(p *places, at mark) bool {
	for _, place := range p {
		if g.held[place].Load() > 0 {
			return false
		}
	}
	h := g.head.Load()
	return h != nil && h.generation.id == at.generation && h.history.has(at.sighting) &&
		h.generation.fences.admit(p, at.at.packedDown())
}

// LogState says whether the node follows the flush log.
type LogState uint8

// The states of the log.
const (
	// LogStarting: the node has not read the log yet, nor tried for long.
	LogStarting LogState = iota

	// LogFollowed: it was read not long ago.
	LogFollowed

	// LogBlind: it could not be read for [Config.MaxBlind]. Redis is not used,
	// and what this node loads itself serves for that long only.
	LogBlind
)

// String returns the state's name.
func (s LogState) String() string {
	switch s {
	case LogFollowed:
		return "followed"
	case LogBlind:
		return "blind"
	default:
		return "starting"
	}
}

// LogNews counts what happened in the flush log since somebody was last told.
type LogNews struct {
	Flushes     int // events read that are flushes, this node's own not among them
	Logouts     int // events read that are logouts not known before
	Generations int // generations adopted: each made all entries invalid
	Malformed   int // events read that are not as documented
	Repeated    int // events that this node added again because they were lost, or about to be
	Collapsed   int // times that flushes which could not be sent became one larger one
	Evicted     int // logouts forgotten before their end, for there were too many

	// MalformedAt is the id of the last malformed event in the stream.
	MalformedAt string
}

// logNews keeps what is told to the next caller who can be told.
type logNews struct {
	untold atomic.Bool

	mu    sync.Mutex
	news  LogNews
	state LogState
	told  LogState
	cause error
}

func (n *logNews) add(change func(*LogNews)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.news)
	n.untold.Store(true)
}

func (n *logNews) become(state LogState, cause error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == state {
		return
	}
	n.state, n.cause = state, cause
	n.untold.Store(true)
}

// tell lets one observer know of what happened.
func (n *logNews) tell(observer Observer) {
	if !n.untold.Load() {
		return
	}
	n.mu.Lock()
	n.untold.Store(false)
	news, state, cause := n.news, n.state, n.cause
	changed := n.told != state
	n.news, n.told = LogNews{}, state
	n.mu.Unlock()
	if changed {
		observer.LogState(state, cause)
	}
	if news != (LogNews{}) {
		observer.LogNews(news)
	}
}

// errLost says that events which this node knows are not in the log any more.
var errLost = errors.New("the flush log has lost events")

// errNotShown says that what is appended cannot be read back.
var errNotShown = errors.New("the flush log does not show what was appended to it")
