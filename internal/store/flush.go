package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Flushed says what a flush has done where.
type Flushed struct {
	// Node: this node serves nothing any more that was loaded or read before.
	Node bool

	// Shared tells of the flush log, by which other nodes learn of it.
	Shared Shared
}

// Shared says how far an event has come to other nodes.
type Shared uint8

// What can be said of it.
const (
	SharedNone    Shared = iota // there is no Redis level, so no other node
	SharedDone                  // it stands in the log
	SharedPending               // Redis cannot be reached; it will be appended once it can
)

// String returns its name as the admin API has it.
func (s Shared) String() string {
	switch s {
	case SharedDone:
		return "done"
	case SharedPending:
		return "pending"
	default:
		return "none"
	}
}

// Flush makes every entry in scope invalid that was loaded or read before it
// was called, in both levels and on every node. How many there are makes no
// difference. Once it has returned, this node never serves one of them, and
// neither a load nor a read nor a promotion that began before brings one back;
// other nodes follow as soon as they read the log, within milliseconds.
//
// An error that wraps [ErrUnavailable] says that Redis did not take the flush
// within max([Config.Timeout], 500 ms): then it holds on this node, and is
// appended when Redis is back, as long as this process lives. After [ErrScope]
// nothing was done.
//
// A primary that dies before it has replicated the flush loses it for those
// nodes that had not read it yet; this node, or any that had, says so in the
// log of the new primary as soon as it is reached. Nothing helps if none of
// them lives any more.
func (s *Store) Flush(ctx context.Context, scope Scope, observer Observer) (Flushed, error) {
	if _, err := scope.kind(); err != nil {
		return Flushed{}, err
	}
	s.flushed.Add(1)
	shared, err := s.announce(ctx, flushEvent(scope), observer)
	return Flushed{Node: true, Shared: shared}, err
}

// announce carries out an event here and appends it to the log.
func (s *Store) announce(ctx context.Context, e event, observer Observer) (Shared, error) {
	if observer == nil {
		observer = silent{}
	}
	var item *outgoing
	if s.log != nil {
		item = s.log.hold(e) // before the fence, as flushLog explains
	}
	if e.flushes() {
		s.fences.raise(s.fences.scope(e.scope)...)
	}
	if s.log == nil {
		return SharedNone, nil
	}
	err := s.log.send(ctx, item, observer)
	s.tell(observer)
	if err != nil {
		return SharedPending, err
	}
	return SharedDone, nil
}

// Logout is the end of a session, or of all sessions of a user, as OpenID
// Connect Back-Channel Logout tells it.
type Logout struct {
	// Issuer is as the logout token and the tokens to be refused have it.
	Issuer string

	// SID is the session. If there is one, only its tokens are refused, also if
	// Sub came as well: a new login in the same second is another session.
	SID string

	// Sub is the user, whose entries are flushed. Without a SID, tokens of that
	// user are refused that were issued up to IssuedAt, by the second.
	Sub string

	// IssuedAt is that of the logout token.
	IssuedAt time.Time

	// Until is when the last token that this concerns has expired by itself.
	Until time.Time
}

// ErrLogout says that a [Logout] is incomplete, too long to be stored, or from
// the future.
var ErrLogout = errors.New("not a logout: it needs an issuer, a sid or a sub, and times")

// Logout refuses tokens from now on, on this node at once and on others as
// [Store.Flush] does; without Redis on this node alone. It is no news if the
// same was said before: then it does nothing, and somebody who says it over and
// over does not keep a user out of the caches. Nor is it if Until has passed.
//
// No logout lasts longer than [Config.MaxLogoutLife] from now.
//
// Errors are [ErrLogout], with which nothing was done, and what wraps
// [ErrUnavailable], as for Flush. The latter comes without news, too, as long
// as the log lacks what was said before.
func (s *Store) Logout(ctx context.Context, logout Logout, observer Observer) (news bool, err error) {
	stone := tombstone{
		issuer: logout.Issuer, sid: logout.SID, sub: logout.Sub,
		issuedAt: logout.IssuedAt.Unix(), until: logout.Until.Unix(),
	}
	now := s.now()
	if err := stone.check(); err != nil {
		return false, err
	}
	if stone.ahead(now) {
		return false, ErrLogout
	}
	stone.until = min(stone.until, now.Add(s.logouts.life).Unix())
	news = s.logouts.add(stone, now)
	if observer != nil {
		s.logouts.tell(observer)
	}
	if !news {
		if s.log != nil && s.log.logoutWaits(stone) {
			return false, fmt.Errorf("logout: %w: other nodes have not been told yet", ErrUnavailable)
		}
		return false, nil
	}
	if _, err = s.announce(ctx, logoutEvent(stone), observer); err != nil {
		return true, fmt.Errorf("logout: %w", err)
	}
	return true, nil
}

// LoggedOut tells whether a token of this issuer, session and user was logged
// out. It allocates nothing, and costs next to nothing as long as nobody was.
// Session and user may be "", if the token names none.
func (s *Store) LoggedOut(issuer, sid, sub string, issuedAt time.Time) bool {
	return s.logouts.refuses(issuer, sid, sub, issuedAt, s.now)
}

// LogoutsKnown tells whether this node knows the logouts that the others know:
// without Redis always, with Redis once it has read the log to its end. From
// then on it stays true. Until then LoggedOut tells of this node's own alone,
// and a Redis that is down when a node starts would let all others pass.
func (s *Store) LogoutsKnown() bool { return s.log == nil || s.log.logoutsKnown.Load() }

// WaitForLog waits until this node has read the flush log to its end for the
// first time since it was started, or ctx ends. It returns at once without a
// log. Look-ups before that get nothing from Redis, and what they load is
// outdated by the first reading.
func (s *Store) WaitForLog(ctx context.Context) {
	if s.log == nil {
		return
	}
	select {
	case <-s.log.read:
	case <-ctx.Done():
	}
}

// Adopt learns the logouts that another store remembers, and the flushes that it could
// not send yet: the one that was in use before, when a configuration with other
// settings takes its place. Both are said in the flush log of this store, logouts
// within minutes if it lacks them, flushes as soon as it takes them.
func (s *Store) Adopt(other *Store) {
	if other == nil || other == s {
		return
	}
	now := s.now()
	for _, t := range other.logouts.all() {
		s.logouts.add(t, now)
	}
	if s.log == nil || other.log == nil {
		return
	}
	for _, scope := range other.log.unsentFlushes() {
		item := s.log.hold(flushEvent(scope))
		s.fences.raise(s.fences.scope(scope)...)
		s.log.sendDone(item, ErrUnavailable) // the tail appends it
	}
}

// LogStats is how a node follows the flush log.
type LogStats struct {
	State LogState

	// Generation and Position are how far it was read, "" if it is not followed.
	Generation, Position string

	// Fresh is when it was last read to its end, zero for never.
	Fresh time.Time

	// Pending is how many events Redis has not taken yet.
	Pending int
}

func (g *flushLog) stats() LogStats {
	var stats LogStats
	g.news.mu.Lock()
	stats.State = g.news.state
	g.news.mu.Unlock()
	if h := g.head.Load(); h != nil {
		stats.Generation, stats.Position = h.generation.id, h.last.at.String()
	}
	if fresh := g.fresh.Load(); fresh != never {
		stats.Fresh = g.born.Add(time.Duration(fresh))
	}
	stats.Pending = g.pending()
	return stats
}
