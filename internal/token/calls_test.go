package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func testAnswersAreRememberedForAWhile(t *testing.T) {
	s := newIntrospected(t)
	want := func(raw string, reason Reason, calls int64, when string) {
		t.Helper()
		before := s.asked.calls.Load()
		wantVerified(t, s.issuers, raw, reason, reason == "" && calls == 0, when)
		if n := s.asked.calls.Load() - before; n != calls {
			t.Fatalf("%s: asked %d times, want %d", when, n, calls)
		}
	}
	want("opaque", "", 1, "first")
	s.advance(59 * time.Second)
	want("opaque", "", 0, "within its life")
	s.asked.fails(ErrInactive)
	want("opaque", "", 0, "revoked meanwhile")
	s.advance(2 * time.Second)
	want("opaque", ReasonInactive, 1, "after its life")
	want("opaque", ReasonInactive, 0, "once more")
	s.asked.says(s.claims)
	s.advance(refusedFor - time.Nanosecond)
	want("opaque", ReasonInactive, 0, "just before it is forgotten")
	s.advance(time.Nanosecond)
	want("opaque", "", 1, "active again")
	s.asked.says(s.changed(map[string]any{"exp": s.now().Add(3 * time.Second).Unix()}))
	want("short-lived", "", 1, "first")
	s.advance(3 * time.Second)
	want("short-lived", ReasonExpired, 1, "at its end: no memory outlives it")
	// An outage is nothing to be remembered.
	down := errors.New("status 502")
	s.asked.fails(down)
	want("new", ReasonIntrospection, 1, "down")
	_, err := s.issuers.Verify(t.Context(), "new")
	if !errors.Is(err, down) {
		t.Errorf("the cause got lost: %v", err)
	}
	s.asked.says(s.claims)
	want("new", "", 1, "up")
}

// TM-012: a wall clock that steps does not change what was signed.
func testAClockThatStepsBackAndForth(t *testing.T) {
	s := newIntrospected(t)
	raw := s.realm.AccessToken(s.alice, kctest.Claim("aud", "api"), kctest.Claim("exp", s.now().Add(30*time.Minute).Unix()))
	wantVerified(t, s.issuers, raw, "", false, "first")
	s.advance(-time.Hour)
	wantVerified(t, s.issuers, raw, ReasonIssuedInFuture, false, "an hour back")
	wantVerified(t, s.issuers, "opaque", ReasonIssuedInFuture, false, "an opaque one")
	s.advance(2 * time.Hour)
	wantVerified(t, s.issuers, raw, ReasonExpired, false, "two hours forth")
}

func TestInventedOpaqueTokensAreRememberedWithinBounds(t *testing.T) {
	s := newIntrospected(t)
	s.introspection.budget = newBudget(10_000, 1)
	s.asked.fails(ErrInactive)
	for round := range 2 {
		for i := range maxRefused + 500 {
			wantVerified(t, s.issuers, fmt.Sprint("invented", i), ReasonInactive, false, "invented")
		}
		if n := len(s.introspection.refused); n != maxRefused {
			t.Errorf("%d are remembered", n)
		}
		if n := s.asked.calls.Load(); n != int64(maxRefused+500*(round+1)) {
			t.Errorf("asked %d times", n)
		}
	}
	s.advance(refusedFor)
	wantVerified(t, s.issuers, "a-new-one", ReasonInactive, false, "later")
	if n := len(s.introspection.refused); n != 1 {
		t.Errorf("%d are remembered after they were forgotten", n)
	}
}

func TestOneCallServesEverybodyWhoAsksAboutAToken(t *testing.T) {
	s := newIntrospected(t)
	wantVerified(t, s.issuers, s.realm.AccessToken(s.alice, kctest.Claim("aud", "api")), "", false, "keys are there")
	gate := make(chan struct{})
	text, err := json.Marshal(s.claims)
	if err != nil {
		t.Fatal(err)
	}
	s.asked.set(func(ctx context.Context, _ string) ([]byte, error) {
		select {
		case <-gate:
			return text, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	impatient, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.issuers.Verify(impatient, s.light)
		left <- err
	}()
	waitUntil(t, func() bool { return s.asked.calls.Load() == 1 })
	leave()
	if err := <-left; err != context.Canceled { //nolint:errorlint // exactly that is promised
		t.Errorf("who left got %v", err)
	}
	underWay, err := s.introspection.join(t.Context(), s.light, new(Token))
	if err != nil {
		t.Fatal(err)
	}
	var crowd sync.WaitGroup
	for range 200 {
		if c, err := s.introspection.join(t.Context(), s.light, new(Token)); err != nil || c != underWay {
			t.Fatalf("a call of its own: %v", err)
		}
		crowd.Go(func() {
			if _, err := s.issuers.Verify(t.Context(), s.light); err != nil {
				t.Errorf("who stayed got %v", err)
			}
		})
	}
	close(gate)
	crowd.Wait()
	// Who found nothing remembered, and comes only after the answer.
	if _, err := s.introspection.ask(t.Context(), s.light, new(Token)); err != nil {
		t.Errorf("who came late got %v", err)
	}
	if n := s.asked.calls.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestCallsAreBounded(t *testing.T) {
	s := newIntrospected(t)
	gate := make(chan struct{})
	s.asked.set(func(context.Context, string) ([]byte, error) {
		<-gate
		return nil, ErrInactive
	})
	verdicts := make(chan error, maxCalls)
	for i := range maxCalls {
		go func() {
			_, err := s.issuers.Verify(t.Context(), s.lightweight(kctest.Claim("jti", fmt.Sprint("slow", i))))
			verdicts <- err
		}()
	}
	waitUntil(t, func() bool { return s.asked.calls.Load() == maxCalls })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	oneMore := s.lightweight(kctest.Claim("jti", "one-more"))
	for _, raw := range []string{oneMore, "opaque"} {
		if _, err := s.issuers.Verify(ctx, raw); ReasonOf(err) != ReasonIntrospection || !errors.Is(err, errManyCalls) {
			t.Errorf("got %v", err)
		}
	}
	close(gate)
	for range maxCalls {
		if err := <-verdicts; ReasonOf(err) != ReasonInactive {
			t.Errorf("got %v", err)
		}
	}
	wantVerified(t, s.issuers, oneMore, ReasonInactive, false, "later")
}

func TestACallEndsByItself(t *testing.T) {
	s := newStage(t)
	hanging := new(asked)
	hanging.set(func(ctx context.Context, _ string) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	verifier := func(timeout time.Duration) (*Verifier, *Introspection) {
		in := introspectionOf(t, IntrospectionConfig{Issuer: s.realm.Issuer(), Introspector: hanging, Timeout: timeout, Now: s.now})
		v, err := New(Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now, Introspection: in})
		if err != nil {
			t.Fatal(err)
		}
		return v, in
	}
	t.Run("by its time-out", func(t *testing.T) {
		v, _ := verifier(time.Millisecond)
		if _, err := v.Verify(t.Context(), "opaque"); ReasonOf(err) != ReasonIntrospection || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("by Close", func(t *testing.T) {
		v, in := verifier(time.Hour)
		before, verdict := hanging.calls.Load(), make(chan error, 1)
		go func() {
			_, err := v.Verify(t.Context(), "opaque")
			verdict <- err
		}()
		waitUntil(t, func() bool { return hanging.calls.Load() > before })
		in.Close()
		if err := <-verdict; ReasonOf(err) != ReasonIntrospection {
			t.Errorf("got %v", err)
		}
		if _, err := v.Verify(t.Context(), "opaque"); ReasonOf(err) != ReasonIntrospection || hanging.calls.Load() != before+1 {
			t.Errorf("after it: %v", err)
		}
	})
	t.Run("by a panic", func(t *testing.T) {
		v, _ := verifier(time.Hour)
		hanging.set(func(context.Context, string) ([]byte, error) { panic("introspector") })
		if _, err := v.Verify(t.Context(), "opaque"); ReasonOf(err) != ReasonIntrospection {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnswersRememberedServeAfterClose(t *testing.T) {
	s := newIntrospected(t)
	wantVerified(t, s.issuers, "opaque", "", false, "before")
	s.introspection.Close()
	wantVerified(t, s.issuers, "opaque", "", true, "after")
	wantVerified(t, s.issuers, "another", ReasonIntrospection, false, "a new one")
}

// What a revocation changes: nothing in a token that speaks for itself, until it
// expires; and one that is asked about, as soon as the answer is asked for again.
func testARevokedToken(t *testing.T) {
	s := newIntrospected(t)
	whole := s.realm.AccessToken(s.alice, kctest.Claim("aud", "api"), kctest.Claim("exp", s.now().Add(5*time.Minute).Unix()))
	wantVerified(t, s.issuers, whole, "", false, "a whole one")
	wantVerified(t, s.issuers, s.light, "", false, "a lightweight one")
	s.asked.fails(ErrInactive)
	wantVerified(t, s.issuers, s.light, "", true, "a lightweight one, revoked just now")
	s.advance(time.Minute)
	wantVerified(t, s.issuers, s.light, ReasonInactive, false, "a lightweight one, a minute later")
	wantVerified(t, s.issuers, whole, "", true, "a whole one, a minute later")
	s.advance(4 * time.Minute)
	wantVerified(t, s.issuers, whole, ReasonExpired, false, "a whole one, at its end")
}
