package keycloakcacheauth

import (
	"sync"
	"time"
)

// staleness keeps count of the members that serve although they are too old:
// each from its first request on until it is resolved again, or too old even
// for that.
type staleness struct {
	gauge gauge

	mu      sync.Mutex
	members map[string]*time.Timer // by key
}

func newStaleness(counted gauge) *staleness {
	return &staleness{gauge: counted, members: make(map[string]*time.Timer)}
}

// gauge is a metric that goes up and down.
type gauge interface {
	Inc()
	Dec()
}

// serves notes that a member serves stale, as it may for so long yet.
func (s *staleness) serves(key string, rest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.members[key]; known {
		return
	}
	s.gauge.Inc()
	s.members[key] = time.AfterFunc(rest, func() { s.over(key) })
}

// over notes that a member serves stale no more.
func (s *staleness) over(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if timer, known := s.members[key]; known {
		timer.Stop()
		delete(s.members, key)
		s.gauge.Dec()
	}
}

// end forgets all of them.
func (s *staleness) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, timer := range s.members {
		timer.Stop()
		delete(s.members, key)
		s.gauge.Dec()
	}
}
