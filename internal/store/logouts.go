package store

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultMaxLogouts is how many logouts a store remembers unless the
	// configuration says otherwise. One takes 70 to 105 bytes,
	// depending on how full Go's map is.
	DefaultMaxLogouts = 500_000

	// DefaultMaxLogoutLife is how long a logout may last unless the configuration
	// says otherwise: as long as tokens, a day, and a while for clocks.
	DefaultMaxLogoutLife = 24*time.Hour + 10*time.Minute

	// maxLogoutLead is how much later than now a logout may have been issued. A
	// writer who could choose would refuse all tokens of a user yet to come.
	maxLogoutLead = 5 * time.Minute

	// maxLogoutIssuers bounds the issuers of the logouts remembered.
	maxLogoutIssuers = 10_000

	// filterSlots is the size of the filter before the logouts.
	filterSlots = 1 << 16

	// walkEvery is how often all logouts are looked at by one who holds the lock:
	// so often for each walkShare of them, or part of it.
	walkEvery = time.Minute
	walkShare = 50_000

	// untilSlack is how much longer a logout may be said to last without being
	// news, in seconds. Who says the same logout again counts from a later time.
	untilSlack = 10 * 60
)

// logouts are the sessions and users whose tokens are refused. Asking is nearly
// free as long as there are none, and takes no lock for those who are not in
// the same slot of the filter as one who is.
//
// Each issuer has a share of its own. When there are too many, those of the
// issuer with the most are forgotten, so that one realm that ends sessions
// without end costs the others nothing.
type logouts struct {
	max  int
	life time.Duration // no logout lasts longer
	seed maphash.Seed

	count  atomic.Int64
	filter [filterSlots]atomic.Int32

	evicted atomic.Uint64 // forgotten before their end, in all
	untold  atomic.Int64  // of these, since an observer was told

	mu     sync.RWMutex
	shares map[string]*logoutShare // by issuer
	unsaid map[stoneID]struct{}    // those that the log may lack
	swept  time.Time
}

// logoutShare are the logouts of one issuer, by packed session or user.
type logoutShare struct {
	issuer string
	stones map[string]stone
}

// stoneID names one logout among all.
type stoneID struct {
	share *logoutShare
	key   string
}

// stone is what is remembered of a [tombstone], in as few bytes as will do.
type stone struct {
	at              uint64 // the packed position of an event that says all this; 0: there is none
	issuedAt, until uint32 // Unix time: enough until the year 2106
}

func (s stone) ended(now time.Time) bool { return int64(s.until) <= now.Unix() }

// saidBy tells whether an event that says t says all that is remembered.
func (s stone) saidBy(t *tombstone) bool {
	return int64(s.issuedAt) <= t.issuedAt && int64(s.until) <= t.until+untilSlack
}

func newLogouts(limit int) *logouts {
	return &logouts{
		max: limit, life: DefaultMaxLogoutLife, seed: maphash.MakeSeed(),
		shares: map[string]*logoutShare{}, unsaid: map[stoneID]struct{}{},
	}
}

// slot returns the filter's slot for a session or user, of whatever issuer.
func (l *logouts) slot(id string) *atomic.Int32 {
	return &l.filter[maphash.String(l.seed, id)%filterSlots]
}

// refuses tells whether a token was logged out.
func (l *logouts) refuses(issuer, sid, sub string, issuedAt time.Time, now func() time.Time) bool {
	if l.count.Load() == 0 {
		return false
	}
	if sid != "" {
		if s, ok := l.find(kindSession, issuer, sid); ok && !s.ended(now()) {
			return true
		}
	}
	if sub == "" {
		return false
	}
	s, ok := l.find(kindUser, issuer, sub)
	return ok && issuedAt.Unix() <= int64(s.issuedAt) && !s.ended(now())
}

func (l *logouts) find(kind byte, issuer, id string) (stone, bool) {
	if len(id) > maxIDLength || l.slot(id).Load() == 0 {
		return stone{}, false
	}
	var buffer [1 + maxIDLength]byte
	key := packID(buffer[:0], kind, id)
	l.mu.RLock()
	defer l.mu.RUnlock()
	share := l.shares[issuer]
	if share == nil {
		return stone{}, false
	}
	s, ok := share.stones[string(key)]
	return s, ok
}

// add remembers a logout, and tells whether it refuses more than was refused.
func (l *logouts) add(t tombstone, now time.Time) (news bool) { return l.learn(t, 0, now) }

// learn is add for a logout that stands in the log at a packed position. It
// lasts no longer than any logout may, whoever wrote it.
func (l *logouts) learn(t tombstone, at uint64, now time.Time) (news bool) {
	t.until = min(t.until, now.Add(l.life).Unix())
	if t.ended(now) || t.ahead(now) {
		return false
	}
	key := string(t.key())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	s := stone{issuedAt: uint32(t.issuedAt), until: uint32(t.until)}
	share := l.shares[t.issuer]
	old, known := share.find(key)
	switch {
	case !known:
		news = true
		share = l.makeRoom(t.issuer)
		l.slot(t.id()).Add(1)
		l.count.Add(1)
	case old.ended(now):
		news = true
	default:
		news = s.issuedAt > old.issuedAt || s.until > old.until+untilSlack
		s.issuedAt, s.until = max(s.issuedAt, old.issuedAt), max(s.until, old.until)
		if !news {
			s.at = old.at
		}
	}
	if at != 0 && s.saidBy(&t) {
		s.at = at
		delete(l.unsaid, stoneID{share, key})
	}
	share.stones[key] = s
	return news
}

func (s *logoutShare) find(key string) (stone, bool) {
	if s == nil {
		return stone{}, false
	}
	found, ok := s.stones[key]
	return found, ok
}

// walkPause is how long all logouts are not looked at again, so that the lock
// is free for nearly all of the time.
func (l *logouts) walkPause() time.Duration {
	return walkEvery * time.Duration(1+l.count.Load()/walkShare)
}

// sweep drops what has ended, now and then. It is called with mu held.
func (l *logouts) sweep(now time.Time) {
	if since := now.Sub(l.swept); since >= 0 && since < l.walkPause() {
		return
	}
	l.swept = now
	for _, share := range l.shares {
		for key, s := range share.stones {
			if s.ended(now) {
				l.remove(share, key)
			}
		}
	}
}

// makeRoom makes room for one more logout of an issuer, and returns its share.
// A tenth of the largest share goes at once, so that this is rare.
func (l *logouts) makeRoom(issuer string) *logoutShare {
	if len(l.shares) > 0 && int(l.count.Load()) >= l.max {
		largest := l.extreme(func(a, b int) bool { return a > b })
		l.evict(largest, len(largest.stones)/10+1)
	}
	share := l.shares[issuer]
	if share == nil {
		if len(l.shares) >= maxLogoutIssuers {
			smallest := l.extreme(func(a, b int) bool { return a < b })
			l.evict(smallest, len(smallest.stones))
		}
		share = &logoutShare{issuer: strings.Clone(issuer), stones: map[string]stone{}}
		l.shares[share.issuer] = share
	}
	return share
}

// extreme returns the share that has more, or fewer, logouts than any other.
func (l *logouts) extreme(better func(a, b int) bool) (found *logoutShare) {
	for _, share := range l.shares {
		if found == nil || better(len(share.stones), len(found.stones)) {
			found = share
		}
	}
	return found
}

// evict forgets the n logouts of a share that end first.
func (l *logouts) evict(share *logoutShare, n int) {
	ends := make([]uint32, 0, len(share.stones))
	for _, s := range share.stones {
		ends = append(ends, s.until)
	}
	slices.Sort(ends)
	last := ends[n-1]
	before, _ := slices.BinarySearch(ends, last)
	spare := n - before // of those that end at the last moment so many go
	for key, s := range share.stones {
		if s.until == last {
			spare--
		}
		if s.until < last || s.until == last && spare >= 0 {
			l.remove(share, key)
		}
	}
	l.evicted.Add(uint64(n))
	l.untold.Add(int64(n))
}

func (l *logouts) remove(share *logoutShare, key string) {
	_, id := unpackID(key)
	l.slot(id).Add(-1)
	l.count.Add(-1)
	delete(share.stones, key)
	delete(l.unsaid, stoneID{share, key})
	if len(share.stones) == 0 {
		delete(l.shares, share.issuer)
	}
}

func (l *logouts) len() int { return int(l.count.Load()) }

// tell lets one observer know of logouts that were forgotten.
func (l *logouts) tell(observer Observer) {
	if l.untold.Load() == 0 {
		return
	}
	if n := l.untold.Swap(0); n > 0 {
		observer.LogNews(LogNews{Evicted: int(n)})
	}
}

// all returns a copy of what is remembered.
func (l *logouts) all() []tombstone {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make([]tombstone, 0, l.len())
	for _, share := range l.shares {
		for key, s := range share.stones {
			all = append(all, share.tombstone(key, s))
		}
	}
	return all
}

// tombstone returns a logout as it is said again. The user whose session it was
// is not kept: the entries are long flushed.
func (s *logoutShare) tombstone(key string, of stone) tombstone {
	t := tombstone{issuer: s.issuer, issuedAt: int64(of.issuedAt), until: int64(of.until)}
	kind, id := unpackID(key)
	if kind == kindSession {
		t.sid = id
	} else {
		t.sub = id
	}
	return t
}

// key returns the packed id.
func (t *tombstone) key() []byte {
	kind := byte(kindUser)
	if t.sid != "" {
		kind = kindSession
	}
	return packID(nil, kind, t.id())
}
