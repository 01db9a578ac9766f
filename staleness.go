package keycloakcacheauth

import (
	"sync"
	"time"
)

// staleness remembers of which members the last attempt to resolve them failed,
// so that those who can serve although they are too old wait for no further
// one, and resolvers in trouble are not asked at each request. It counts those
// who do serve.
type staleness struct {
	gauge gauge

	mu      sync.Mutex
	ended   bool
	members map[string]*troubled // by key
}

// troubled is one such member.
type troubled struct {
	failed time.Time // the last attempt
	trying bool      // another one is under way
	serves bool      // and is counted
	forget *time.Timer
}

const (
	// retryPause is how long after a failed attempt there is no other one, and
	// trouble is how long it is taken for the state of things: who comes later
	// waits for an attempt of their own.
	retryPause = time.Second
	trouble    = 5 * time.Second

	// A member is forgotten here that nobody asked for in so long.
	forgetTrouble = time.Minute

	// maxTroubled bounds the members that are remembered. Those of more serve all
	// the same, each request after an attempt.
	maxTroubled = 100_000
)

// gauge is a metric that goes up and down.
type gauge interface {
	Inc()
	Dec()
}

func newStaleness(counted gauge) *staleness {
	return &staleness{gauge: counted, members: make(map[string]*troubled)}
}

// inTrouble tells whether resolving the member failed just now.
func (s *staleness) inTrouble(key string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[key]
	return m != nil && now.Sub(m.failed) < trouble
}

// try tells whether to make an attempt to resolve the member in the background.
// Whoever does says with failed or over how it went.
func (s *staleness) try(key string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.member(key)
	if m == nil || m.trying || now.Sub(m.failed) < retryPause {
		return false
	}
	m.trying = true
	return true
}

// failed notes that an attempt to resolve the member failed.
func (s *staleness) failed(key string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.member(key); m != nil {
		m.failed, m.trying = now, false
	}
}

// serves notes that a member serves although it is too old.
func (s *staleness) serves(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.member(key); m != nil && !m.serves {
		m.serves = true
		s.gauge.Inc()
	}
}

// over notes that a member was resolved, or is none.
func (s *staleness) over(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key)
}

// end forgets all of them, and from now on notes none.
func (s *staleness) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for key := range s.members {
		s.remove(key)
	}
}

// member returns what is noted of a member, made first if there is nothing yet;
// nil if there is no room. s.mu is held.
func (s *staleness) member(key string) *troubled {
	if m := s.members[key]; m != nil {
		m.forget.Reset(forgetTrouble)
		return m
	}
	if s.ended || len(s.members) >= maxTroubled {
		return nil
	}
	m := &troubled{forget: time.AfterFunc(forgetTrouble, func() { s.over(key) })}
	s.members[key] = m
	return m
}

// remove is called with s.mu held.
func (s *staleness) remove(key string) {
	m := s.members[key]
	if m == nil {
		return
	}
	m.forget.Stop()
	delete(s.members, key)
	if m.serves {
		s.gauge.Dec()
	}
}
