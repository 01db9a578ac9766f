package token

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// tenants is a server whose realms are tenants, and a verifier of all their tokens,
// under one clock.
type tenants struct {
	*clock
	server   *kctest.Server
	requests *counting
	realms   *Realms
	issuers  *Issuers
	opened   atomic.Int64
	released atomic.Int64
}

// counting counts the requests that leave, whatever becomes of them.
type counting struct{ sent atomic.Int64 }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.sent.Add(1)
	return http.DefaultTransport.RoundTrip(r)
}

func newTenants(t testing.TB, adapt ...func(*RealmsConfig)) *tenants {
	t.Helper()
	s := &tenants{clock: newClock(), server: kctest.Start(t), requests: new(counting)}
	s.server.SetClock(s.now)
	cfg := RealmsConfig{
		Issuer: s.server.URL() + "/realms/{tenant}",
		Now:    s.now,
		Keys: func(_ string, addresses KeySetConfig) (*KeySet, func(), error) {
			addresses.Client = &http.Client{Transport: s.requests}
			keys, err := NewKeySet(addresses)
			if err != nil {
				return nil, nil, err
			}
			s.opened.Add(1)
			return keys, func() { s.released.Add(1); keys.Close() }, nil
		},
	}
	for _, change := range adapt {
		change(&cfg)
	}
	var err error
	if s.realms, err = NewRealms(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.realms.Close)
	v, err := NewForRealms(Config{Now: s.now}, s.realms, func(tenant string) bool { return tenant != "forbidden" })
	if err != nil {
		t.Fatal(err)
	}
	if s.issuers, err = NewIssuers(nil, v); err != nil {
		t.Fatal(err)
	}
	return s
}

// realm makes a realm for a tenant, with keys that cost nothing.
func (s *tenants) realm(tenant string) *kctest.Realm {
	r := s.server.Realm(tenant)
	r.SetDefaultAlgorithm("ES256")
	r.SetLifespan(20 * time.Hour)
	return r
}

// token returns one of a tenant's realm, which is made for it.
func (s *tenants) token(tenant string) string {
	return s.realm(tenant).AccessToken(kctest.User{ID: "alice"})
}

// invented returns what looks like a token of a realm, up to the signature.
func (s *tenants) invented(tenant string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"ES256","typ":"JWT","kid":"invented"}`)) + "." +
		encode(fmt.Appendf(nil, `{"iss":"%s/realms/%s","typ":"Bearer","exp":%d}`,
			s.server.URL(), tenant, s.now().Add(time.Hour).Unix())) + "." + encode(make([]byte, 64))
}

func (s *tenants) elsewhere() *kctest.Realm { return s.realm("elsewhere") }

func (s *tenants) verify(t testing.TB, raw string) (Verified, Reason) {
	t.Helper()
	verified, err := s.issuers.Verify(t.Context(), raw)
	if err != nil && ReasonOf(err) == "" {
		t.Fatalf("no verdict: %v", err)
	}
	return verified, ReasonOf(err)
}

func (s *tenants) want(t testing.TB, raw string, want Reason, when string) {
	t.Helper()
	if _, got := s.verify(t, raw); got != want {
		t.Fatalf("%s: got %q, want %q", when, got, want)
	}
}

func TestEachTenantHasARealmOfItsOwn(t *testing.T) {
	s := newTenants(t)
	for _, tenant := range []string{"t1", "t2", "T1"} {
		verified, reason := s.verify(t, s.token(tenant))
		if reason != "" || verified.Tenant != tenant || verified.Token.Subject != "alice" {
			t.Errorf("%s: %+v, %q", tenant, verified, reason)
		}
	}
	// CL-015: the tenant is that of the issuer, whoever else's key is used.
	stolen := s.realm("t1").AccessToken(kctest.User{ID: "alice"}, kctest.Claim("iss", s.realm("t2").Issuer()))
	s.want(t, stolen, ReasonUnknownKey, "a token of t1 that says it is of t2")
	if n := s.opened.Load(); n != 3 {
		t.Errorf("%d key sets, want 3", n)
	}
}

func TestOnlyTenantsThatAreAllowedHaveRealms(t *testing.T) {
	s := newTenants(t)
	for name, iss := range map[string]string{
		"not allowed":         s.server.URL() + "/realms/forbidden",
		"no tenant":           s.server.URL() + "/realms/",
		"two segments":        s.server.URL() + "/realms/a/b",
		"a way up":            s.server.URL() + "/realms/..",
		"an escape":           s.server.URL() + "/realms/%61",
		"another host":        "http://evil.test/realms/t1",
		"a host that follows": s.server.URL() + ".evil.test/realms/t1",
		"user and host":       strings.Replace(s.server.URL(), "//", "//kc@evil.test#", 1) + "/realms/t1",
	} {
		t.Run(name, func(t *testing.T) {
			s.want(t, s.elsewhere().AccessToken(kctest.User{ID: "a"}, kctest.Claim("iss", iss)), ReasonIssuer, name)
		})
	}
	t.Run("not even a string", func(t *testing.T) { // CL-014
		s.want(t, s.elsewhere().AccessToken(kctest.User{ID: "a"}, kctest.Claim("iss", []string{s.server.URL() + "/realms/t1"})),
			ReasonIssuer, "list")
	})
	if n := s.requests.sent.Load() + s.opened.Load(); n != 0 {
		t.Errorf("%d requests and key sets", n)
	}
}

// What is refused without a key opens no realm.
func TestHopelessTokensOpenNoRealm(t *testing.T) {
	s := newTenants(t)
	alice := kctest.User{ID: "alice"}
	for name, test := range map[string]struct {
		raw  string
		want Reason
	}{
		"expired":  {s.realm("t1").AccessToken(alice, kctest.IssuedAt(s.now().Add(-48*time.Hour))), ReasonExpired},
		"bound":    {s.realm("t1").AccessToken(alice, kctest.Claim("cnf", nil)), ReasonBound},
		"ID token": {s.realm("t1").IDToken(alice), ReasonTokenType},
		"none":     {s.realm("t1").AccessToken(alice, kctest.Header("alg", "none")), ReasonAlgorithm},
		"header":   {s.realm("t1").AccessToken(alice, kctest.Header("typ", "logout+jwt")), ReasonHeaderType},
	} {
		t.Run(name, func(t *testing.T) { s.want(t, test.raw, test.want, name) })
	}
	if n := s.opened.Load(); n != 0 {
		t.Errorf("%d key sets", n)
	}
}

func TestInventedRealmsAreCheap(t *testing.T) {
	s := newTenants(t)
	good := make([]string, 20)
	for i := range good {
		good[i] = s.token(fmt.Sprint("good", i))
		s.want(t, good[i], "", "good, before") // without waiting: success costs nothing
	}
	before := s.requests.sent.Load()
	for i := range 10_000 {
		if i%100 == 0 {
			s.advance(300 * time.Millisecond) // 30 s in all
		}
		if _, got := s.verify(t, s.invented(fmt.Sprint("invented", i))); got != ReasonIssuer && got != ReasonKeysUnavailable {
			t.Fatalf("invented: %q", got)
		}
		s.want(t, good[i%len(good)], "", "good, meanwhile")
	}
	if n := s.requests.sent.Load() - before; n > 35 || n < 30 {
		t.Errorf("%d requests, want at most 35, and about as many", n)
	}
	if n := s.opened.Load() - s.released.Load(); n != int64(len(good)) {
		t.Errorf("%d key sets are open, want those of the good", n)
	}
}

func TestARealmThatDoesNotExistIsRemembered(t *testing.T) {
	s := newTenants(t)
	nobody := s.invented("nobody")
	for range 20 {
		s.want(t, nobody, ReasonIssuer, "asked once")
	}
	if n := s.requests.sent.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	_, err := s.issuers.Verify(t.Context(), nobody)
	var refusal *Error
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Hint, "no such realm") {
		t.Errorf("got %#v", err)
	}
	now := s.token("nobody") // made after all
	s.want(t, now, ReasonIssuer, "still remembered")
	s.advance(missingFor)
	s.want(t, now, "", "a minute later")
}

// A 404 that is not Keycloak's says nothing about realms: that is how a proxy answers
// whose Keycloak is not there.
func TestA404OfAProxyIsAnOutage(t *testing.T) {
	s := newTenants(t)
	good := s.token("t1")
	for name, fault := range map[string]kctest.Fault{
		"a page": kctest.Status(http.StatusNotFound),
		"JSON without error": func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message":"no Route matched with those values"}`))
		},
		"JSON of somebody else": func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error":"HTTP 404 Not Found"}`))
		},
		"error 500": kctest.Status(http.StatusInternalServerError),
	} {
		t.Run(name, func(t *testing.T) {
			s.realm("t1").Break(fault)
			s.advance(5 * time.Second)
			s.want(t, good, ReasonKeysUnavailable, name)
		})
	}
	s.realm("t1").Repair()
	s.advance(5 * time.Second)
	s.want(t, good, "", "five seconds after its return")
}

func TestWithoutBudgetARealmThatIsNotKnownYetIsUnavailable(t *testing.T) {
	s := newTenants(t)
	known, unknown := s.token("known"), s.token("unknown")
	s.want(t, known, "", "known")
	for i := range 5 {
		s.want(t, s.invented(fmt.Sprint("invented", i)), ReasonIssuer, "burst")
	}
	_, err := s.issuers.Verify(t.Context(), unknown)
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Reason != ReasonKeysUnavailable || !errors.Is(err, errBudget) ||
		!strings.Contains(refusal.Hint, "too many others") {
		t.Errorf("got %#v", err)
	}
	s.advance(time.Hour)
	for i := range 5 {
		s.want(t, s.invented(fmt.Sprint("invented-again", i)), ReasonIssuer, "burst again")
	}
	s.realm("known").Rotate("ES256")
	s.want(t, s.token("known"), "", "a proven realm's new key costs no budget")
	s.advance(time.Second)
	s.want(t, unknown, "", "a second later")
}

// An outage must not cost each realm its turn again and again: what failed is asked
// again within the budget only.
func TestRealmsThatFailAreAskedWithinTheBudget(t *testing.T) {
	s := newTenants(t)
	raws := make([]string, 50)
	for i := range raws {
		raws[i] = s.token(fmt.Sprint("t", i))
	}
	s.server.Stop()
	for range 30 {
		for _, raw := range raws {
			s.want(t, raw, ReasonKeysUnavailable, "down")
		}
		s.advance(time.Second)
	}
	if n := s.requests.sent.Load(); n > 35 {
		t.Errorf("%d requests, want at most 35", n)
	}
}

func TestRealmsThatGaveKeysAreOnlyPushedOutBySuch(t *testing.T) {
	s := newTenants(t, func(c *RealmsConfig) { c.MaxProven, c.MaxUnproven = 3, 2 })
	for _, tenant := range []string{"a", "b", "c"} {
		s.want(t, s.token(tenant), "", tenant)
	}
	s.realm("broken").Break(kctest.Status(http.StatusBadGateway))
	for i := range 10 {
		name := fmt.Sprint("broken", i)
		s.realm(name).Break(kctest.Status(http.StatusBadGateway))
		s.advance(time.Second)
		s.want(t, s.token(name), ReasonKeysUnavailable, name)
	}
	if opened, released := s.opened.Load(), s.released.Load(); opened != 13 || released != 8 {
		t.Errorf("%d opened, %d released: want 13 and 8", opened, released)
	}
	before := s.requests.sent.Load()
	for _, tenant := range []string{"b", "a", "c"} {
		s.want(t, s.token(tenant), "", tenant+" again")
	}
	if n := s.requests.sent.Load() - before; n != 0 {
		t.Errorf("%d requests for realms that were known", n)
	}
	s.want(t, s.token("d"), "", "d") // pushes out b, the least recently used
	s.want(t, s.token("a"), "", "a")
	s.want(t, s.token("c"), "", "c")
	if n := s.opened.Load(); n != 14 {
		t.Errorf("%d opened, want 14: a and c have stayed", n)
	}
	s.want(t, s.token("b"), "", "b comes again")
	if n := s.opened.Load(); n != 15 {
		t.Errorf("%d opened, want 15", n)
	}
}

// Once there are more realms than fit, a success is paid for like a failure: or tokens
// that name them in turn, signed by nobody, would cost a fetch each.
func TestRealmsThatTakeTurnsAreAskedWithinTheBudget(t *testing.T) {
	s := newTenants(t, func(c *RealmsConfig) { c.MaxProven = 10 })
	for i := range 20 {
		s.realm(fmt.Sprint("t", i)).ActiveKey("ES256")
	}
	for i := range 1000 {
		if i%100 == 0 {
			s.advance(time.Second)
		}
		s.verify(t, s.invented(fmt.Sprint("t", i%20)))
	}
	// Two requests each: those that fit, and the budgets of those that never gave keys and of those that did.
	if n := s.requests.sent.Load(); n > 2*(10+2*(5+10)) {
		t.Errorf("%d requests", n)
	}
}

func TestARealmThatIsPushedOutServesWhoUsesIt(t *testing.T) {
	s := newTenants(t, func(c *RealmsConfig) { c.MaxUnproven = 1 })
	gate := make(chan struct{})
	s.realm("slow").Break(kctest.Gate(gate))
	slow, verdict := s.token("slow"), make(chan error, 1)
	go func() {
		_, err := s.issuers.Verify(t.Context(), slow)
		verdict <- err
	}()
	waitUntil(t, func() bool { return s.requests.sent.Load() == 1 })
	s.realm("broken").Break(kctest.Status(http.StatusBadGateway))
	s.want(t, s.token("broken"), ReasonKeysUnavailable, "broken") // while the other is slow
	if n := s.released.Load(); n != 0 {
		t.Errorf("%d released, while one is in use and the other new", n)
	}
	close(gate)
	if err := <-verdict; err != nil {
		t.Errorf("slow: %v", err)
	}
	if n := s.released.Load(); n != 1 {
		t.Errorf("%d released, want the one that was pushed out", n)
	}
}

func TestOneSlowRealmDelaysNoOther(t *testing.T) {
	s := newTenants(t)
	s.realm("slow").Break(kctest.Hang())
	ctx, leave := context.WithCancel(t.Context())
	raw, left := s.token("slow"), make(chan error, 1)
	go func() {
		_, err := s.issuers.Verify(ctx, raw)
		left <- err
	}()
	waitUntil(t, func() bool { return s.requests.sent.Load() == 1 })
	s.want(t, s.token("t1"), "", "another")
	leave()
	if err := <-left; err != context.Canceled { //nolint:errorlint // exactly that is promised
		t.Errorf("got %v", err)
	}
}

func TestAfterCloseRealmsServeWhatTheyKnow(t *testing.T) {
	s := newTenants(t)
	known, unknown := s.token("known"), s.token("unknown")
	s.want(t, known, "", "before")
	s.realms.Close()
	s.realms.Close() // twice does no harm
	if n := s.released.Load(); n != 1 {
		t.Errorf("%d released, want 1", n)
	}
	s.want(t, known, "", "after")
	s.want(t, unknown, ReasonKeysUnavailable, "a realm that is not known")
	if n := s.released.Load(); n != 1 {
		t.Errorf("%d released, want 1", n)
	}
}

func TestNoKeysFromOutsideTheTemplate(t *testing.T) {
	other := kctest.Start(t).Realm("t1")
	other.SetDefaultAlgorithm("ES256")
	for name, fault := range map[string]func(s *tenants) (kctest.Fault, kctest.Endpoint){
		"discovery names another origin": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return names(s, other.JWKSURL()), kctest.Discovery
		},
		"discovery names another realm": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return names(s, s.elsewhere().JWKSURL()), kctest.Discovery
		},
		"discovery names a way up": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return names(s, s.server.URL()+"/realms/t1/../elsewhere/protocol/openid-connect/certs"), kctest.Discovery
		},
		"discovery names an escaped way up": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return names(s, s.server.URL()+"/realms/t1/%2e%2E/elsewhere/protocol/openid-connect/certs"), kctest.Discovery
		},
		"discovery names a realm whose name begins alike": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return names(s, s.realm("t10").JWKSURL()), kctest.Discovery
		},
		"discovery leads to another realm": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return kctest.Redirect(s.elsewhere().URL() + "/.well-known/openid-configuration"), kctest.Discovery
		},
		"the key set leads to another realm": func(s *tenants) (kctest.Fault, kctest.Endpoint) {
			return kctest.Redirect(s.elsewhere().JWKSURL()), kctest.Certs
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTenants(t)
			good := s.token("t1")
			s.realm("t1").Break(fault(s))
			s.want(t, good, ReasonKeysUnavailable, name)
			if n := s.elsewhere().Requests(kctest.Certs) + s.elsewhere().Requests(kctest.Discovery) +
				s.realm("t10").Requests(kctest.Certs) + other.Requests(kctest.Certs); n != 0 {
				t.Errorf("%d requests out of the realm", n)
			}
		})
	}
	t.Run("a redirect within the realm is followed", func(t *testing.T) {
		s := newTenants(t)
		s.realm("t1").Break(names(s, s.server.URL()+"/realms/t1/protocol/openid-connect/certs?x"), kctest.Discovery)
		s.want(t, s.token("t1"), "", "within")
	})
}

// names is discovery of t1 that names a key set.
func names(s *tenants, jwks string) kctest.Fault {
	return kctest.Body(`{"issuer":"` + s.realm("t1").Issuer() + `","jwks_uri":"` + jwks + `"}`)
}

func TestRealmsAreReachedByOtherAddresses(t *testing.T) {
	t.Run("a jwks url", func(t *testing.T) {
		s := newTenants(t, func(c *RealmsConfig) { c.JWKSURL = c.Issuer + "/protocol/openid-connect/certs" })
		s.want(t, s.token("t1"), "", "first")
		s.want(t, s.invented("nobody"), ReasonIssuer, "a realm that does not exist")
		if n := s.requests.sent.Load(); n != 2 {
			t.Errorf("%d requests, want one for each realm", n)
		}
	})
	t.Run("a back channel", func(t *testing.T) {
		s := newTenants(t, func(c *RealmsConfig) {
			c.BackchannelURL = c.Issuer
			c.Issuer = "https://login.example/realms/{tenant}" // not to be reached from here
		})
		s.realm("t1").SetIssuer("https://login.example/realms/t1")
		verified, reason := s.verify(t, s.token("t1"))
		if reason != "" || verified.Tenant != "t1" {
			t.Errorf("got %+v, %q", verified, reason)
		}
	})
}

func TestKeySetsOfRealmsHaveToBeTheirs(t *testing.T) {
	for name, change := range map[string]func(*KeySetConfig){
		"another issuer": func(c *KeySetConfig) { c.Issuer += "2" },
		"not confined":   func(c *KeySetConfig) { c.Confined = false },
		"a jwks url":     func(c *KeySetConfig) { c.JWKSURL = "https://other.test/certs" },
		"a back channel": func(c *KeySetConfig) { c.BackchannelURL = "https://other.test/realms/t1" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTenants(t, func(c *RealmsConfig) {
				genuine := c.Keys
				c.Keys = func(tenant string, addresses KeySetConfig) (*KeySet, func(), error) {
					change(&addresses)
					return genuine(tenant, addresses)
				}
			})
			s.want(t, s.token("t1"), ReasonKeysUnavailable, name)
			if opened, released := s.opened.Load(), s.released.Load(); opened != 1 || released != 1 {
				t.Errorf("%d opened, %d released", opened, released)
			}
			if n := s.requests.sent.Load(); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("an error", func(t *testing.T) {
		broken := errors.New("no certificate")
		s := newTenants(t, func(c *RealmsConfig) {
			c.Keys = func(string, KeySetConfig) (*KeySet, func(), error) { return nil, nil, broken }
		})
		_, err := s.issuers.Verify(t.Context(), s.token("t1"))
		if ReasonOf(err) != ReasonKeysUnavailable || !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRealmsConfigIsChecked(t *testing.T) {
	const issuer = "https://kc.test/realms/{tenant}"
	for name, cfg := range map[string]RealmsConfig{
		"no issuer":                  {},
		"an issuer without tenant":   {Issuer: "https://kc.test/realms/acme"},
		"a jwks url without one":     {Issuer: issuer, JWKSURL: "https://kc.test/realms/acme/certs"},
		"a back channel without one": {Issuer: issuer, BackchannelURL: "http://kc:8080/realms/acme"},
		"both":                       {Issuer: issuer, JWKSURL: issuer, BackchannelURL: issuer},
		"a negative limit":           {Issuer: issuer, MaxProven: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewRealms(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

// Everything at once, for the race detector.
func TestRealmsInACrowd(t *testing.T) {
	s := newTenants(t, func(c *RealmsConfig) { c.MaxProven, c.MaxUnproven, c.FetchBurst = 4, 2, 1000 })
	raws := make([]string, 12)
	for i := range raws {
		if raws[i] = s.token(fmt.Sprint("t", i)); i%3 == 0 {
			raws[i] = s.invented(fmt.Sprint("x", i))
		}
	}
	var crowd sync.WaitGroup
	for i := range 16 {
		crowd.Go(func() {
			for j := range 100 {
				k := (i*7 + j) % len(raws)
				verified, err := s.issuers.Verify(t.Context(), raws[k])
				if err == nil && (k%3 == 0 || verified.Tenant != fmt.Sprint("t", k)) {
					t.Errorf("%d was accepted as of %q", k, verified.Tenant)
				}
			}
		})
	}
	crowd.Wait()
	s.realms.Close()
	if opened, released := s.opened.Load(), s.released.Load(); opened != released {
		t.Errorf("%d opened, %d released", opened, released)
	}
	s.realms.mu.RLock()
	defer s.realms.mu.RUnlock()
	proven := 0
	for _, r := range s.realms.byTenant {
		if r.proven.Load() {
			proven++
		}
	}
	if proven != s.realms.proven || proven > 4 || len(s.realms.byTenant)-proven > 2 {
		t.Errorf("%d realms, of which %d are proven and %d counted so", len(s.realms.byTenant), proven, s.realms.proven)
	}
}
