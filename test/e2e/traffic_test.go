package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// traffic is a stream of requests that all must succeed.
type traffic struct {
	answered atomic.Int64
	again    atomic.Int64 // sent once more, because the connection was cut before an answer
	stop     chan struct{}
	workers  sync.WaitGroup

	mu     sync.Mutex
	phase  string
	failed []string // the first few
}

// startTraffic sends the given requests over and over, each by a worker of its
// own: some hundred a second, so that what is being tried beside them gets its
// share of the machine.
func startTraffic(t *testing.T, s *site, requests ...[]change) *traffic {
	t.Helper()
	tr := &traffic{stop: make(chan struct{})}
	for _, changes := range requests {
		tr.workers.Go(func() {
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-tr.stop:
					return
				case <-pace.C:
				}
				a, err := tr.send(s, changes)
				tr.answered.Add(1)
				switch {
				case err != nil:
					tr.fail(err.Error())
				case a.status != http.StatusOK:
					tr.fail(a.String())
				}
			}
		})
	}
	t.Cleanup(tr.halt)
	return tr
}

// send sends a request again if its connection was cut before an answer. That
// is no business of the module's: with each reload, whatever the configuration,
// Caddy opens a new listener and closes the old one, and connections that the
// old one has not yet served are reset. Clients repeat a GET then.
func (tr *traffic) send(s *site, changes []change) (answer, error) {
	const attempts = 5
	var a answer
	var err error
	for range attempts {
		if a, err = send(s.client, s.URL()+"/page", changes...); err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			break
		}
		tr.again.Add(1)
	}
	return a, err
}

func (tr *traffic) fail(what string) {
	const most = 10
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.failed) < most {
		tr.failed = append(tr.failed, fmt.Sprintf("while %s: %s", tr.phase, what))
	}
}

// during names what happens from now on and waits until n more requests were
// answered.
func (tr *traffic) during(t *testing.T, phase string, n int64) {
	t.Helper()
	tr.mu.Lock()
	tr.phase = phase
	tr.mu.Unlock()
	want := tr.answered.Load() + n
	eventually(t, time.Minute, func() error {
		if got := tr.answered.Load(); got < want {
			return fmt.Errorf("while %s: %d requests of %d were answered", phase, got-(want-n), n)
		}
		return nil
	})
}

// halt stops the traffic. It may be called again.
func (tr *traffic) halt() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
}

// finish stops the traffic and fails the test if any request failed.
func (tr *traffic) finish(t *testing.T) {
	t.Helper()
	tr.halt()
	tr.workers.Wait()
	t.Logf("%d requests were answered, %d of them only when sent again", tr.answered.Load(), tr.again.Load())
	for _, failure := range tr.failed {
		t.Errorf("a request failed %s", failure)
	}
}
