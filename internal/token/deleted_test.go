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

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// What Keycloak itself says to be deleted serves no longer; all other failures, another
// 404 included, are an outage, which known keys outlast.
func TestTheKeysOfADeletedRealmStopServing(t *testing.T) {
	noPath := func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error":"HTTP 404 Not Found"}`))
	}
	for name, test := range map[string]struct {
		faults []kctest.Fault // of one fetch after another
		want   Reason
	}{
		"said once":                       {[]kctest.Fault{kctest.NoRealm()}, ""},
		"said twice":                      {[]kctest.Fault{kctest.NoRealm(), kctest.NoRealm()}, ReasonKeysUnavailable},
		"said twice, and then down":       {[]kctest.Fault{kctest.NoRealm(), kctest.NoRealm(), kctest.Hangup()}, ReasonKeysUnavailable},
		"said twice, but not in a row":    {[]kctest.Fault{kctest.NoRealm(), kctest.Hangup(), kctest.NoRealm()}, ""},
		"another 404, many times":         {[]kctest.Fault{noPath, noPath, noPath, noPath}, ""},
		"a page's 404, many times":        {[]kctest.Fault{kctest.Status(404), kctest.Status(404), kctest.Status(404)}, ""},
		"said with a status that is none": {[]kctest.Fault{kctest.Body(`{"error":"Realm does not exist"}`), kctest.Body(`{"error":"Realm does not exist"}`)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeenStage(t)
			good := s.realm.AccessToken(s.alice)
			wantVerified(t, s.issuers, good, "", false, "before")
			s.observed.next(t)
			s.advance(5 * time.Minute)
			for _, fault := range test.faults {
				s.realm.Break(fault)
				s.advance(5 * time.Second)
				_, _ = s.issuers.Verify(t.Context(), good) // begins a fetch
				if f := s.observed.next(t); f.Err == nil {
					t.Fatal("the fetch did not fail")
				}
			}
			wantVerified(t, s.issuers, good, test.want, test.want == "", "after")
			other := s.realm.AccessToken(s.alice)
			wantVerified(t, s.issuers, other, test.want, false, "another token, after")
			s.realm.Repair()
			s.advance(5 * time.Second)
			_, _ = s.issuers.Verify(t.Context(), good)
			s.observed.next(t)
			wantVerified(t, s.issuers, good, "", true, "made anew, or back")
		})
	}
}

func TestARealmOfATemplateThatIsDeleted(t *testing.T) {
	s := newTenants(t)
	good, other := s.token("t1"), s.token("t2")
	s.want(t, good, "", "before")
	s.want(t, other, "", "another, before")
	s.realm("t1").Break(kctest.NoRealm())
	s.advance(5*time.Minute + refreshGrace) // so that requests wait for the refresh
	s.want(t, good, "", "said once")
	s.advance(5 * time.Second)
	// The request that begins the second fetch does not wait for it.
	waitUntil(t, func() bool { _, reason := s.verify(t, good); return reason == ReasonIssuer })
	sent := s.requests.sent.Load()
	for range 100 {
		s.want(t, good, ReasonIssuer, "deleted")
	}
	if n := s.requests.sent.Load() - sent; n != 0 {
		t.Errorf("%d requests for a realm that is not there", n)
	}
	waitUntil(t, func() bool { return s.released.Load() == 1 })
	s.want(t, other, "", "another, still")
	s.realm("t1").Repair()
	s.advance(missingFor)
	s.want(t, good, "", "made anew")
}

// A realm that was pushed out has its turn whatever others make up.
func TestRealmsThatOnceGaveKeysDoNotCompeteWithInventedOnes(t *testing.T) {
	s := newTenants(t, func(c *RealmsConfig) { c.MaxProven = 2 })
	tenants := []string{"a", "b", "c", "d"}
	for _, tenant := range tenants { // of which only two have a place
		s.want(t, s.token(tenant), "", tenant)
	}
	invented := 0
	exhaust := func() {
		for range 100 {
			s.verify(t, s.invented(fmt.Sprint("invented", invented)))
			invented++
		}
		s.want(t, s.token("new"), ReasonKeysUnavailable, "one that is new")
	}
	exhaust()
	s.want(t, s.token("a"), "", "a, which was pushed out")
	s.want(t, s.token("b"), "", "b, likewise")
	before := s.requests.sent.Load()
	for i := range 100 {
		s.verify(t, s.invented(tenants[i%len(tenants)]))
	}
	if n := s.requests.sent.Load() - before; n > 2*5 {
		t.Errorf("%d requests for realms that push each other out", n)
	}
	s.advance(time.Second)
	exhaust()
	s.want(t, s.token("a"), "", "a, a second later")

	_, err := s.issuers.Verify(t.Context(), s.token("new"))
	var refusal *Error
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Hint, "after a start, none has yet") {
		t.Errorf("got %#v", err)
	}
}

func TestWhichRealmsOnceGaveKeysIsRememberedWithinBounds(t *testing.T) {
	s := newTenants(t, func(c *RealmsConfig) { c.MaxProven = 1 })
	for i := range maxOnce {
		s.realms.once[fmt.Sprint("tenant", i)] = struct{}{}
	}
	s.want(t, s.token("t1"), "", "one more")
	if n := len(s.realms.once); n != maxOnce {
		t.Errorf("%d are remembered", n)
	}
	if _, ok := s.realms.once["t1"]; !ok {
		t.Error("the last one is not")
	}
	s.realms.remember("t1")
	if _, ok := s.realms.once["t1"]; ok {
		t.Error("one that was deleted is")
	}
}

// KC-006: while keys are known, at most one request at a time waits for newer ones.
func testOnlyWhoBeginsARefreshWaitsForIt(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	s.want(t, good, "", "before")
	s.realm.Break(kctest.Hang())
	s.advance(time.Hour)
	first := make(chan error, 1)
	go func() {
		_, err := s.verifier.Verify(t.Context(), good)
		first <- err
	}()
	waitUntil(t, func() bool { return s.realm.Requests(kctest.Certs) == 2 })
	for range 20 { // which would take 20 s
		s.want(t, good, "", "meanwhile")
	}
	select {
	case <-first:
		t.Error("the others took as long as the first")
	default:
	}
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
}

// KC-006, KC-010: who has left takes nobody's place.
func testOnlyThoseWhoStillWaitAreCounted(t *testing.T) {
	s := newStage(t)
	s.want(t, s.realm.AccessToken(s.alice), "", "before")
	gate := make(chan struct{})
	s.realm.Break(kctest.Gate(gate), kctest.Certs)
	waiting := func() int {
		s.keys.mu.Lock()
		defer s.keys.mu.Unlock()
		if s.keys.flight == nil {
			return 0
		}
		return s.keys.flight.waiting
	}
	ctx, leave := context.WithCancel(t.Context())
	var crowd sync.WaitGroup
	invented := kctest.NewKey("EdDSA")
	for i := range maxWaiting {
		raw := s.realm.AccessToken(s.alice, kctest.SignedBy(invented.WithID(fmt.Sprint("invented", i))))
		crowd.Go(func() { _, _ = s.verifier.Verify(ctx, raw) })
	}
	waitUntil(t, func() bool { return waiting() == maxWaiting })
	s.realm.Rotate("ES256")
	fresh := s.realm.AccessToken(s.alice)
	s.want(t, fresh, ReasonKeysUnavailable, "there is no place")
	leave()
	crowd.Wait()
	verdict := make(chan error, 1)
	go func() {
		_, err := s.verifier.Verify(t.Context(), fresh)
		verdict <- err
	}()
	waitUntil(t, func() bool { return waiting() == 1 })
	close(gate)
	if err := <-verdict; err != nil {
		t.Errorf("got %v", err)
	}
}
