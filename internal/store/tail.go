package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// readBudget bounds one reading of the log, connecting included.
	readBudget = dialTimeout + 500*time.Millisecond

	// The pause after a failure. It doubles from one to the other.
	minTailPause = 100 * time.Millisecond
	maxTailPause = time.Second

	// pollEvery is the pause between readings where waiting for events is not
	// possible (NOPERM, proxies), pollFor after how long that is tried again.
	pollEvery = 100 * time.Millisecond
	pollFor   = 10 * time.Second

	// sendAtOnce is how many waiting events are sent before the log is read
	// again.
	sendAtOnce = 256
)

// tail is the one goroutine that follows the log. It does not ask the breaker
// of look-ups: trying once more each second is all that a server that is down
// costs. Nor do its failures open that one: after each, the level is probed
// with the command of look-ups, because those who may not read the log may yet
// read entries. A node without a look-up learns that Redis is down in this way,
// too: while the log is not followed, look-ups do not ask Redis.
type tail struct {
	log *flushLog

	last  record   // that was read; zero: the log is to be read from its beginning
	known []string // the generations whose events this node has read, the last ones

	pollUntil  time.Time
	quietUntil time.Time // nothing is appended before that, because it failed

	pages   pageSizer
	resayer resayer
}

func (t *tail) run() {
	pause, idle := minTailPause, 0
	for {
		read, err := t.round(t.log.life)
		switch {
		case t.log.life.Err() != nil:
			return
		case err != nil:
			t.failed(err)
			t.sleep(pause/2 + rand.N(pause)) //nolint:gosec // not a secret: nodes are not to come all at once
			pause = min(2*pause, maxTailPause)
			continue
		}
		pause = minTailPause
		start := time.Now()
		answered := t.wait()
		if idle++; read > 0 || time.Since(start) > time.Millisecond {
			idle = 0
		}
		// A proxy that answers without waiting is not to be asked all the time.
		if !answered || idle > 2 {
			t.sleep(pollEvery)
		}
	}
}

// round reads the log to its end and appends what waits. Only failing to read
// is an error. It returns how many events were read.
func (t *tail) round(ctx context.Context) (int, error) {
	g := t.log
	g.beginRound()
	read, err := t.catchUp(ctx)
	if errors.Is(err, errLost) || redis.HasErrorPrefix(err, "WRONGTYPE") {
		// From now on nothing can be said of what Redis has.
		g.head.Store(nil)
		t.last = record{}
		if !errors.Is(err, errLost) {
			if err := t.within(ctx, g.client.drop); err != nil {
				return 0, err
			}
		}
		g.beginRound()
		read, err = t.catchUp(ctx)
	}
	if err != nil {
		return 0, err
	}
	g.news.become(LogFollowed, nil)
	t.deliver(ctx)
	return read, nil
}

func (t *tail) catchUp(ctx context.Context) (int, error) {
	if t.last.fields == nil {
		return t.begin(ctx)
	}
	for n := 0; ; {
		start := t.log.now()
		page, more, err := t.page(ctx)
		if err != nil {
			return n, err
		}
		for _, r := range page {
			t.apply(r)
		}
		n += len(page)
		if !more {
			t.log.fresh.Store(t.log.elapsed(start))
			return n, nil
		}
	}
}

// page returns events after the last one, which it finds where it was, and
// whether there may be more of them.
func (t *tail) page(ctx context.Context) (page []record, more bool, err error) {
	size := t.pages.next()
	err = t.within(ctx, func(ctx context.Context) error {
		page, err = t.log.client.read(ctx, t.last.at, size+1)
		return err
	})
	t.pages.was(page, err)
	more = len(page) == size+1
	switch {
	case err != nil:
		return nil, false, err
	case t.last.fields == nil:
		return page[:min(len(page), size)], more, nil
	case len(page) == 0 || !page[0].same(t.last):
		return nil, false, errLost
	default:
		return page[1:], more, nil
	}
}

// apply carries out one event.
func (t *tail) apply(r record) {
	g := t.log
	h := g.head.Load()
	e := t.parse(r)
	own := g.own(&e)
	switch e.kind {
	case kindGeneration:
		h = g.begun(beginGeneration(e.generation))
		g.head.Store(h)
		t.knows([]string{e.generation})
		g.fences.raise(g.fences.scope(Scope{All: true})...)
		g.news.add(func(n *LogNews) { n.Generations++ })
		t.resayer.firstAt = g.now() // who began it found none: the log may have been trimmed
	case kindLogout:
		if t.fromTheFuture(&e, r) {
			break
		}
		news := g.logouts.learn(e.logout, r.at.packedDown(), g.now())
		if news {
			g.news.add(func(n *LogNews) { n.Logouts++ })
		}
		if (news || own) && e.flushes() {
			t.flush(h.generation, &e, r.at, own)
		}
	case kindFlush:
		t.flush(h.generation, &e, r.at, own)
		if !own {
			g.news.add(func(n *LogNews) { n.Flushes++ })
		}
	}
	g.head.Store(h.next(r))
	t.last = r
	t.resayer.read(r.at)
	if own {
		g.seen(&e)
	}
}

// flush raises the shared fences and then the local ones, which our own events
// have raised before they were sent.
func (t *tail) flush(in *generation, e *event, at position, own bool) {
	places := t.log.fences.scope(e.scope)
	for _, place := range places {
		in.fences.raise(place, at.packedUp())
	}
	if !own {
		t.log.fences.raise(places...)
	}
}

func (t *tail) parse(r record) event {
	e, err := parseEvent(r.fields)
	if err != nil {
		t.malformed(r)
	}
	return e
}

func (t *tail) malformed(r record) {
	t.log.news.add(func(n *LogNews) { n.Malformed++; n.MalformedAt = r.at.String() })
}

// fromTheFuture tells whether a logout is to be ignored for its iat.
func (t *tail) fromTheFuture(e *event, r record) bool {
	ahead := e.logout.ahead(t.log.now())
	if ahead {
		t.malformed(r)
	}
	return ahead
}

// begin reads the log from its beginning: at the start, and after events were
// lost. It ends in a generation of which this node had read nothing before: if
// events were lost that only some nodes have seen, the generation they were in is
// no good any more. Nor is the one before, should the next be lost in turn.
func (t *tail) begin(ctx context.Context) (int, error) {
	g := t.log
	g.head.Store(nil)
	b := beginning{tail: t}
	defer func() {
		if g.head.Load() == nil {
			t.last = record{} // what was read led nowhere
		}
	}()
	t.last = record{}
	var start time.Time
	for appended := false; ; {
		start = g.now()
		page, more, err := t.page(ctx)
		if err != nil {
			return 0, err
		}
		if !b.answered {
			b.answered = true
			g.logouts.forget()
			t.resayer.restart(start)
		}
		for _, r := range page {
			b.apply(r)
		}
		if more {
			continue
		}
		g.logoutsKnown.Store(true)
		if b.head != nil && !slices.Contains(t.known, b.head.generation.id) {
			break
		}
		if appended { // reads may go to a replica that lags
			return 0, errNotShown
		}
		e := event{kind: kindGeneration, generation: newGeneration()}
		if err := t.append(ctx, &e); err != nil {
			return 0, err
		}
		appended = true
	}

	// First what is judged by, then the local fence: what is read in between is
	// refused by the latter. The position comes last, as that of each event does.
	g.head.Store(g.begun(b.head.generation))
	g.fences.raise(g.fences.scope(Scope{All: true})...)
	g.head.Store(b.head)
	t.knows(b.seen)
	g.fresh.Store(g.elapsed(start))
	g.closeRead()
	g.news.add(func(n *LogNews) { n.Generations++ })
	g.logouts.missing()
	for _, e := range b.own {
		g.seen(&e)
	}
	return b.read, nil
}

// maxKnownGenerations is how many generations a node remembers to have read.
// Nodes begin one for each loss, so this is more than there will be; somebody else
// might write many.
const maxKnownGenerations = 1000

// knows notes generations that this node has read.
func (t *tail) knows(generations []string) {
	all := slices.Concat(t.known, generations)
	t.known = all[max(0, len(all)-maxKnownGenerations):]
}

// beginning is what is known of a log while it is read from its beginning.
type beginning struct {
	tail     *tail
	answered bool
	head     *head    // nil before the first generation
	seen     []string // the generations
	own      []event
	read     int
}

func (b *beginning) apply(r record) {
	g, e := b.tail.log, b.tail.parse(r)
	switch e.kind {
	case kindGeneration:
		b.seen = append(b.seen, e.generation)
		if b.head == nil {
			b.head = g.begun(beginGeneration(e.generation))
		} else {
			b.head.generation.restart(e.generation)
			b.head = g.begun(b.head.generation)
		}
	case kindLogout:
		if !b.tail.fromTheFuture(&e, r) {
			g.logouts.learn(e.logout, r.at.packedDown(), g.now())
		}
	}
	if b.head != nil {
		if e.flushes() {
			for _, place := range g.fences.scope(e.scope) {
				b.head.generation.fences.raise(place, r.at.packedUp())
			}
		}
		b.head = b.head.next(r)
	}
	if g.own(&e) {
		b.own = append(b.own, e)
	}
	b.tail.last = r
	b.tail.resayer.read(r.at)
	b.read++
}

// deliver appends what waits: events that could not be sent or were lost, and
// logouts that the log has lost.
func (t *tail) deliver(ctx context.Context) {
	g := t.log
	if time.Now().Before(t.quietUntil) {
		return
	}
	for _, item := range g.unsent(sendAtOnce) {
		if t.quietUntil.After(time.Now()) {
			g.sendDone(item, ErrUnavailable) // gives it back
			continue
		}
		g.sendDone(item, t.append(ctx, &item.event))
	}
	t.resay(ctx)
}

func (t *tail) append(ctx context.Context, e *event) error {
	err := t.within(ctx, func(ctx context.Context) error {
		_, err := t.log.client.append(ctx, e.fields())
		return err
	})
	if err != nil {
		t.quietUntil = time.Now().Add(maxTailPause)
	}
	return err
}

// wait returns when there may be something new. Without an answer it returns
// false: who asks again must not do so at once.
func (t *tail) wait() bool {
	if time.Now().Before(t.pollUntil) {
		return false
	}
	err := t.log.client.wait(t.log.life, t.last.at)
	if _, refused := errors.AsType[redis.Error](err); refused {
		t.pollUntil = time.Now().Add(pollFor)
	}
	return err == nil
}

// failed draws conclusions from a log that cannot be read.
func (t *tail) failed(err error) {
	g := t.log
	g.setBroken()
	if g.blind(g.now(), 0) { // 0: when the store was made
		g.news.become(LogBlind, err)
	}
	g.check()
}

func (t *tail) within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readBudget)
	defer cancel()
	return f(ctx)
}

func (t *tail) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.log.life.Done():
	}
}
