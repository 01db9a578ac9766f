package assertion

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// clock is one that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_767_225_600, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newSigner(tb testing.TB, change func(*Config)) *Signer {
	tb.Helper()
	cfg := Config{
		Keys:   []*Key{mustParse(tb, pkcs8(tb, newEd25519(tb)))},
		Issuer: "https://shop.example.com", Audience: []string{"shop"},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func claimsAt(now time.Time) Claims {
	return Claims{
		Subject: "8d0c", Tenant: "acme", MemberID: "4711", Roles: []string{"editor", "viewer"},
		TokenEnd: now.Add(time.Hour), MemberEnd: now.Add(time.Hour),
	}
}

// open verifies an assertion with nothing but the published key set.
func open(tb testing.TB, s *Signer, text string) (jose.Header, map[string]any) {
	tb.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.KeySet(), &set); err != nil {
		tb.Fatal(err)
	}
	parsed, err := jose.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256})
	if err != nil {
		tb.Fatal(err)
	}
	header := parsed.Signatures[0].Header
	keys := set.Key(header.KeyID)
	if len(keys) != 1 || keys[0].Algorithm != header.Algorithm {
		tb.Fatalf("%d published keys have kid %q", len(keys), header.KeyID)
	}
	payload, err := parsed.Verify(keys[0])
	if err != nil {
		tb.Fatal(err)
	}
	claims := map[string]any{}
	if err := json.Unmarshal(payload, &claims); err != nil {
		tb.Fatal(err)
	}
	return header, claims
}

func sign(tb testing.TB, s *Signer, c Claims) string {
	tb.Helper()
	text, _, err := s.Sign(c)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestAnAssertionSaysWhatIsDocumented(t *testing.T) {
	time0 := newClock()
	ed, p256 := mustParse(t, pkcs8(t, newEd25519(t))), mustParse(t, pkcs8(t, newECDSA(t, elliptic.P256())))
	for name, test := range map[string]struct {
		key      *Key
		audience []string
		roles    []string
		aud      any
		inToken  []any
	}{
		"EdDSA":             {ed, []string{"shop"}, []string{"editor", "<ü\u2028>"}, "shop", []any{"editor", "<ü\u2028>"}},
		"ES256":             {p256, []string{"shop"}, []string{"editor"}, "shop", []any{"editor"}},
		"several audiences": {ed, []string{"shop", "mail"}, nil, []any{"shop", "mail"}, []any{}},
		"no roles":          {ed, []string{"shop"}, []string{}, "shop", []any{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, func(c *Config) {
				c.Keys, c.Audience, c.Now = []*Key{test.key}, test.audience, time0.Now
			})
			c := claimsAt(time0.Now())
			c.Roles = test.roles
			header, claims := open(t, s, sign(t, s, c))
			if header.KeyID != test.key.ID() || header.Algorithm != test.key.Algorithm() ||
				header.ExtraHeaders[jose.HeaderType] != MediaType || len(header.ExtraHeaders) != 1 {
				t.Errorf("header %+v", header)
			}
			want := map[string]any{
				"iss": "https://shop.example.com", "aud": test.aud, "sub": "8d0c", "tenant": "acme", "member_id": "4711",
				"roles": test.inToken, "iat": 1_767_225_600.0, "exp": 1_767_225_660.0,
			}
			if !reflect.DeepEqual(claims, want) {
				t.Errorf("claims %v, want %v", claims, want)
			}
		})
	}
}

func TestAnAssertionOutlivesNeitherTokenNorEntry(t *testing.T) {
	for name, test := range map[string]struct {
		token, member time.Duration
		want          time.Duration
	}{
		"both are good for longer":       {time.Hour, time.Hour, time.Minute},
		"the token ends first":           {20 * time.Second, 40 * time.Second, 20 * time.Second},
		"the entry ends first":           {40 * time.Second, 20 * time.Second, 20 * time.Second},
		"it ends within the second":      {time.Hour, 20*time.Second + 999*time.Millisecond, 20 * time.Second},
		"the token is over, with leeway": {-5 * time.Second, time.Hour, -5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			s := newSigner(t, func(cfg *Config) { cfg.Now = c.Now })
			claims := claimsAt(c.Now())
			claims.TokenEnd, claims.MemberEnd = c.Now().Add(test.token), c.Now().Add(test.member)
			_, got := open(t, s, sign(t, s, claims))
			if want := float64(c.Now().Add(test.want).Unix()); got["exp"] != want {
				t.Errorf("exp %v, want %v", got["exp"], want)
			}
		})
	}
}

func TestAnAssertionIsUsedUntilAQuarterOfItsTimeIsLeft(t *testing.T) {
	c := newClock()
	s := newSigner(t, func(cfg *Config) { cfg.Now = c.Now })
	claims := claimsAt(c.Now())
	first := sign(t, s, claims)
	c.add(45 * time.Second)
	if sign(t, s, claims) != first {
		t.Error("made anew though a quarter is left")
	}
	c.add(time.Second)
	if sign(t, s, claims) == first {
		t.Error("used though less than a quarter is left")
	}
	if got := s.Stats(); got.Signed != 2 || got.Reused != 1 {
		t.Errorf("stats %+v", got)
	}
}

// Else each request in the last seconds of a token would cost a signature.
func TestAnAssertionThatCouldNotBeLongerIsUsedToItsEnd(t *testing.T) {
	c := newClock()
	s := newSigner(t, func(cfg *Config) { cfg.Now = c.Now })
	claims := claimsAt(c.Now())
	claims.TokenEnd = c.Now().Add(5*time.Second + time.Millisecond)
	first := sign(t, s, claims)
	c.add(4 * time.Second)
	if sign(t, s, claims) != first {
		t.Error("made anew though it is as long as it can be")
	}
}

// What counts is exp, which is in whole seconds.
func TestAnAssertionIsUsedForATokenThatEndsWhenItDoes(t *testing.T) {
	c := newClock()
	c.add(500 * time.Millisecond)
	s := newSigner(t, func(cfg *Config) { cfg.Now = c.Now })
	claims := claimsAt(c.Now())
	first := sign(t, s, claims)
	claims.TokenEnd = c.Now().Truncate(time.Second).Add(DefaultTTL)
	if sign(t, s, claims) != first {
		t.Error("made anew though it does not outlive the token")
	}
}

func TestAnAssertionIsNotUsedForAnyOther(t *testing.T) {
	c := newClock()
	for name, change := range map[string]func(*Claims){
		"another user":                    func(c *Claims) { c.Subject = "9e1d" },
		"another tenant":                  func(c *Claims) { c.Tenant = "globex" },
		"another member":                  func(c *Claims) { c.MemberID = "4712" },
		"another role":                    func(c *Claims) { c.Roles = []string{"editor", "admin"} },
		"a role less":                     func(c *Claims) { c.Roles = []string{"editor"} },
		"no role":                         func(c *Claims) { c.Roles = nil },
		"roles that join to the same":     func(c *Claims) { c.Roles = []string{"editorviewer"} },
		"names that join to the same":     func(c *Claims) { c.Tenant, c.MemberID = "acme4", "711" },
		"a token that ends earlier":       func(cl *Claims) { cl.TokenEnd = c.Now().Add(30 * time.Second) },
		"an entry that ends earlier":      func(cl *Claims) { cl.MemberEnd = c.Now().Add(30 * time.Second) },
		"a token that is over by a trice": func(cl *Claims) { cl.TokenEnd = c.Now().Add(DefaultTTL - 1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, func(cfg *Config) { cfg.Now = c.Now })
			first := sign(t, s, claimsAt(c.Now()))
			other := claimsAt(c.Now())
			change(&other)
			if sign(t, s, other) == first {
				t.Error("the assertion of another was used")
			}
		})
	}
}

func TestClaimsThatAreRefused(t *testing.T) {
	s := newSigner(t, nil)
	for name, test := range map[string]struct {
		change func(*Claims)
		want   error
	}{
		"no user":            {func(c *Claims) { c.Subject = "" }, ErrClaims},
		"no tenant":          {func(c *Claims) { c.Tenant = "" }, ErrClaims},
		"no member":          {func(c *Claims) { c.MemberID = "" }, ErrClaims},
		"no end of token":    {func(c *Claims) { c.TokenEnd = time.Time{} }, ErrClaims},
		"no end of entry":    {func(c *Claims) { c.MemberEnd = time.Time{} }, ErrClaims},
		"an id not UTF-8":    {func(c *Claims) { c.MemberID = "4711\xff" }, ErrClaims},
		"a role not UTF-8":   {func(c *Claims) { c.Roles = []string{"editor\xff"} }, ErrClaims},
		"more than fits":     {func(c *Claims) { c.Roles = []string{strings.Repeat("x", MaxSize*3/4)} }, ErrTooLarge},
		"a great many roles": {func(c *Claims) { c.Roles = strings.Split(strings.Repeat("x,", MaxSize), ",") }, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			c := claimsAt(time.Now())
			test.change(&c)
			if text, _, err := s.Sign(c); !errors.Is(err, test.want) || text != "" {
				t.Errorf("got %q, %v, want %v", text, err, test.want)
			}
		})
	}
	if got := s.Stats(); got.Entries != 0 || got.Signed != 0 {
		t.Errorf("something refused was remembered: %+v", got)
	}
}

func TestKeySetHoldsAllKeysAndNothingPrivate(t *testing.T) {
	ed, p256, old := newEd25519(t), newECDSA(t, elliptic.P256()), newEd25519(t)
	keys := []*Key{mustParse(t, pkcs8(t, ed)), mustParse(t, sec1(t, p256)), mustParse(t, pkix(t, old))}
	s := newSigner(t, func(c *Config) { c.Keys = keys })
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(s.KeySet(), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != len(keys) {
		t.Fatalf("%d keys: %s", len(set.Keys), s.KeySet())
	}
	for i, published := range set.Keys {
		want := "alg crv kid kty use x y"
		if keys[i].Algorithm() == "EdDSA" {
			want = "alg crv kid kty use x"
		}
		for name := range strings.FieldsSeq(want) {
			if published[name] == "" {
				t.Errorf("key %d lacks %s", i, name)
			}
		}
		if len(published) != len(strings.Fields(want)) || published["kid"] != keys[i].ID() ||
			published["alg"] != keys[i].Algorithm() || published["use"] != "sig" {
			t.Errorf("key %d: %v", i, published)
		}
	}
	scalar, err := p256.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{ed.Seed(), scalar, old.Seed()} {
		if bytes.Contains(s.KeySet(), []byte(base64.RawURLEncoding.EncodeToString(secret))) {
			t.Fatal("a private key is published")
		}
	}
}

// The assertions of before are good after the change, and the new ones before it, if the
// new key was published in time.
func TestKeysAreChangedWithoutRefusals(t *testing.T) {
	old, next := mustParse(t, pkcs8(t, newEd25519(t))), mustParse(t, pkcs8(t, newECDSA(t, elliptic.P256())))
	before := newSigner(t, func(c *Config) { c.Keys = []*Key{old, next} })
	after := newSigner(t, func(c *Config) { c.Keys = []*Key{next, old} })
	claims := claimsAt(time.Now())
	header, _ := open(t, after, sign(t, before, claims))
	if header.KeyID != old.ID() {
		t.Errorf("signed with %s, want the first key", header.KeyID)
	}
	if header, _ = open(t, before, sign(t, after, claims)); header.KeyID != next.ID() {
		t.Errorf("signed with %s, want the first key", header.KeyID)
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	ed := newEd25519(t)
	key, public := mustParse(t, pkcs8(t, ed)), mustParse(t, pkix(t, ed))
	for name, test := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"no key":                           {func(c *Config) { c.Keys = nil }, ErrConfig},
		"a nil key":                        {func(c *Config) { c.Keys = []*Key{nil} }, ErrConfig},
		"a key twice":                      {func(c *Config) { c.Keys = []*Key{key, public} }, ErrConfig},
		"a public key to sign with":        {func(c *Config) { c.Keys = []*Key{public} }, ErrKey},
		"another algorithm than the key's": {func(c *Config) { c.Algorithm = "ES256" }, ErrKey},
		"an algorithm nobody knows":        {func(c *Config) { c.Algorithm = "RS256" }, ErrConfig},
		"no issuer":                        {func(c *Config) { c.Issuer = "" }, ErrConfig},
		"an issuer not UTF-8":              {func(c *Config) { c.Issuer = "\xff" }, ErrConfig},
		"no audience":                      {func(c *Config) { c.Audience = nil }, ErrConfig},
		"an empty audience":                {func(c *Config) { c.Audience = []string{"shop", ""} }, ErrConfig},
		"an audience not UTF-8":            {func(c *Config) { c.Audience = []string{"\xff"} }, ErrConfig},
		"a ttl that is too short":          {func(c *Config) { c.TTL = MinTTL - 1 }, ErrConfig},
		"a negative ttl":                   {func(c *Config) { c.TTL = -time.Second }, ErrConfig},
		"a ttl that is not short any more": {func(c *Config) { c.TTL = MaxTTL + 1 }, ErrConfig},
		"a cache of negative size":         {func(c *Config) { c.CacheBytes = -1 }, ErrConfig},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Keys: []*Key{key}, Algorithm: "EdDSA", Issuer: "https://shop.example.com", Audience: []string{"shop"}}
			test.change(&cfg)
			if s, err := New(cfg); !errors.Is(err, test.want) {
				if s != nil {
					s.Close()
				}
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestAPublicKeyInFrontIsNamedAsTheMistake(t *testing.T) {
	key := mustParse(t, pkix(t, newEd25519(t)))
	_, err := New(Config{Keys: []*Key{key}, Issuer: "https://shop.example.com", Audience: []string{"shop"}})
	if err == nil || !strings.Contains(err.Error(), "public") {
		t.Errorf("got %v", err)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	const size = 64 << 10
	s := newSigner(t, func(c *Config) { c.CacheBytes = size })
	claims := claimsAt(time.Now())
	for i := range 1000 {
		claims.Subject = fmt.Sprint(i)
		sign(t, s, claims)
	}
	s.made.entries.CleanUp()
	if got := s.Stats(); got.Bytes > size || got.Bytes == 0 || got.Entries >= 1000 || got.Entries == 0 {
		t.Errorf("stats %+v", got)
	}
}

func TestManyAtATime(t *testing.T) {
	s := newSigner(t, nil)
	now := time.Now()
	var wg sync.WaitGroup
	for user := range 8 {
		wg.Go(func() {
			c := claimsAt(now)
			c.Subject = fmt.Sprint(user % 4)
			for range 200 {
				text, _, err := s.Sign(c)
				if err != nil {
					t.Error(err)
					return
				}
				if _, claims := open(t, s, text); claims["sub"] != c.Subject {
					t.Errorf("%v got the assertion of %v", c.Subject, claims["sub"])
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAfterCloseItStillSigns(t *testing.T) {
	s := newSigner(t, nil)
	s.Close()
	open(t, s, sign(t, s, claimsAt(time.Now())))
}
