package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// tripAfter is how many failures in a row open the breaker …
	tripAfter = 3

	// … and tripWithin how long after the first of them a second one does, for
	// a server with little traffic.
	tripWithin = time.Second

	// probeEvery is the pause between probes of a server that is down. It
	// doubles, up to maxProbePause, each time the breaker opens again within
	// calmAfter of closing: a server that answers probes and fails look-ups, or
	// just meets the budget now and then, must not fill the log.
	probeEvery    = 300 * time.Millisecond
	maxProbePause = 4 * time.Second
	calmAfter     = 10 * time.Second

	// writePause is how long nothing is written after a write failed. The next
	// look-up after that tries again.
	writePause = time.Second
)

// breaker leaves Redis alone while it does not answer.
//
// It opens after a few failed reads in a row, and then a look-up costs nothing
// but the resolver. While it is open one goroutine probes, with the same
// command that look-ups use: a PING may succeed where a read does not (NOPERM,
// CLUSTERDOWN), and the breaker would flap.
//
// Writes do not count against reads as long as the server answers them: a
// replica (READONLY) or a full server (OOM) refuses writes and is still worth
// reading. Failed writes pause writing, for a second at a time. A write that
// the server did not answer at all counts like a read; the successful read
// before it has ended the row of failures, so it takes more than that to open.
type breaker struct {
	now     func() time.Time
	born    time.Time
	probe   func(context.Context) error
	changed func() // called after each change of state, with mu held; may be nil

	open        atomic.Bool  // what requests look at; true also after stop
	pausedUntil atomic.Int64 // nanoseconds since born, whatever becomes of the wall clock; 0: writes work
	state       atomic.Uint32
	told        atomic.Uint32 // the last state an observer heard of

	mu       sync.Mutex
	failures atomic.Int32 // in a row; changed with mu held
	first    time.Time    // the first failure of this row
	lost     int          // writes in a row that failed
	closed   time.Time    // when it last closed
	pause    time.Duration
	cause    error // what led to state
	stopped  bool
	probing  sync.WaitGroup
	life     context.Context
	end      context.CancelFunc
}

func newBreaker(now func() time.Time, probe func(context.Context) error) *breaker {
	b := &breaker{now: now, born: now(), probe: probe}
	b.life, b.end = context.WithCancel(context.Background())
	return b
}

// allowsReads tells whether Redis may be asked.
func (b *breaker) allowsReads() bool { return !b.open.Load() }

// allowsWrites tells whether Redis may be written to.
func (b *breaker) allowsWrites() bool {
	if b.open.Load() {
		return false
	}
	until := b.pausedUntil.Load()
	return until == 0 || int64(b.now().Sub(b.born)) >= until
}

// answered ends a row of failures. As long as there is none it takes no lock.
func (b *breaker) answered() {
	if b.failures.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures.Store(0)
}

// failed counts one failure and opens the breaker if that was enough.
func (b *breaker) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || b.open.Load() {
		return
	}
	now := b.now()
	failures := b.failures.Add(1)
	if failures == 1 {
		b.first = now
	}
	if failures < tripAfter && (failures == 1 || now.Sub(b.first) < tripWithin) {
		return
	}
	if b.pause == 0 || now.Sub(b.closed) >= calmAfter {
		b.pause = probeEvery
	} else {
		b.pause = min(2*b.pause, maxProbePause)
	}
	pause := b.pause
	b.open.Store(true)
	b.setState(Down, err)
	b.probing.Go(func() { b.probeUntilUp(pause) })
}

// check probes on behalf of somebody who failed with other commands. So a server
// that is down is known to be down before a look-up has to find out.
func (b *breaker) check() {
	if !b.allowsReads() {
		return
	}
	switch err := b.probe(b.life); {
	case err == nil:
		b.answered()
	case b.life.Err() == nil:
		b.failed(err)
	}
}

// conclude draws conclusions from what came of an operation. A deletion says nothing about writing: a full
// server deletes gladly.
func (b *breaker) conclude(op Op, broken error, hurried bool) {
	if broken == nil {
		b.answered()
		if op == OpSet || op == OpClaim {
			b.wrote()
		}
		return
	}
	refused := refused(broken)
	if hurried && !refused {
		return // the caller gave it too little time to blame the server
	}
	if op == OpSet || op == OpClaim {
		b.writeFailed(broken, refused)
	}
	if op == OpGet || !refused {
		b.failed(broken)
	}
}

// refused tells whether the server answered, with an error.
func refused(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// wrote ends the pause of writes.
func (b *breaker) wrote() {
	if b.pausedUntil.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost = 0
	b.pausedUntil.Store(0)
	if State(b.state.Load()) == ReadOnly {
		b.setState(Up, nil)
	}
}

// writeFailed begins or renews the pause of writes. A refusal is told at once;
// a write that got no answer is more likely the end of the server than of
// writing, until there have been a few between good reads.
func (b *breaker) writeFailed(err error, refused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost++
	b.pausedUntil.Store(int64(b.now().Sub(b.born) + writePause))
	if State(b.state.Load()) == Up && (refused || b.lost >= tripAfter) {
		b.setState(ReadOnly, err)
	}
}

// probeUntilUp is the one goroutine of an open breaker.
func (b *breaker) probeUntilUp(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-b.life.Done():
			return
		case <-timer.C:
		}
		if b.probe(b.life) == nil {
			b.close()
			return
		}
		timer.Reset(pause)
	}
}

func (b *breaker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return
	}
	b.failures.Store(0)
	b.lost = 0
	b.closed = b.now()
	b.pausedUntil.Store(0)
	b.setState(Up, nil)
	b.open.Store(false)
}

// setState is called with mu held.
func (b *breaker) setState(state State, cause error) {
	b.cause = cause
	b.state.Store(uint32(state))
	if b.changed != nil {
		b.changed()
	}
}

// current returns the state and what led to it.
func (b *breaker) current() (State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return State(b.state.Load()), b.cause
}

// tell lets one observer know of each change of state.
func (b *breaker) tell(observer Observer) {
	if b.state.Load() == b.told.Load() || observer == (silent{}) {
		return
	}
	b.mu.Lock()
	state, cause := b.state.Load(), b.cause
	news := b.told.Swap(state) != state
	b.mu.Unlock()
	if news {
		observer.RedisState(State(state), cause)
	}
}

// stop opens the breaker for good and waits for the end of its goroutine.
func (b *breaker) stop() {
	b.mu.Lock()
	b.stopped = true
	b.open.Store(true)
	b.mu.Unlock()
	b.end()
	b.probing.Wait()
}
