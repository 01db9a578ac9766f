package store

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultMaxLogouts is how many logouts a store remembers unless the
	// configuration says otherwise.
	DefaultMaxLogouts = 50000

	// filterSlots is the size of the filter before the map of logouts.
	filterSlots = 1 << 16

	// sweepEvery is how often logouts that have ended are dropped.
	sweepEvery = time.Minute

	// untilSlack is how much longer a logout may be said to last without being
	// news. Who says the same logout again counts from a later time.
	untilSlack = 10 * 60
)

// logouts are the sessions and users whose tokens are refused. Asking is nearly
// free as long as there are none, and takes no lock for those who are not in
// the same slot of the filter as one who is.
type logouts struct {
	max        int
	seeds      [2]maphash.Seed
	filterSeed maphash.Seed

	count  atomic.Int64
	filter [filterSlots]atomic.Int32

	mu     sync.RWMutex
	stones map[stoneKey]tombstone
	unsaid map[stoneKey]bool // those that the log may lack
	swept  time.Time
}

// stoneKey is a digest of a session or a user, of 128 bits that nobody outside
// can choose: the seeds are random. So two never share one.
type stoneKey [2]uint64

func newLogouts(limit int) *logouts {
	return &logouts{
		max: limit, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, filterSeed: maphash.MakeSeed(),
		stones: map[stoneKey]tombstone{}, unsaid: map[stoneKey]bool{},
	}
}

// keyOf returns the key of a session, if there is one, or of a user.
func (l *logouts) keyOf(t *tombstone) stoneKey {
	if t.sid != "" {
		return l.key('s', t.issuer, t.sid)
	}
	return l.key('u', t.issuer, t.sub)
}

func (l *logouts) key(kind byte, issuer, id string) (key stoneKey) {
	var head [9]byte
	head[0] = kind
	binary.LittleEndian.PutUint64(head[1:], uint64(len(issuer)))
	for i := range key {
		var hash maphash.Hash
		hash.SetSeed(l.seeds[i])
		_, _ = hash.Write(head[:])
		_, _ = hash.WriteString(issuer)
		_, _ = hash.WriteString(id)
		key[i] = hash.Sum64()
	}
	return key
}

// slot returns the filter's slot for a session or user, of whatever issuer.
func (l *logouts) slot(id string) *atomic.Int32 {
	return &l.filter[maphash.String(l.filterSeed, id)%filterSlots]
}

func (l *logouts) slotOf(t *tombstone) *atomic.Int32 { return l.slot(cmp.Or(t.sid, t.sub)) }

// refuses tells whether a token was logged out.
func (l *logouts) refuses(issuer, sid, sub string, issuedAt time.Time, now func() time.Time) bool {
	if l.count.Load() == 0 {
		return false
	}
	if sid != "" {
		if t, ok := l.find('s', issuer, sid); ok && !t.ended(now()) {
			return true
		}
	}
	if sub == "" {
		return false
	}
	t, ok := l.find('u', issuer, sub)
	return ok && issuedAt.Unix() <= t.issuedAt && !t.ended(now())
}

func (l *logouts) find(kind byte, issuer, id string) (tombstone, bool) {
	if l.slot(id).Load() == 0 {
		return tombstone{}, false
	}
	key := l.key(kind, issuer, id)
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.stones[key]
	return t, ok
}

// add remembers a logout, and tells whether it refuses more than was refused.
func (l *logouts) add(t tombstone, now time.Time) (news bool) {
	if t.ended(now) {
		return false
	}
	key := l.keyOf(&t)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	old, known := l.stones[key]
	if known && !old.ended(now) {
		news = t.issuedAt > old.issuedAt || t.until > old.until+untilSlack
		t.issuedAt, t.until = max(t.issuedAt, old.issuedAt), max(t.until, old.until)
		if t.sub == "" {
			t.sub = old.sub
		}
		l.stones[key] = t
		return news
	}
	if !known {
		if len(l.stones) >= l.max {
			l.makeRoom()
		}
		l.slotOf(&t).Add(1)
		l.count.Add(1)
	}
	l.stones[key] = t
	return true
}

// sweep drops what has ended, now and then. It is called with mu held.
func (l *logouts) sweep(now time.Time) {
	if since := now.Sub(l.swept); since >= 0 && since < sweepEvery {
		return
	}
	l.swept = now
	for key, t := range l.stones {
		if t.ended(now) {
			l.remove(key)
		}
	}
}

// makeRoom drops the tenth that ends first, so that it is rarely called.
func (l *logouts) makeRoom() {
	keys := make([]stoneKey, 0, len(l.stones))
	for key := range l.stones {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b stoneKey) int { return cmp.Compare(l.stones[a].until, l.stones[b].until) })
	for _, key := range keys[:len(keys)/10+1] {
		l.remove(key)
	}
}

func (l *logouts) remove(key stoneKey) {
	t := l.stones[key]
	l.slotOf(&t).Add(-1)
	l.count.Add(-1)
	delete(l.stones, key)
	delete(l.unsaid, key)
}

// missing notes which logouts are to be said again: those not seen.
func (l *logouts) missing(seen map[stoneKey]tombstone) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.unsaid)
	for key, t := range l.stones {
		if there, ok := seen[key]; !ok || there.issuedAt < t.issuedAt || there.until+untilSlack < t.until {
			l.unsaid[key] = true
		}
	}
}

// resay notes one logout that is to be said again.
func (l *logouts) resay(t tombstone) {
	key := l.keyOf(&t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.stones[key]; ok {
		l.unsaid[key] = true
	}
}

// said notes a logout that stands in the log.
func (l *logouts) said(t tombstone) {
	key := l.keyOf(&t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.stones[key]; known.issuedAt <= t.issuedAt && known.until <= t.until+untilSlack {
		delete(l.unsaid, key)
	}
}

// unsaidOnes returns some of the logouts that are to be said again, in no
// order, so that several nodes begin with different ones.
func (l *logouts) unsaidOnes(limit int, now time.Time) []tombstone {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	var ones []tombstone
	for key := range l.unsaid {
		if len(ones) == limit {
			break
		}
		ones = append(ones, l.stones[key])
	}
	return ones
}

func (l *logouts) len() int { return int(l.count.Load()) }
