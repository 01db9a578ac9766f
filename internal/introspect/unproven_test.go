package introspect

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// KC-017: whatever comes of questions about tokens that anybody can make up, those
// about signed ones do not have to wait.
func TestFailuresWithUnprovenTokensDoNotLockOutProvenOnes(t *testing.T) {
	for name, trouble := range map[string]http.HandlerFunc{
		"502":          say(http.StatusBadGateway, ""),
		"429":          say(http.StatusTooManyRequests, ""),
		"no answer":    hang(t),
		"a broken one": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c, clock := newTestClient(t, f, func(cfg *Config) { cfg.Timeout = time.Second }, discovering)
			answer, err := c.Introspect(t.Context(), rawToken)
			wantActive(t, answer, err)
			unproven := token.WithUnproven(t.Context())
			for range 2 {
				f.answers(trouble)
				_, err := c.Introspect(unproven, rawToken)
				wantUnavailable(t, err)
				_, err = c.Introspect(unproven, rawToken)
				wantUnavailable(t, err, "not asked again yet")
				f.answers(say(http.StatusOK, active))
				f.discovers(say(http.StatusBadGateway, "")) // what is known goes on serving
				answer, err := c.Introspect(t.Context(), rawToken)
				wantActive(t, answer, err)
				answer, err = c.Introspect(unproven, rawToken) // who proved something speaks for all
				wantActive(t, answer, err)
				clock.advance(time.Second)
			}
		})
	}
}

// An endpoint may answer about tokens that it need not look up, and fail at others.
func TestAnswersAboutUnprovenTokensEndNoPauseOfOthers(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f)
	var changes []error
	observed := c.Observed(func(call Call) {
		if call.Changed {
			changes = append(changes, call.Err)
		}
	})
	unproven := token.WithUnproven(t.Context())
	for range 3 {
		f.answers(say(http.StatusServiceUnavailable, ""))
		_, err := observed.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "status 503")
		f.answers(say(http.StatusOK, `{"active":false}`))
		if _, err := observed.Introspect(unproven, rawToken); !errors.Is(err, ErrInactive) {
			t.Errorf("got %v", err)
		}
		_, err = observed.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "not asked again yet")
		clock.advance(5 * time.Second)
	}
	f.answers(say(http.StatusOK, active))
	answer, err := observed.Introspect(t.Context(), rawToken)
	wantActive(t, answer, err)
	if len(changes) != 2 || changes[0] == nil || changes[1] != nil {
		t.Errorf("reported %v, want one failure and its end", changes)
	}
}

func TestAnOutageIsReportedOnceWhicheverTokensShowIt(t *testing.T) {
	proven, unproven := t.Context(), token.WithUnproven(t.Context())
	for name, order := range map[string][]context.Context{
		"unproven ones":       {unproven, unproven, unproven},
		"proven ones":         {proven, proven, proven},
		"unproven ones first": {unproven, proven, unproven},
		"proven ones first":   {proven, unproven, proven},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c, clock := newTestClient(t, f)
			var news, over int
			observed := c.Observed(func(call Call) {
				switch {
				case call.Changed && call.Err != nil:
					news++
				case call.Changed:
					over++
				}
			})
			for outage := range 3 {
				f.answers(say(http.StatusServiceUnavailable, ""))
				for _, ctx := range order {
					_, err := observed.Introspect(ctx, rawToken)
					wantUnavailable(t, err, "status 503")
					clock.advance(5 * time.Second)
				}
				f.answers(say(http.StatusOK, active))
				for _, ctx := range order {
					answer, err := observed.Introspect(ctx, rawToken)
					wantActive(t, answer, err)
				}
				if news != outage+1 || over != outage+1 {
					t.Fatalf("%d outages: %d were reported, and %d ends", outage+1, news, over)
				}
				clock.advance(time.Minute)
			}
		})
	}
}

// Who makes up tokens must not be able to fill logs.
func TestFailuresWithUnprovenTokensAreReportedOnceAMinute(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f)
	var changes int
	observed := c.Observed(func(call Call) {
		if call.Changed && call.Err != nil {
			changes++
		}
	})
	for range 60 {
		f.answers(say(http.StatusServiceUnavailable, ""))
		_, err := observed.Introspect(token.WithUnproven(t.Context()), rawToken)
		wantUnavailable(t, err, "status 503")
		f.answers(say(http.StatusOK, active))
		answer, err := observed.Introspect(t.Context(), rawToken)
		wantActive(t, answer, err)
		clock.advance(2 * time.Second)
	}
	if changes != 2 {
		t.Errorf("%d failures were reported in two minutes, want one a minute", changes)
	}
}

func TestAnEndpointThatMovedIsFoundForUnprovenTokensToo(t *testing.T) {
	f := newFake(t)
	c, clock := newTestClient(t, f, discovering)
	unproven := token.WithUnproven(t.Context())
	answer, err := c.Introspect(unproven, rawToken)
	wantActive(t, answer, err)
	moved := f.issuer() + "/moved"
	f.discovers(say(http.StatusOK, f.documentOf(f.issuer(), moved)))
	f.answers(say(http.StatusNotFound, ""))
	_, err = c.Introspect(unproven, rawToken)
	wantUnavailable(t, err, "status 404")
	f.answers(say(http.StatusOK, active))
	clock.advance(time.Second)
	answer, err = c.Introspect(unproven, rawToken)
	wantActive(t, answer, err)
	if path := f.request().path; path != "/realms/acme/moved" {
		t.Errorf("asked at %s", path)
	}
}
