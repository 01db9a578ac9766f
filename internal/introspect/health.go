package introspect

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	firstPause = time.Second
	lastPause  = 5 * time.Second // so that after an outage tokens pass within that time

	// doubtEvery is how often failures are reported that a token may have caused.
	doubtEvery = time.Minute
)

// failure is why nobody knows what the issuer would say.
type failure struct {
	cause error
	// byToken is set where the token itself may be what the endpoint stumbles over.
	// Then others must not have to wait, or one such token after the other would
	// keep good ones out.
	byToken bool
}

func (f *failure) Error() string   { return fmt.Sprintf("%v: %v", ErrUnavailable, f.cause) }
func (f *failure) Unwrap() []error { return []error{ErrUnavailable, f.cause} }

func unavailable(cause error) error   { return &failure{cause: cause} }
func maybeByToken(cause string) error { return &failure{cause: errors.New(cause), byToken: true} }

func causedByToken(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.byToken
}

// health knows whether the endpoint answers. While it does not, one call at a time
// is let through, after a pause.
type health struct {
	mu       sync.Mutex
	failures int // pauses in a row
	epoch    int // pauses ever: calls that failed together make one
	lastErr  error
	retryAt  time.Time
	probing  bool
	doubtAt  time.Time // when a failure was last reported that a token may have caused
}

// turn is a call's leave to ask.
type turn struct {
	epoch int
	probe bool
}

// begin lets a call ask, or says why it must not.
func (h *health) begin(now time.Time) (turn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures == 0 {
		return turn{epoch: h.epoch}, nil
	}
	if h.probing || now.Before(h.retryAt) {
		return turn{}, fmt.Errorf("not asked again yet: %w", h.lastErr)
	}
	h.probing = true
	return turn{epoch: h.epoch, probe: true}, nil
}

// end gives the turn back.
func (h *health) end(t turn) {
	if t.probe {
		h.mu.Lock()
		h.probing = false
		h.mu.Unlock()
	}
}

// answered notes that the endpoint works, and reports whether that is news.
func (h *health) answered() (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = h.failures > 0
	h.failures = 0
	return news
}

// failed notes a failure, and reports whether that is news.
func (h *health) failed(t turn, now time.Time, err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if causedByToken(err) {
		if news = h.doubtAt.IsZero() || now.Sub(h.doubtAt) >= doubtEvery; news {
			h.doubtAt = now
		}
		return news
	}
	if t.epoch != h.epoch {
		return false // others that asked at the same time were first to fail
	}
	news = h.failures == 0
	h.retryAt = now.Add(min(firstPause<<min(h.failures, 10), lastPause))
	h.failures++
	h.epoch++
	h.lastErr = err
	return news
}
