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
// is let through, after a pause. Unproven tokens ([token.Unproven]) have pauses of
// their own: whoever makes them up must not be able to have others wait.
type health struct {
	mu       sync.Mutex
	proven   pauses
	unproven pauses
	reported bool      // that it fails, and not yet that it works again
	doubtAt  time.Time // when a failure was last reported that a token may have caused
}

// pauses are those of one kind of tokens.
type pauses struct {
	failures int // pauses in a row
	epoch    int // pauses ever: calls that failed together make one
	lastErr  error
	retryAt  time.Time
	probing  bool
}

// turn is a call's leave to ask.
type turn struct {
	of    *pauses
	epoch int
	probe bool
}

// begin lets a call ask, or says why it must not.
func (h *health) begin(now time.Time, unproven bool) (turn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.proven
	if unproven {
		p = &h.unproven
	}
	if p.failures == 0 {
		return turn{of: p, epoch: p.epoch}, nil
	}
	if p.probing || now.Before(p.retryAt) {
		return turn{}, fmt.Errorf("not asked again yet: %w", p.lastErr)
	}
	p.probing = true
	return turn{of: p, epoch: p.epoch, probe: true}, nil
}

// end gives the turn back.
func (h *health) end(t turn) {
	if t.probe {
		h.mu.Lock()
		t.of.probing = false
		h.mu.Unlock()
	}
}

// answered notes that the endpoint works, and reports whether that is news. What it
// says of unproven tokens is no evidence for others, of which it has to know more.
func (h *health) answered(t turn) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.of.failures = 0
	if t.of == &h.proven {
		h.unproven.failures = 0
	}
	news = h.reported && h.proven.failures == 0
	h.reported = h.reported && !news
	return news
}

// failed notes a failure, and reports whether that is news.
func (h *health) failed(t turn, now time.Time, err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if causedByToken(err) {
		return h.doubt(now)
	}
	if t.epoch != t.of.epoch {
		return false // others that asked at the same time were first to fail
	}
	t.of.retryAt = now.Add(min(firstPause<<min(t.of.failures, 10), lastPause))
	t.of.failures++
	t.of.epoch++
	t.of.lastErr = err
	if h.reported || t.of == &h.unproven && !h.doubt(now) {
		return false
	}
	h.reported = true
	return true
}

// doubt reports whether a failure that who sent the token may have wanted is to be
// reported, which is so from time to time only. h.mu is held.
func (h *health) doubt(now time.Time) bool {
	due := h.doubtAt.IsZero() || now.Sub(h.doubtAt) >= doubtEvery
	if due {
		h.doubtAt = now
	}
	return due
}
