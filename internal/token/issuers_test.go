package token

import (
	"errors"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestATokenIsVerifiedByTheSettingsOfItsIssuer(t *testing.T) { // CL-015, AK-018
	s := newTenants(t)
	verifier := func(tenant string, change func(*Config)) *Verifier {
		realm := s.realm(tenant)
		keys, err := NewKeySet(KeySetConfig{Issuer: realm.Issuer(), Now: s.now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(keys.Close)
		cfg := Config{Issuer: realm.Issuer(), Keys: keys, Now: s.now}
		change(&cfg)
		v, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	template, err := NewForRealms(Config{Now: s.now, Audiences: []string{"api"}}, s.realms,
		func(tenant string) bool { return strings.HasPrefix(tenant, "t") })
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := NewIssuers(nil,
		verifier("acme", func(*Config) {}),
		template,
		verifier("t0", func(c *Config) { c.Algorithms = []string{"EdDSA"} }),
		verifier("small", func(c *Config) { c.MaxSize = 600 }))
	if err != nil {
		t.Fatal(err)
	}
	alice, api := kctest.User{ID: "alice"}, kctest.Claim("aud", "api")
	for name, test := range map[string]struct {
		raw    string
		index  int
		tenant string
		want   Reason
	}{
		"one issuer":                       {s.token("acme"), 0, "", ""},
		"a template":                       {s.realm("t1").AccessToken(alice, api), 1, "t1", ""},
		"the template's audience":          {s.token("t1"), 0, "", ReasonAudience},
		"one that is named is preferred":   {s.realm("t0").AccessToken(alice, kctest.Algorithm("EdDSA")), 2, "", ""},
		"its algorithms":                   {s.token("t0"), 0, "", ReasonAlgorithm},
		"another's algorithms are not its": {s.realm("acme").AccessToken(alice, kctest.Algorithm("EdDSA")), 0, "", ""},
		"its size":                         {s.token("small"), 0, "", ReasonTooLarge},
		"none of them":                     {s.token("else"), 0, "", ReasonIssuer},
		"one's key for another": {
			s.realm("acme").AccessToken(alice, kctest.Claim("iss", s.realm("t1").Issuer())), 0, "", ReasonUnknownKey,
		},
	} {
		t.Run(name, func(t *testing.T) {
			verified, err := issuers.Verify(t.Context(), test.raw)
			if ReasonOf(err) != test.want || (err == nil) != (test.want == "") {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if verified.Index != test.index || verified.Tenant != test.tenant {
				t.Errorf("issuer %d, tenant %q", verified.Index, verified.Tenant)
			}
		})
	}
}

func TestHintsAtTheIssuerThatIsMeant(t *testing.T) {
	s := newTenants(t)
	acme := newStage(t)
	v, err := NewForRealms(Config{Now: s.now}, s.realms, func(tenant string) bool { return tenant == "t1" })
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := NewIssuers(nil, acme.verifier, v)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		iss  any
		want []string
	}{
		"a tenant that is not allowed":    {s.server.URL() + "/realms/t2", []string{"/t2", "{tenant}", "none that is allowed"}},
		"the template under another name": {"https://sso.test/realms/t1", []string{"sso.test", s.server.URL(), "backchannel_url"}},
		"one under another name":          {"https://sso.test/realms/acme", []string{"sso.test", acme.realm.Issuer(), "backchannel_url"}},
		"one in other letters":            {strings.ToUpper(acme.realm.Issuer()), []string{acme.realm.Issuer(), "letter case"}},
		"something else":                  {"https://sso.test/x", []string{acme.realm.Issuer(), "{tenant}", "another realm or Keycloak"}},
		"no text":                         {1, []string{"no issuer"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.Verify(t.Context(), s.elsewhere().AccessToken(kctest.User{ID: "a"}, kctest.Claim("iss", test.iss)))
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Reason != ReasonIssuer {
				t.Fatalf("got %v", err)
			}
			for _, part := range test.want {
				if !strings.Contains(refusal.Hint, part) {
					t.Errorf("%q is not in %q", part, refusal.Hint)
				}
			}
		})
	}
}

func TestIssuersAreChecked(t *testing.T) {
	s := newStage(t)
	realms, err := NewRealms(RealmsConfig{Issuer: "https://kc.test/realms/{tenant}"})
	if err != nil {
		t.Fatal(err)
	}
	everybody := func(string) bool { return true }
	template, err := NewForRealms(Config{}, realms, everybody)
	if err != nil {
		t.Fatal(err)
	}
	for name, all := range map[string][]Issuer{
		"none":           {},
		"one twice":      {s.verifier, s.verifier},
		"templates, too": {template, s.verifier, template},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewIssuers(nil, all...); err == nil {
				t.Error("no error")
			}
		})
	}
	for name, build := range map[string]func() (*RealmsVerifier, error){
		"an issuer":          func() (*RealmsVerifier, error) { return NewForRealms(Config{Issuer: "x"}, realms, everybody) },
		"keys":               func() (*RealmsVerifier, error) { return NewForRealms(Config{Keys: s.keys}, realms, everybody) },
		"no realms":          func() (*RealmsVerifier, error) { return NewForRealms(Config{}, nil, everybody) },
		"nobody to be asked": func() (*RealmsVerifier, error) { return NewForRealms(Config{}, realms, nil) },
		"HMAC": func() (*RealmsVerifier, error) {
			return NewForRealms(Config{Algorithms: []string{"HS256"}}, realms, everybody)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := build(); err == nil {
				t.Error("no error")
			}
		})
	}
}
