package token

import (
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// clock is moved by the test.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1795255000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// observed collects what an Observer is told.
type observed struct{ fetches chan KeyFetch }

func newObserved() observed { return observed{make(chan KeyFetch, 1000)} }

func (o observed) KeysFetched(f KeyFetch) { o.fetches <- f }

// next waits for the report of the next fetch.
func (o observed) next(t *testing.T) KeyFetch {
	t.Helper()
	select {
	case f := <-o.fetches:
		return f
	case <-time.After(10 * time.Second):
		t.Fatal("no fetch was reported")
		panic("unreachable")
	}
}

// stage is a realm and a verifier of its tokens, under one clock.
type stage struct {
	*clock
	server   *kctest.Server
	realm    *kctest.Realm
	alice    kctest.User
	keys     *KeySet
	verifier *Verifier
	observed observed
}

func newStage(t *testing.T, adapt ...func(*KeySetConfig, *Config)) *stage {
	t.Helper()
	s := &stage{clock: newClock(), server: kctest.Start(t), observed: newObserved()}
	s.server.SetClock(s.now)
	s.realm = s.server.Realm("acme")
	s.realm.SetDefaultAlgorithm("ES256") // its keys are made in no time
	s.realm.SetLifespan(20 * time.Hour)  // tokens outlive what the tests do to the clock
	s.alice = s.realm.AddUser(kctest.User{Username: "alice"})

	keyCfg := KeySetConfig{Issuer: s.realm.Issuer(), Now: s.now}
	cfg := Config{Issuer: s.realm.Issuer(), Now: s.now, Observer: s.observed}
	for _, change := range adapt {
		change(&keyCfg, &cfg)
	}
	var err error
	if s.keys, err = NewKeySet(keyCfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.keys.Close)
	cfg.Keys = s.keys
	if s.verifier, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// verify returns the reason a token is refused for, "" if it is accepted.
func (s *stage) verify(t *testing.T, raw string) Reason {
	t.Helper()
	_, err := s.verifier.Verify(t.Context(), raw)
	if err != nil && ReasonOf(err) == "" {
		t.Fatalf("no verdict: %v", err)
	}
	return ReasonOf(err)
}

func (s *stage) want(t *testing.T, raw string, want Reason, when string) {
	t.Helper()
	if got := s.verify(t, raw); got != want {
		t.Fatalf("%s: got %q, want %q", when, got, want)
	}
}
