package introspect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

func TestFailedCallsBackOff(t *testing.T) {
	f := newFake(t)
	f.answers(say(http.StatusServiceUnavailable, ""))
	c, clock := newTestClient(t, f)
	var pauses []time.Duration
	last := clock.now()
	for range 20 * 10 {
		before, _ := f.counts()
		_, err := c.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "status 503")
		if after, _ := f.counts(); after > before {
			pauses = append(pauses, clock.now().Sub(last))
			last = clock.now()
		}
		clock.advance(100 * time.Millisecond)
	}
	if got, want := fmt.Sprint(pauses), "[0s 1s 2s 4s 5s 5s]"; got != want {
		t.Errorf("asked after %s, want %s", got, want)
	}
	f.answers(say(http.StatusOK, active))
	clock.advance(5 * time.Second)
	for range 3 {
		answer, err := c.Introspect(t.Context(), rawToken)
		wantActive(t, answer, err)
	}
}

func TestAfterAPauseOneCallAsksForAll(t *testing.T) {
	f := newFake(t)
	f.answers(say(http.StatusServiceUnavailable, ""))
	c, clock := newTestClient(t, f)
	_, err := c.Introspect(t.Context(), rawToken)
	wantUnavailable(t, err)
	arrived, release := make(chan struct{}), make(chan struct{})
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		say(http.StatusOK, active)(w, r)
	})
	clock.advance(time.Second)
	var probe sync.WaitGroup
	probe.Go(func() {
		if _, err := c.Introspect(t.Context(), rawToken); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	_, err = c.Introspect(t.Context(), rawToken)
	wantUnavailable(t, err, "not asked again yet")
	close(release)
	probe.Wait()
	f.answers(say(http.StatusOK, active))
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
}

func TestCallsThatFailTogetherMakeOnePause(t *testing.T) {
	f := newFake(t)
	const calls = 8
	var arrived sync.WaitGroup
	arrived.Add(calls)
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait()
		say(http.StatusServiceUnavailable, "")(w, r)
	})
	c, clock := newTestClient(t, f)
	news := make(chan bool, calls)
	observed := c.Observed(func(call Call) { news <- call.Changed })
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			if _, err := observed.Introspect(t.Context(), rawToken); !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	close(news)
	changes := 0
	for changed := range news {
		if changed {
			changes++
		}
	}
	if changes != 1 {
		t.Errorf("%d of them report a change", changes)
	}
	f.answers(say(http.StatusOK, active))
	clock.advance(time.Second)
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
}

// Who sends tokens must not be able to keep those of others from being looked at:
// Keycloak 26.7.3 answers some of them (e30.e30.e30) with 400.
func TestBadTokensDoNotLockOutGoodOnes(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"400":                 say(http.StatusBadRequest, `{"error":"invalid_request"}`),
		"500":                 say(http.StatusInternalServerError, ""),
		"a malformed answer":  say(http.StatusOK, `{"active":true,"a":1,"A":1}`),
		"an oversized answer": say(http.StatusOK, string(make([]byte, maxAnswer+1))),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c, clock := newTestClient(t, f)
			var changes int
			observed := c.Observed(func(call Call) {
				if call.Changed {
					changes++
				}
			})
			for range 60 {
				f.answers(answer)
				_, err := observed.Introspect(t.Context(), "bad")
				wantUnavailable(t, err)
				f.answers(say(http.StatusOK, active))
				good, err := observed.Introspect(t.Context(), rawToken)
				wantActive(t, good, err)
				clock.advance(2 * time.Second)
			}
			if changes != 2 {
				t.Errorf("%d changes were reported in two minutes, want one a minute", changes)
			}
		})
	}
}

func TestACallerThatLeavesIsNoEvidence(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f)
	leave := func(why string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		f.answers(func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		_, err := c.Introspect(ctx, rawToken)
		wantUnavailable(t, err)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", why, err)
		}
	}
	leave("while the endpoint works")
	f.answers(say(http.StatusServiceUnavailable, ""))
	_, err := c.Introspect(t.Context(), rawToken)
	wantUnavailable(t, err, "status 503")
	clock.advance(time.Second)
	leave("after a pause, as the one that asks for all")
	f.answers(say(http.StatusOK, active))
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("in the transport") }

func TestAPanicGivesTurnAndSlotBack(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f, func(cfg *Config) { cfg.MaxConcurrent = 1 })
	f.answers(say(http.StatusServiceUnavailable, ""))
	_, err := c.Introspect(t.Context(), rawToken)
	wantUnavailable(t, err, "status 503")
	clock.advance(time.Second)
	working := c.http.Transport
	c.http.Transport = panicking{}
	func() {
		defer func() { _ = recover() }()
		_, _ = c.Introspect(t.Context(), rawToken)
		t.Error("did not panic")
	}()
	c.http.Transport = working
	f.answers(say(http.StatusOK, active))
	answer, err := c.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
}

func TestNoMoreCallsAtOnceThanAllowed(t *testing.T) {
	f := newFake(t)
	const most = 3
	arrived, release := make(chan struct{}), make(chan struct{})
	f.answers(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		say(http.StatusOK, active)(w, r)
	})
	c, _ := newTestClient(t, f, func(cfg *Config) { cfg.MaxConcurrent, cfg.Timeout = most, time.Minute })
	var calls sync.WaitGroup
	for range most {
		calls.Go(func() {
			if _, err := c.Introspect(t.Context(), rawToken); err != nil {
				t.Error(err)
			}
		})
	}
	for range most {
		<-arrived
	}
	for range 10 {
		_, err := c.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "too many calls")
	}
	close(release)
	calls.Wait()
	if asked, _ := f.counts(); asked != most {
		t.Errorf("%d calls arrived", asked)
	}
	f.answers(say(http.StatusOK, active))
	answer, err := c.Introspect(t.Context(), rawToken) // being busy is no failure
	wantActive(t, answer, err)
}

func TestThirtyTwoCallsAreAllowedByDefault(t *testing.T) {
	c, _ := newTestClient(t, newFake(t))
	if cap(c.slots) != 32 || c.timeout != 2*time.Second {
		t.Errorf("%d calls, %v", cap(c.slots), c.timeout)
	}
}

func TestCallsAreReportedAndChangesOnce(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f)
	var calls []Call
	observed := c.Observed(func(call Call) { calls = append(calls, call) })
	up, down, gone := say(http.StatusOK, active), say(http.StatusServiceUnavailable, ""), say(http.StatusOK, `{"active":false}`)
	for _, answer := range []http.HandlerFunc{up, down, down, down, gone, up, gone, down} {
		f.answers(answer)
		clock.advance(5 * time.Second)
		_, _ = observed.Introspect(t.Context(), rawToken)
		_, _ = observed.Introspect(t.Context(), rawToken) // not reported during a pause
	}
	var got string
	for _, call := range calls {
		what := "up"
		switch {
		case errors.Is(call.Err, ErrInactive):
			what = "inactive"
		case call.Err != nil:
			what = "down"
		}
		if call.Changed {
			what += "!"
		}
		got += what + " "
		if call.Issuer != f.issuer() || call.Took <= 0 {
			t.Errorf("reported %+v", call)
		}
	}
	if want := "up up down! down down inactive! inactive up up inactive inactive down! "; got != want {
		t.Errorf("reported %s, want %s", got, want)
	}
}
