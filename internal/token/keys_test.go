package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestAKeySetAsksNobodyBeforeATokenNeedsIt(t *testing.T) {
	s := newStage(t)
	if n := s.realm.Requests(kctest.Discovery) + s.realm.Requests(kctest.Certs); n != 0 {
		t.Errorf("%d requests", n)
	}
	s.want(t, s.realm.AccessToken(s.alice), "", "first token")
	s.want(t, s.realm.AccessToken(s.alice), "", "second token")
	if d, c := s.realm.Requests(kctest.Discovery), s.realm.Requests(kctest.Certs); d != 1 || c != 1 {
		t.Errorf("%d discoveries and %d key fetches, want one of each", d, c)
	}
	f := s.observed.next(t)
	if f.Err != nil || f.Keys != 1 || f.Skipped != 1 || f.Changed || f.Issuer != s.realm.Issuer() {
		t.Errorf("reported %+v", f)
	}
}

func TestAllDefaultAlgorithms(t *testing.T) {
	for _, alg := range jws.DefaultAlgorithms() {
		t.Run(alg, func(t *testing.T) {
			s := newStage(t)
			s.want(t, s.realm.AccessToken(s.alice, kctest.Algorithm(alg)), "", alg)
		})
	}
}

// RFC 9864: the key's alg and the header's may be the old name or the new.
func TestEd25519HasTwoNames(t *testing.T) {
	s := newStage(t)
	s.want(t, s.realm.AccessToken(s.alice, kctest.Algorithm("EdDSA"), kctest.Header("alg", "Ed25519")), "", "new name")
}

func testARotatedKeyWorksOnItsFirstRequest(t *testing.T) {
	s := newStage(t)
	old := s.realm.AccessToken(s.alice)
	s.want(t, old, "", "before")
	for i := range 3 { // at once: a key that turns out to exist costs no cooldown
		s.realm.Rotate("ES256")
		s.want(t, s.realm.AccessToken(s.alice), "", fmt.Sprintf("rotation %d", i))
	}
	s.want(t, old, "", "the passive key")
	if n := s.realm.Requests(kctest.Certs); n != 4 {
		t.Errorf("%d fetches, want 4", n)
	}
}

func testAWithdrawnKeyStopsWorking(t *testing.T) {
	t.Run("under traffic, by a refresh nobody waits for", func(t *testing.T) {
		s := newStage(t)
		old := s.realm.AccessToken(s.alice)
		s.want(t, old, "", "before")
		s.observed.next(t)
		s.realm.Disable(s.realm.ActiveKey("ES256"))
		s.realm.Rotate("ES256")
		s.advance(5*time.Minute - time.Second)
		s.want(t, old, "", "keys still young")
		gate := make(chan struct{})
		s.realm.Break(kctest.Gate(gate))
		s.advance(time.Second)
		s.want(t, old, "", "while the refresh is under way")
		close(gate)
		s.observed.next(t)
		s.want(t, old, ReasonUnknownKey, "after it")
	})
	t.Run("after a quiet time, on the first request", func(t *testing.T) {
		s := newStage(t)
		old := s.realm.AccessToken(s.alice)
		s.want(t, old, "", "before")
		s.realm.Disable(s.realm.ActiveKey("ES256"))
		s.realm.Rotate("ES256")
		s.advance(time.Hour)
		s.want(t, old, ReasonUnknownKey, "an hour later")
	})
	t.Run("also for a token that was authenticated before", func(t *testing.T) {
		s := newStage(t)
		tok, err := s.verifier.Authenticate(t.Context(), s.realm.AccessToken(s.alice))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.verifier.Check(t.Context(), tok); err != nil {
			t.Fatalf("before: %v", err)
		}
		s.realm.Disable(s.realm.ActiveKey("ES256"))
		s.realm.Rotate("ES256")
		s.advance(time.Hour)
		if err := s.verifier.Check(t.Context(), tok); ReasonOf(err) != ReasonUnknownKey {
			t.Errorf("after: %v", err)
		}
	})
}

func testInventedKeysAndSignaturesHardlyAskTheIssuer(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	head, tail, _ := strings.Cut(good, ".")
	_, payload, _, err := decodeCompact(good)
	if err != nil {
		t.Fatal(err)
	}
	badSignature := head + "." + tail[:len(tail)-8] + "AAAAAAAA"
	unknown := make([]string, 10_000)
	for i := range unknown {
		header := fmt.Appendf(nil, `{"alg":"ES256","typ":"JWT","kid":"invented-%d"}`, i)
		unknown[i] = s.realm.ActiveKey("ES256").Sign("none", header, payload)
	}
	for i, raw := range unknown {
		if i%1000 == 0 {
			s.advance(2900 * time.Millisecond) // 29 s in all
		}
		if got := s.verify(t, raw); got != ReasonUnknownKey {
			t.Fatalf("unknown key: %q", got)
		}
		if got := s.verify(t, badSignature); got != ReasonSignature {
			t.Fatalf("bad signature: %q", got)
		}
	}
	s.want(t, good, "", "a good one")
	if n := s.realm.Requests(kctest.Certs); n > 2 {
		t.Errorf("%d fetches, want at most 2", n)
	}
}

func TestAnInventedKeyDoesNotUseUpWhatANewOneNeeds(t *testing.T) {
	s := newStage(t)
	s.want(t, s.realm.AccessToken(s.alice), "", "first")
	invented := s.realm.AccessToken(s.alice, kctest.SignedBy(kctest.NewKey("EdDSA")))
	s.want(t, invented, ReasonUnknownKey, "invented")
	s.advance(31 * time.Second)
	s.want(t, invented, ReasonUnknownKey, "the same, after the cooldown")
	s.realm.Rotate("ES256")
	s.want(t, s.realm.AccessToken(s.alice), "", "a new key")
}

func TestUnderAFloodANewKeyWorksAfterTheCooldown(t *testing.T) {
	s := newStage(t)
	s.want(t, s.realm.AccessToken(s.alice), "", "first")
	s.want(t, s.realm.AccessToken(s.alice, kctest.SignedBy(kctest.NewKey("EdDSA"))), ReasonUnknownKey, "invented")
	s.realm.Rotate("ES256")
	fresh := s.realm.AccessToken(s.alice)
	s.want(t, fresh, ReasonUnknownKey, "within the cooldown")
	s.advance(30 * time.Second)
	s.want(t, fresh, "", "after it")
}

func TestOneFetchServesEverybody(t *testing.T) {
	s := newStage(t)
	gate := make(chan struct{})
	s.realm.Break(kctest.Gate(gate), kctest.Certs)
	good := s.realm.AccessToken(s.alice)

	// The one who caused the fetch leaves; the others must not suffer from it.
	impatient, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.verifier.Verify(impatient, good)
		left <- err
	}()
	waitUntil(t, func() bool { return s.realm.Requests(kctest.Certs) == 1 })
	leave()
	if err := <-left; err != context.Canceled { //nolint:errorlint // exactly that is promised
		t.Errorf("who left got %v", err)
	}

	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			if _, err := s.verifier.Verify(t.Context(), good); err != nil {
				t.Errorf("who stayed got %v", err)
			}
		})
	}
	close(gate)
	waiting.Wait()
	if n := s.realm.Requests(kctest.Certs); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func testACrowdOfUnknownKeysDoesNotPileUp(t *testing.T) {
	s := newStage(t)
	s.want(t, s.realm.AccessToken(s.alice), "", "first")
	gate := make(chan struct{})
	s.realm.Break(kctest.Gate(gate), kctest.Certs)
	invented := kctest.NewKey("EdDSA")
	var crowd sync.WaitGroup
	refused := make(chan Reason, 2*maxWaiting)
	for i := range 2 * maxWaiting {
		raw := s.realm.AccessToken(s.alice, kctest.SignedBy(invented.WithID(fmt.Sprint("invented", i))))
		crowd.Go(func() {
			_, err := s.verifier.Verify(t.Context(), raw)
			refused <- ReasonOf(err)
		})
	}
	for range maxWaiting { // the half that finds no place
		if got := <-refused; got != ReasonKeysUnavailable {
			t.Errorf("got %q", got)
		}
	}
	close(gate)
	crowd.Wait()
	for range maxWaiting {
		if got := <-refused; got != ReasonUnknownKey {
			t.Errorf("who waited got %q", got)
		}
	}
}

func TestAfterCloseKnownKeysServe(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	s.want(t, good, "", "before")
	s.keys.Close()
	_, err := s.verifier.Verify(t.Context(), s.realm.AccessToken(s.alice, kctest.SignedBy(kctest.NewKey("EdDSA"))))
	if ReasonOf(err) != ReasonKeysUnavailable || !errors.Is(err, errClosed) { // without trying
		t.Errorf("got %v", err)
	}
	s.advance(time.Hour)
	s.want(t, good, "", "a known key")
	if n := s.realm.Requests(kctest.Certs); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestCloseEndsAFetchThatHangs(t *testing.T) {
	s := newStage(t, func(k *KeySetConfig, _ *Config) { k.Timeout = time.Hour })
	s.realm.Break(kctest.Hang())
	done := make(chan error, 1)
	go func() {
		_, err := s.verifier.Verify(t.Context(), s.realm.AccessToken(s.alice))
		done <- err
	}()
	waitUntil(t, func() bool { return s.realm.Requests(kctest.Discovery) == 1 })
	s.keys.Close()
	if err := <-done; ReasonOf(err) != ReasonKeysUnavailable {
		t.Errorf("got %v", err)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("transport") }

func TestAPanicInTheTransportIsAFailedFetch(t *testing.T) {
	s := newStage(t, func(k *KeySetConfig, _ *Config) { k.Client = &http.Client{Transport: panicking{}} })
	s.want(t, s.realm.AccessToken(s.alice), ReasonKeysUnavailable, "panic")
}

func TestKeySetConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]KeySetConfig{
		"no issuer":                 {},
		"an issuer that is no URL":  {Issuer: "acme"},
		"a scheme of its own":       {Issuer: "ftp://kc.test/realms/acme"},
		"an issuer with a password": {Issuer: "https://a:b@kc.test/realms/acme"},
		"an issuer with a query":    {Issuer: "https://kc.test/realms/acme?x"},
		"an issuer with a fragment": {Issuer: "https://kc.test/realms/acme#x"},
		"a jwks url without host":   {Issuer: "https://kc.test/realms/acme", JWKSURL: "https:///certs"},
		"both other addresses":      {Issuer: "https://kc.test/r", JWKSURL: "https://a.test", BackchannelURL: "https://b.test"},
		"a negative time":           {Issuer: "https://kc.test/r", Refresh: -1},
		"staleness before age":      {Issuer: "https://kc.test/r", Refresh: time.Hour, MaxStale: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewKeySet(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}
