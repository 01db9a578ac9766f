package token

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func testTheIssuerIsDownFromTheStart(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	s.server.Stop()
	s.want(t, good, ReasonKeysUnavailable, "down")
	if f := s.observed.next(t); f.Err == nil || !f.Changed {
		t.Errorf("reported %+v", f)
	}
	for range 10 {
		s.advance(5 * time.Second)
		s.want(t, good, ReasonKeysUnavailable, "still down")
		if f := s.observed.next(t); f.Err == nil || f.Changed {
			t.Errorf("reported %+v", f)
		}
	}
	if err := s.server.Start(); err != nil {
		t.Fatal(err)
	}
	s.want(t, good, ReasonKeysUnavailable, "back, but not asked again yet")
	s.advance(5 * time.Second)
	s.want(t, good, "", "five seconds after its return")
	if f := s.observed.next(t); f.Err != nil || !f.Changed {
		t.Errorf("reported %+v", f)
	}
}

func TestFailedFetchesBackOff(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	s.realm.Break(kctest.Status(http.StatusInternalServerError), kctest.Certs)
	var pauses []time.Duration
	last := s.now()
	for range 20 * 10 {
		before := s.realm.Requests(kctest.Certs)
		s.want(t, good, ReasonKeysUnavailable, "broken")
		if s.realm.Requests(kctest.Certs) > before {
			pauses = append(pauses, s.now().Sub(last))
			last = s.now()
		}
		s.advance(100 * time.Millisecond)
	}
	if got, want := fmt.Sprint(pauses), "[0s 1s 2s 4s 5s 5s]"; got != want {
		t.Errorf("asked after %s, want %s", got, want)
	}
}

func testKnownKeysServeWhileTheIssuerIsDown(t *testing.T) {
	s := newStage(t)
	s.realm.SetLifespan(23 * time.Hour)
	good := s.realm.AccessToken(s.alice)
	known := s.realm.ActiveKey("ES256")
	s.want(t, good, "", "up")
	s.observed.next(t)
	s.server.Stop()
	rotated := s.realm.AccessToken(s.alice, kctest.SignedBy(s.realm.Rotate("ES256")))
	s.want(t, rotated, ReasonKeysUnavailable, "a key nobody can be asked for")
	s.observed.next(t)
	s.want(t, rotated, ReasonKeysUnavailable, "again, without asking")
	s.advance(22 * time.Hour)
	s.want(t, good, "", "after 22 hours")
	late := s.realm.AccessToken(s.alice, kctest.SignedBy(known))
	s.want(t, late, "", "another token of then")
	s.advance(2*time.Hour + time.Second)
	s.want(t, late, ReasonKeysUnavailable, "after 24 hours and a second")
}

// While fetches fail, nobody can say that a key does not exist, whatever was said
// before.
func TestAnAbsentKeyIsNoLongerKnownToBeAbsentOnceFetchesFail(t *testing.T) {
	s := newStage(t, func(k *KeySetConfig, _ *Config) { k.Refresh = 40 * time.Second })
	invented := s.realm.AccessToken(s.alice, kctest.SignedBy(kctest.NewKey("EdDSA")))
	good := s.realm.AccessToken(s.alice)
	s.want(t, invented, ReasonUnknownKey, "the issuer was asked")
	s.observed.next(t)
	s.server.Stop()
	s.advance(40 * time.Second)
	s.want(t, good, "", "a refresh begins")
	s.observed.next(t)
	s.want(t, invented, ReasonKeysUnavailable, "the refresh has failed")
}

func testABrokenAnswerNeverReplacesGoodKeys(t *testing.T) {
	set, err := json.Marshal(map[string]any{"keys": []any{kctest.NewKey("EdDSA").JWK()}})
	if err != nil {
		t.Fatal(err)
	}
	whole := string(set)
	for name, fault := range map[string]kctest.Fault{
		"status 500":         kctest.Status(http.StatusInternalServerError),
		"status 404":         kctest.Status(http.StatusNotFound),
		"a page for people":  kctest.Body("<html>maintenance</html>"),
		"an empty object":    kctest.Body("{}"),
		"an empty set":       kctest.Body(`{"keys":[]}`),
		"null":               kctest.Body(`{"keys":null}`),
		"keys that are none": kctest.Body(`{"keys":[{},1,"x",{"kty":"RSA","kid":"a","n":"AQ","e":"AQAB"}]}`),
		"an error as JSON":   kctest.Body(`{"error":"unknown_error"}`),
		"trailing rubbish":   kctest.Body(`{"keys":[]} x`),
		"nothing":            kctest.Body(""),
		"more than 512 KiB":  kctest.Body(whole + strings.Repeat(" ", 512<<10)),
		"keys with a status that is not 200": func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write(set)
		},
		"a closed connection": kctest.Hangup(),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			good := s.realm.AccessToken(s.alice)
			s.want(t, good, "", "before")
			s.observed.next(t)
			s.realm.Break(fault, kctest.Certs)
			s.advance(5 * time.Minute)
			s.want(t, good, "", "a refresh begins")
			f := s.observed.next(t)
			if f.Err == nil || !f.Changed {
				t.Errorf("reported %+v", f)
			}
			if f.Err != nil && strings.Contains(f.Err.Error(), "maintenance") {
				t.Errorf("the error quotes the answer: %v", f.Err)
			}
			s.want(t, good, "", "after it failed")
			s.want(t, s.realm.AccessToken(s.alice, kctest.SignedBy(kctest.NewKey("EdDSA"))),
				ReasonKeysUnavailable, "unknown key while fetches fail")
			s.realm.Repair()
			s.advance(5 * time.Second)
			s.want(t, good, "", "a retry begins")
			if f := s.observed.next(t); f.Err != nil || !f.Changed {
				t.Errorf("reported %+v", f)
			}
		})
	}
}

func testNoAnswerFromAnotherOrigin(t *testing.T) {
	other := kctest.Start(t)
	otherRealm := other.Realm("acme")
	t.Run("redirected to", func(t *testing.T) {
		s := newStage(t)
		s.realm.Break(kctest.Redirect(otherRealm.JWKSURL()), kctest.Certs)
		s.want(t, s.realm.AccessToken(s.alice), ReasonKeysUnavailable, "redirected")
		if f := s.observed.next(t); !errors.Is(f.Err, errOtherOrigin) {
			t.Errorf("got %v", f.Err)
		}
	})
	t.Run("named by discovery", func(t *testing.T) {
		s := newStage(t)
		s.realm.Break(kctest.Body(`{"issuer":"`+s.realm.Issuer()+`","jwks_uri":"`+otherRealm.JWKSURL()+`"}`), kctest.Discovery)
		s.want(t, s.realm.AccessToken(s.alice), ReasonKeysUnavailable, "named by discovery")
		if f := s.observed.next(t); !errors.Is(f.Err, errOtherOrigin) {
			t.Errorf("got %v", f.Err)
		}
	})
	if n := otherRealm.Requests(kctest.Certs); n != 0 {
		t.Errorf("the other origin was asked %d times", n)
	}
	t.Run("a redirect within the origin is followed", func(t *testing.T) {
		s := newStage(t)
		s.realm.Break(kctest.Redirect(s.server.Realm("moved").JWKSURL()), kctest.Certs)
		moved := s.server.Realm("moved").ActiveKey("ES256")
		s.want(t, s.realm.AccessToken(s.alice, kctest.SignedBy(moved)), "", "redirected")
	})
}

func testDiscoveryOfAnotherIssuer(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	s.realm.SetIssuer("https://login.example/realms/acme")
	s.want(t, good, ReasonKeysUnavailable, "another issuer")
	f := s.observed.next(t)
	if f.Err == nil || !strings.Contains(f.Err.Error(), "https://login.example/realms/acme") {
		t.Errorf("got %v", f.Err)
	}
}

func TestTheBackchannelIsAskedInPlaceOfTheIssuer(t *testing.T) {
	const issuer = "https://login.example/realms/acme" // not to be reached from here
	var realm *kctest.Realm
	s := newStage(t, func(k *KeySetConfig, c *Config) {
		k.BackchannelURL = k.Issuer
		k.Issuer, c.Issuer = issuer, issuer
	})
	realm = s.realm
	good := func() string {
		return realm.AccessToken(s.alice, kctest.Claim("iss", issuer))
	}
	s.want(t, good(), ReasonKeysUnavailable, "the document is still of another issuer")
	realm.SetIssuer(issuer)
	s.advance(time.Second)
	s.want(t, good(), "", "jwks_uri moved to the back channel")
}

func TestAJWKSURLNeedsNoDiscovery(t *testing.T) {
	s := newStage(t, func(k *KeySetConfig, _ *Config) {
		k.JWKSURL = k.Issuer + "/protocol/openid-connect/certs"
	})
	s.want(t, s.realm.AccessToken(s.alice), "", "first")
	if n := s.realm.Requests(kctest.Discovery); n != 0 {
		t.Errorf("%d discoveries", n)
	}
}

func testAFloodOfUnknownKeysWhileTheIssuerIsDown(t *testing.T) {
	s := newStage(t)
	good := s.realm.AccessToken(s.alice)
	s.want(t, good, "", "before")
	s.observed.next(t)
	_, payload, _, err := decodeCompact(good)
	if err != nil {
		t.Fatal(err)
	}
	s.server.Stop()
	for i := range 2000 {
		if i%200 == 0 {
			s.advance(2900 * time.Millisecond) // 29 s in all
		}
		header := fmt.Appendf(nil, `{"alg":"ES256","typ":"JWT","kid":"invented-%d"}`, i)
		// Not even the issuer knows now that there is no such key.
		s.want(t, s.realm.ActiveKey("ES256").Sign("none", header, payload), ReasonKeysUnavailable, "invented")
		if i%10 == 0 {
			s.want(t, good, "", "a good one")
		}
	}
	if n := len(s.observed.fetches); n > 10 || n < 3 { // after 1, 2, 4 and then each 5 s
		t.Errorf("%d attempts in 29 s", n)
	}
}
