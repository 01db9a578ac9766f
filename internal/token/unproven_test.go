package token

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// KC-017: who invents opaque tokens makes this server ask no more than its budget says.
func TestInventedOpaqueTokensAreAskedAboutWithinABudget(t *testing.T) {
	s := newIntrospected(t)
	invented := 0
	flood := func(why string, want int64) {
		t.Helper()
		before := s.asked.calls.Load()
		for range 1000 {
			invented++
			_, err := s.issuers.Verify(t.Context(), fmt.Sprint("invented", invented))
			asked := s.asked.calls.Load()-before <= want && ReasonOf(err) == ReasonInactive
			if !asked && (ReasonOf(err) != ReasonIntrospection || !errors.Is(err, errUnprovenBudget)) {
				t.Fatalf("%s: got %v", why, err)
			}
		}
		if n := s.asked.calls.Load() - before; n != want {
			t.Errorf("%s: asked %d times, want %d", why, n, want)
		}
	}
	s.asked.fails(ErrInactive)
	flood("at first", 20)
	s.advance(time.Second)
	flood("a second later", 10)
	s.advance(time.Hour)
	flood("an hour later", 20)
	s.asked.says(s.claims)
	wantVerified(t, s.issuers, s.light, "", false, "a signed one meanwhile")
	s.advance(100 * time.Millisecond)
	wantVerified(t, s.issuers, "known", "", false, "a good opaque one, when there is a question left")
	wantVerified(t, s.issuers, "known", "", true, "which is remembered")
}

func TestGoodOpaqueTokensCostNothingOfTheBudget(t *testing.T) {
	for name, test := range map[string]struct {
		change map[string]any // of the answer
		err    error
		want   Reason
		free   bool
	}{
		"good":                {nil, nil, "", true},
		"not active":          {nil, ErrInactive, ReasonInactive, false},
		"not asked about":     {nil, errors.New("down"), ReasonIntrospection, false},
		"active, an ID token": {map[string]any{"typ": "ID"}, nil, ReasonTokenType, false},
		"active, of another":  {map[string]any{"iss": "https://other.test/realms/x"}, nil, ReasonIssuer, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newIntrospected(t)
			s.asked.says(s.changed(test.change))
			if test.err != nil {
				s.asked.fails(test.err)
			}
			for i := range 20 {
				wantVerified(t, s.issuers, fmt.Sprint("opaque", i), test.want, false, "within the burst")
			}
			want := test.want
			if !test.free {
				want = ReasonIntrospection
			}
			for i := range 100 {
				wantVerified(t, s.issuers, fmt.Sprint("more", i), want, false, "beyond it")
			}
			if n := s.asked.calls.Load(); n != 20 && !test.free || n != 120 && test.free {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestTheBudgetOfOpaqueTokensCanBeSet(t *testing.T) {
	asked := new(asked)
	asked.fails(ErrInactive)
	now := time.Unix(1_800_000_000, 0)
	in := introspectionOf(t, IntrospectionConfig{
		Issuer: "https://kc.test/realms/acme", Introspector: asked, Now: func() time.Time { return now },
		UnprovenBurst: 3, UnprovenPerSecond: 2,
	})
	for second, want := range []int64{3, 5, 7} {
		for i := range 50 {
			_, _ = in.ask(t.Context(), fmt.Sprint(second, "invented", i), nil)
		}
		if n := asked.calls.Load(); n != want {
			t.Errorf("after %d s: asked %d times, want %d", second, n, want)
		}
		now = now.Add(time.Second)
	}
}

// KC-017: questions about invented tokens that take long leave room for those about
// signed ones.
func TestOpaqueTokensDoNotStarveSignedOnes(t *testing.T) {
	s := newIntrospected(t)
	wantVerified(t, s.issuers, s.light, "", false, "before")
	gate := make(chan struct{})
	s.asked.set(func(ctx context.Context, _ string) ([]byte, error) {
		if Unproven(ctx) {
			select {
			case <-gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return nil, ErrInactive
	})
	verdicts := make(chan error, 100)
	before := s.asked.calls.Load()
	for i := range cap(verdicts) {
		go func() {
			_, err := s.issuers.Verify(t.Context(), fmt.Sprint("slow", i))
			verdicts <- err
		}()
	}
	for range cap(verdicts) - maxUnproven {
		if err := <-verdicts; ReasonOf(err) != ReasonIntrospection || !errors.Is(err, errUnprovenAtOnce) {
			t.Errorf("got %v", err)
		}
	}
	waitUntil(t, func() bool { return s.asked.calls.Load()-before >= maxUnproven })
	for i := range maxCalls {
		raw := s.lightweight(kctest.Claim("jti", fmt.Sprint("signed", i)))
		wantVerified(t, s.issuers, raw, ReasonInactive, false, "a signed one meanwhile")
	}
	close(gate)
	for range maxUnproven {
		if err := <-verdicts; ReasonOf(err) != ReasonInactive {
			t.Errorf("got %v", err)
		}
	}
	wantVerified(t, s.issuers, "one-more", ReasonInactive, false, "later")
}

// Who asks is told on whose behalf, by the values of the request that was first; but
// that request's end is not the question's.
func TestTheIntrospectorSeesTheRequestThatWasFirst(t *testing.T) {
	type key struct{}
	s := newIntrospected(t)
	wantVerified(t, s.issuers, s.light, "", false, "keys are there")
	s.advance(time.Minute)
	for name, test := range map[string]struct {
		raw      string
		unproven bool
	}{
		"an opaque token":     {"opaque", true},
		"a lightweight token": {s.light, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, leave := context.WithTimeout(context.WithValue(t.Context(), key{}, "the first"), time.Hour)
			asking, seen := make(chan struct{}), make(chan context.Context, 1)
			gate, ended := make(chan struct{}), make(chan error, 1)
			s.asked.set(func(ctx context.Context, _ string) ([]byte, error) {
				close(asking)
				<-gate
				seen <- ctx
				ended <- ctx.Err()
				return nil, ErrInactive
			})
			left := make(chan error, 1)
			go func() {
				_, err := s.issuers.Verify(ctx, test.raw)
				left <- err
			}()
			<-asking
			leave()
			if err := <-left; err != context.Canceled { //nolint:errorlint // exactly that is promised
				t.Errorf("who left got %v", err)
			}
			close(gate)
			got := <-seen
			if err := <-ended; err != nil {
				t.Errorf("it ended with who left: %v", err)
			}
			if value := got.Value(key{}); value != "the first" {
				t.Errorf("the value is %v", value)
			}
			if until, ok := got.Deadline(); !ok || time.Until(until) > 5*time.Second {
				t.Errorf("the deadline is %v", until)
			}
			if Unproven(got) != test.unproven {
				t.Errorf("unproven is %t", Unproven(got))
			}
		})
	}
}
