package store

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// saidAtOnce is how many logouts a node says again before it reads the log
	// again, saidASecond how many it does in a second.
	saidAtOnce  = 64
	saidASecond = 256

	// resayDelay is how long a node waits at most before it says logouts again
	// that are about to be trimmed. Most nodes find then that another has.
	resayDelay = 10 * time.Second

	// firstEvery is how often the log's first event is looked at: somebody else
	// may trim the log, too.
	firstEvery = time.Minute

	// A logout is said again when so many sixteenths of the log's length stand
	// behind it.
	marksPerLog = 16
	resayMark   = 13

	// perLogout is how many events the log has room for, at the least, for each
	// logout that lasts. With fewer, saying them again would fill it.
	perLogout = 4
)

// resayer says again the logouts that the log has lost or is about to lose to
// trimming, so that a node that starts finds all that last. It belongs to the
// tail's goroutine.
type resayer struct {
	length int64 // of the log, as configured

	events int64    // that were read
	marks  []uint64 // packed positions, one each length/marksPerLog events

	checked   uint64    // the position up to which logouts were looked for last
	walkAt    time.Time // not again before
	firstAt   time.Time // when to look at the first event
	quiet     time.Time // nothing is said before
	second    time.Time // since when …
	inASecond int       // … so many were said
}

// restart forgets positions: the log is read from its beginning.
func (r *resayer) restart(now time.Time) {
	*r = resayer{length: r.length, firstAt: now.Add(firstEvery)}
}

// read notes that an event was read.
func (r *resayer) read(at position) {
	if r.events++; r.events%max(r.length/marksPerLog, 1) == 0 {
		r.marks = append(r.marks, at.packedDown())
	}
}

// threshold returns the position before which events are about to be trimmed
// from a log of a length, 0 for none.
func (r *resayer) threshold(length int64) uint64 {
	behind := int(length / max(r.length/marksPerLog, 1) * resayMark / marksPerLog)
	if len(r.marks) <= behind {
		return 0
	}
	r.marks = r.marks[len(r.marks)-behind-1:]
	return r.marks[0]
}

// logLength is how many events the log is to keep.
func (g *flushLog) logLength() int64 { return max(g.length, perLogout*int64(g.logouts.len())) }

// resay looks for logouts that are to be said again, and says some.
func (t *tail) resay(ctx context.Context) {
	g, r := t.log, &t.resayer
	now := g.now()
	before := r.threshold(g.logLength())
	if !now.Before(r.firstAt) {
		first, err := t.first(ctx)
		if err != nil {
			return // the next round will tell
		}
		r.firstAt = now.Add(firstEvery)
		before, r.checked = max(before, first), 0
	}
	if before > r.checked && !now.Before(r.walkAt) {
		r.checked, r.walkAt = before, now.Add(g.logouts.walkPause()/firstWalks)
		if g.logouts.age(before) {
			r.quiet = now.Add(rand.N(resayDelay)) //nolint:gosec // not a secret: nodes are not to speak all at once
		}
	}
	if now.Before(r.quiet) {
		return
	}
	if since := now.Sub(r.second); since < 0 || since >= time.Second {
		r.second, r.inASecond = now, 0
	}
	for _, stone := range g.logouts.unsaidOnes(min(saidAtOnce, saidASecond-r.inASecond), now) {
		if t.quietUntil.After(time.Now()) {
			return
		}
		e := logoutEvent(stone)
		if t.append(ctx, &e) == nil {
			r.inASecond++
			g.logouts.said(stone)
			g.news.add(func(n *LogNews) { n.Repeated++ })
		}
	}
}

// firstWalks is how much more often than swept the logouts are looked at for
// those that are to be said again.
const firstWalks = 60

// first returns the packed position of the log's first event, 0 if it has none.
func (t *tail) first(ctx context.Context) (at uint64, err error) {
	err = t.within(ctx, func(ctx context.Context) error {
		page, err := t.log.client.read(ctx, position{}, 1)
		if err == nil && len(page) > 0 {
			at = page[0].at.packedDown()
		}
		return err
	})
	return at, err
}

// forget notes that no logout stands in the log, before it is read from its
// beginning; missing, afterwards, that those which were not found are to be
// said again.
func (l *logouts) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.unsaid)
	for _, share := range l.shares {
		for key, s := range share.stones {
			s.at = 0
			share.stones[key] = s
		}
	}
}

func (l *logouts) missing() { l.age(1) }

// age notes the logouts that stand in the log before a packed position, or not
// at all. It tells whether there are any, and there were none before.
func (l *logouts) age(before uint64) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	none := len(l.unsaid) == 0
	for _, share := range l.shares {
		for key, s := range share.stones {
			if s.at < before {
				l.unsaid[stoneID{share, key}] = struct{}{}
			}
		}
	}
	return none && len(l.unsaid) > 0
}

// resay notes one logout that is to be said again.
func (l *logouts) resay(t tombstone) {
	key := string(t.key())
	l.mu.Lock()
	defer l.mu.Unlock()
	share := l.shares[t.issuer]
	if _, ok := share.find(key); ok {
		l.unsaid[stoneID{share, key}] = struct{}{}
	}
}

// said notes a logout that was appended to the log. Where it stands comes when
// it is read.
func (l *logouts) said(t tombstone) {
	key := string(t.key())
	l.mu.Lock()
	defer l.mu.Unlock()
	share := l.shares[t.issuer]
	if s, ok := share.find(key); ok && s.saidBy(&t) {
		delete(l.unsaid, stoneID{share, key})
	}
}

// isUnsaid tells whether a logout waits to be said again.
func (l *logouts) isUnsaid(t tombstone) bool {
	key := string(t.key())
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.unsaid[stoneID{l.shares[t.issuer], key}]
	return ok
}

// unsaidOnes returns some of the logouts that are to be said again, in no
// order, so that several nodes begin with different ones.
func (l *logouts) unsaidOnes(limit int, now time.Time) []tombstone {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	var ones []tombstone
	for id := range l.unsaid {
		if len(ones) >= limit {
			break
		}
		if s := id.share.stones[id.key]; !s.ended(now) {
			ones = append(ones, id.share.tombstone(id.key, s))
		} else {
			delete(l.unsaid, id)
		}
	}
	return ones
}
