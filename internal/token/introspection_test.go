package token

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// asked is an issuer that can be asked about tokens.
type asked struct {
	calls  atomic.Int64
	mu     sync.Mutex
	answer func(ctx context.Context, raw string) ([]byte, error)
}

func (a *asked) Introspect(ctx context.Context, raw string) ([]byte, error) {
	a.calls.Add(1)
	a.mu.Lock()
	answer := a.answer
	a.mu.Unlock()
	return answer(ctx, raw)
}

func (a *asked) set(answer func(ctx context.Context, raw string) ([]byte, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// says answers every question with these claims.
func (a *asked) says(claims map[string]any) {
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	a.saysText(string(text))
}

func (a *asked) saysText(text string) {
	a.set(func(context.Context, string) ([]byte, error) { return []byte(text), nil })
}

func (a *asked) fails(err error) {
	a.set(func(context.Context, string) ([]byte, error) { return nil, err })
}

// introspected is a realm that can be asked about its tokens.
type introspected struct {
	*seenStage
	asked         *asked
	introspection *Introspection
	claims        map[string]any // what it says, at first
	light         string         // a lightweight token that these claims are of
}

func newIntrospected(t *testing.T, adapt ...func(*Config)) *introspected {
	t.Helper()
	s := &introspected{asked: new(asked)}
	s.seenStage = newSeenStage(t, func(k *KeySetConfig, c *Config) {
		s.introspection = introspectionOf(t, IntrospectionConfig{Issuer: k.Issuer, Introspector: s.asked, Now: k.Now})
		c.Introspection = s.introspection
		c.Audiences = []string{"api"}
		for _, change := range adapt {
			change(c)
		}
	})
	now := s.now()
	s.claims = map[string]any{
		"active": true, "iss": s.realm.Issuer(), "sub": s.alice.ID, "aud": "api", "typ": "Bearer", "token_type": "Bearer",
		"azp": "app", "jti": "onltro:1", "sid": "a-session", "iat": now.Unix(), "exp": now.Add(20 * time.Hour).Unix(),
		"preferred_username": "alice", "scope": "openid email", "client_id": "app", "username": "alice",
	}
	s.light = s.lightweight()
	s.asked.says(s.claims)
	return s
}

func introspectionOf(t *testing.T, cfg IntrospectionConfig) *Introspection {
	t.Helper()
	in, err := NewIntrospection(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in
}

// lightweight returns a token as Keycloak makes it for clients that are set so.
func (s *introspected) lightweight(options ...kctest.Option) string {
	return s.realm.AccessToken(s.alice, append([]kctest.Option{
		kctest.Without("sub", "aud", "acr", "realm_access", "resource_access", "allowed-origins", "email_verified", "preferred_username"),
		kctest.Claim("jti", "onltro:1"), kctest.Claim("sid", "a-session"),
	}, options...)...)
}

// changed are the claims with some changed, or dropped (drop).
func (s *introspected) changed(changes map[string]any) map[string]any {
	claims := maps.Clone(s.claims)
	for name, value := range changes {
		if value == drop {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

// drop is a value that stands for none.
const drop = "(none)"

func TestALightweightTokenIsAskedAbout(t *testing.T) {
	s := newIntrospected(t)
	tok := wantVerified(t, s.issuers, s.light, "", false, "first")
	if tok.Subject != s.alice.ID || tok.Username != "alice" || tok.Audience[0] != "api" || !tok.Introspected() ||
		tok.Algorithm != "ES256" || tok.KeyID == "" || tok.SessionID != "a-session" || !tok.IssuedAt.Equal(s.now()) {
		t.Errorf("got %+v", tok)
	}
	if claim, _ := tok.Claim("username"); claim != "alice" {
		t.Errorf("the claims are not those of the answer: %v", claim)
	}
	if again := wantVerified(t, s.issuers, s.light, "", true, "second"); again != tok {
		t.Error("another token the second time")
	}
	if n := s.asked.calls.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if s.seen.get(s.seen.digest(s.light)) != nil {
		t.Error("it is in the memory that all handlers share")
	}
	// One that says enough by itself is not asked about.
	whole := s.realm.AccessToken(s.alice, kctest.Claim("aud", "api"))
	if tok := wantVerified(t, s.issuers, whole, "", false, "a whole one"); tok.Introspected() {
		t.Error("a whole token was asked about")
	}
	if n := s.asked.calls.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestATokenWithoutAudienceIsAskedAboutOnlyWhereThatMatters(t *testing.T) {
	raw := func(s *introspected) string {
		return s.realm.AccessToken(s.alice, kctest.Without("aud"), kctest.Claim("jti", "onltro:1"), kctest.Claim("sid", "a-session"))
	}
	t.Run("no audience is wanted", func(t *testing.T) {
		s := newIntrospected(t, func(c *Config) { c.Audiences = nil })
		wantVerified(t, s.issuers, raw(s), "", false, "first")
		if n := s.asked.calls.Load(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("one is wanted, and another handler has seen the token", func(t *testing.T) {
		s := newIntrospected(t)
		v, err := New(Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now})
		if err != nil {
			t.Fatal(err)
		}
		content, err := NewIssuers(s.seen, v)
		if err != nil {
			t.Fatal(err)
		}
		token := raw(s)
		wantVerified(t, content, token, "", false, "there, first")
		if tok := wantVerified(t, s.issuers, token, "", false, "here, first"); !tok.Introspected() {
			t.Error("it was not asked about")
		}
		wantVerified(t, s.issuers, token, "", true, "here, second")
		if tok := wantVerified(t, content, token, "", true, "there, second"); tok.Introspected() {
			t.Error("there, the answer was taken over")
		}
	})
}

// What is wrong with a token without asking is not asked about.
func TestATokenThatFailsByItselfIsNeverAskedAbout(t *testing.T) {
	s := newIntrospected(t)
	now := s.now().Unix()
	bad := s.light[:len(s.light)-8] + "AAAAAAAA"
	for name, test := range map[string]struct {
		raw  string
		want Reason
	}{
		"a bad signature":       {bad, ReasonSignature},
		"another's key":         {s.lightweight(kctest.SignedBy(kctest.NewKey("EdDSA"))), ReasonUnknownKey},
		"alg none":              {s.lightweight(kctest.Header("alg", "none")), ReasonAlgorithm},
		"expired":               {s.lightweight(kctest.Claim("exp", now)), ReasonExpired},
		"not yet valid":         {s.lightweight(kctest.Claim("nbf", now+60)), ReasonNotYetValid},
		"issued later":          {s.lightweight(kctest.Claim("iat", now+60)), ReasonIssuedInFuture},
		"long-lived":            {s.lightweight(kctest.Claim("exp", now+25*3600)), ReasonLifetime},
		"no iat":                {s.lightweight(kctest.Without("iat")), ReasonMissingClaim},
		"bound":                 {s.lightweight(kctest.Claim("cnf", map[string]any{"jkt": thumbprintOne})), ReasonBound},
		"of another issuer":     {s.lightweight(kctest.Claim("iss", "https://other.test/realms/x")), ReasonIssuer},
		"CL-010 sub is null":    {s.lightweight(kctest.Claim("sub", nil)), ReasonMissingClaim},
		"CL-010 sub is empty":   {s.lightweight(kctest.Claim("sub", "")), ReasonMissingClaim},
		"aud is null":           {s.realm.AccessToken(s.alice, kctest.Claim("aud", nil)), ReasonAudience},
		"KC-019 an ID token":    {s.realm.IDToken(s.alice, kctest.Without("sub", "aud")), ReasonTokenType},
		"KC-019 refresh":        {s.realm.RefreshToken(s.alice), ReasonAlgorithm},
		"a dot too many":        {s.light + ".", ReasonMalformed},
		"a part too few":        {s.light[:strings.LastIndexByte(s.light, '.')], ReasonMalformed},
		"JS-012 a JWE":          {"e30.e30.e30.e30.e30", ReasonMalformed},
		"padded":                {s.light + "==", ReasonMalformed},
		"a letter no token has": {"opaque,token", ReasonCharacters},
		"JSON":                  {`{"a":1}`, ReasonCharacters},
		"nothing":               {"", ReasonCharacters},
		"only padding":          {"==", ReasonCharacters},
		"padding in between":    {"a=b", ReasonCharacters},
		"too large":             {strings.Repeat("x", 16<<10+1), ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) { wantVerified(t, s.issuers, test.raw, test.want, false, name) })
	}
	if n := s.asked.calls.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

func TestAnOpaqueTokenIsAskedAboutOfTheOneIssuerThatCanBeAsked(t *testing.T) {
	s := newIntrospected(t)
	tok := wantVerified(t, s.issuers, "opaque", "", false, "first")
	if tok.Algorithm != "" || tok.KeyID != "" || tok.Subject != s.alice.ID {
		t.Errorf("got %+v", tok)
	}
	wantVerified(t, s.issuers, "opaque", "", true, "second")
	if n := s.asked.calls.Load() + int64(s.realm.Requests(kctest.Certs)); n != 1 {
		t.Errorf("asked %d times", n)
	}
	plain := newStage(t)
	other := newIntrospected(t)
	for name, test := range map[string]struct {
		all   []Issuer
		want  Reason
		index int
	}{
		"none can be asked":   {[]Issuer{plain.verifier}, ReasonMalformed, 0},
		"one of two can":      {[]Issuer{plain.verifier, s.verifier}, "", 1},
		"two can":             {[]Issuer{other.verifier, s.verifier}, ReasonMalformed, 0},
		"alone by a verifier": {nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if test.all == nil {
				tok, err := s.verifier.Verify(t.Context(), "another-opaque")
				if err != nil || tok.Subject != s.alice.ID {
					t.Errorf("got %v", err)
				}
				if _, err := plain.verifier.Verify(t.Context(), "another-opaque"); ReasonOf(err) != ReasonMalformed {
					t.Errorf("got %v", err)
				}
				if err := plain.verifier.Check(t.Context(), tok); err == nil {
					t.Error("another verifier takes it")
				}
				return
			}
			issuers, err := NewIssuers(s.seen, test.all...)
			if err != nil {
				t.Fatal(err)
			}
			verified, err := issuers.Verify(t.Context(), "a-new-opaque-token")
			if ReasonOf(err) != test.want || (err == nil) != (test.want == "") || verified.Index != test.index {
				t.Errorf("got %+v, %v", verified, err)
			}
		})
	}
}

// CL-025, KC-017: what is remembered are facts; each request is judged anew, and by
// those alone who asked the same endpoint.
func testAnswersAreJudgedOnEachRequest(t *testing.T) {
	s := newIntrospected(t)
	wantVerified(t, s.issuers, s.light, "", false, "first")
	wantVerified(t, s.issuers, "opaque", "", false, "first")
	elsewhere := introspectionOf(t, IntrospectionConfig{Issuer: s.realm.Issuer(), Introspector: s.asked, Now: s.now})
	for name, test := range map[string]struct {
		change func(*Config)
		want   Reason
		calls  int64
	}{
		"the same":            {func(*Config) {}, "", 0},
		"another audience":    {func(c *Config) { c.Audiences = []string{"other"} }, ReasonAudience, 0},
		"an azp":              {func(c *Config) { c.AuthorizedParties = []string{"other"} }, ReasonAuthorizedParty, 0},
		"a short life":        {func(c *Config) { c.MaxLifetime = time.Hour }, ReasonLifetime, 0},
		"KC-017 another one":  {func(c *Config) { c.Introspection = elsewhere }, "", 2},
		"no introspection":    {func(c *Config) { c.Introspection = nil }, ReasonMalformed, 0},
		"a later hour by far": {func(c *Config) { c.Now = func() time.Time { return s.now().Add(21 * time.Hour) } }, ReasonExpired, 0},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now, Audiences: []string{"api"}, Introspection: s.introspection}
			test.change(&cfg)
			v, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			issuers, err := NewIssuers(s.seen, v)
			if err != nil {
				t.Fatal(err)
			}
			before := s.asked.calls.Load()
			for raw, want := range map[string]Reason{s.light: test.want, "opaque": test.want} {
				if want == ReasonMalformed && raw == s.light {
					want = ReasonMissingClaim
				}
				wantVerified(t, issuers, raw, want, want == "" && test.calls == 0, name)
			}
			if n := s.asked.calls.Load() - before; n != test.calls {
				t.Errorf("asked %d times, want %d", n, test.calls)
			}
		})
	}
}

func TestTheKeyOfALightweightTokenHasToBeTrustedStill(t *testing.T) {
	s := newIntrospected(t)
	light := wantVerified(t, s.issuers, s.light, "", false, "first")
	opaque := wantVerified(t, s.issuers, "opaque", "", false, "first")
	check := func(v *Verifier, tok *Token, want Reason, what string) {
		t.Helper()
		if err := v.Check(t.Context(), tok); ReasonOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	plain, err := New(Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	check(plain, light, ReasonMissingClaim, "one that was not asked about here")
	check(plain, opaque, ReasonMissingClaim, "likewise")
	s.realm.Disable(s.realm.ActiveKey("ES256"))
	s.realm.Rotate("ES256")
	s.advance(50 * time.Second)
	wantVerified(t, s.issuers, s.light, "", true, "keys still young")
	s.advance(5 * time.Minute)
	wantVerified(t, s.issuers, s.light, ReasonUnknownKey, false, "withdrawn")
	wantVerified(t, s.issuers, "opaque", "", false, "opaque ones have no key")
	check(s.verifier, light, ReasonUnknownKey, "withdrawn, though the answer was remembered")
	check(s.verifier, opaque, "", "opaque ones have no key")
	narrow, err := New(Config{
		Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now, Audiences: []string{"api"}, Algorithms: []string{"EdDSA"},
		Introspection: s.introspection,
	})
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := NewIssuers(s.seen, narrow)
	if err != nil {
		t.Fatal(err)
	}
	wantVerified(t, issuers, s.light, ReasonAlgorithm, false, "an algorithm that is not allowed here")
	wantVerified(t, issuers, "opaque", "", true, "opaque ones have no algorithm")
	check(narrow, light, ReasonAlgorithm, "an algorithm that is not allowed here, though the answer was remembered")
}

func TestIntrospectionIsChecked(t *testing.T) {
	good := IntrospectionConfig{Issuer: "https://kc.test/realms/acme", Introspector: new(asked)}
	for name, change := range map[string]func(*IntrospectionConfig){
		"no issuer":          func(c *IntrospectionConfig) { c.Issuer = "" },
		"nobody asks":        func(c *IntrospectionConfig) { c.Introspector = nil },
		"a negative life":    func(c *IntrospectionConfig) { c.Life = -1 },
		"a negative timeout": func(c *IntrospectionConfig) { c.Timeout = -1 },
		"negative memory":    func(c *IntrospectionConfig) { c.MaxBytes = -1 },
		"a negative burst":   func(c *IntrospectionConfig) { c.UnprovenBurst = -1 },
		"a negative rate":    func(c *IntrospectionConfig) { c.UnprovenPerSecond = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			if _, err := NewIntrospection(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
	in := introspectionOf(t, good)
	if _, err := New(Config{Issuer: "https://other.test/realms/x", Keys: otherKeys(t), Introspection: in}); err == nil {
		t.Error("one issuer's is taken for another's")
	}
	realms, err := NewRealms(RealmsConfig{Issuer: "https://kc.test/realms/{tenant}"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewForRealms(Config{Introspection: in}, realms, func(string) bool { return true })
	if err == nil || !strings.Contains(err.Error(), "one by one") {
		t.Errorf("for realms: %v", err)
	}
}

// The issuer may be down, and still nobody waits for it or is refused as bad.
func testAnIssuerThatIsDownIsNotTheTokensFault(t *testing.T) {
	s := newIntrospected(t)
	s.realm.Break(kctest.Status(http.StatusBadGateway))
	s.asked.fails(errors.New("down"))
	wantVerified(t, s.issuers, s.light, ReasonKeysUnavailable, false, "no keys")
	wantVerified(t, s.issuers, "opaque", ReasonIntrospection, false, "no answer")
}
