package token

import (
	"sync"
	"time"
)

// budget is a token bucket that takes back what turned out to be well spent, which
// golang.org/x/time/rate does not.
type budget struct {
	burst     float64
	perSecond float64

	mu   sync.Mutex
	left float64
	at   time.Time // of left
}

func newBudget(burst, perSecond float64) *budget {
	return &budget{burst: burst, perSecond: perSecond, left: burst}
}

// empty reports whether take would fail.
func (b *budget) empty(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	return b.left < 1
}

func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+1, b.burst)
}

// fill adds what time has brought. A clock that is set back brings nothing. b.mu is
// held.
func (b *budget) fill(now time.Time) {
	if elapsed := now.Sub(b.at); !b.at.IsZero() && elapsed > 0 {
		b.left = min(b.left+elapsed.Seconds()*b.perSecond, b.burst)
	}
	b.at = now
}
