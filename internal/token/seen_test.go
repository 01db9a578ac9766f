package token

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// seenStage is a realm whose tokens are remembered.
type seenStage struct {
	*stage
	seen    *Seen
	issuers *Issuers
}

func newSeenStage(t *testing.T, adapt ...func(*KeySetConfig, *Config)) *seenStage {
	t.Helper()
	s := &seenStage{stage: newStage(t, adapt...)}
	s.seen = seenOf(t, SeenConfig{Now: s.now})
	var err error
	if s.issuers, err = NewIssuers(s.seen, s.verifier); err != nil {
		t.Fatal(err)
	}
	return s
}

func seenOf(t testing.TB, cfg SeenConfig) *Seen {
	t.Helper()
	seen, err := NewSeen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(seen.Close)
	return seen
}

// want verifies a token with issuers, and tells whether it was remembered.
func wantVerified(t *testing.T, issuers *Issuers, raw string, want Reason, seen bool, when string) *Token {
	t.Helper()
	verified, err := issuers.Verify(t.Context(), raw)
	if ReasonOf(err) != want || (err == nil) != (want == "") {
		t.Fatalf("%s: got %v, want %q", when, err, want)
	}
	if verified.Seen != seen {
		t.Fatalf("%s: seen is %t", when, verified.Seen)
	}
	return verified.Token
}

func TestASeenTokenIsNotVerifiedAgain(t *testing.T) {
	s := newSeenStage(t)
	raw := s.realm.AccessToken(s.alice)
	first := wantVerified(t, s.issuers, raw, "", false, "first")
	if again := wantVerified(t, s.issuers, raw, "", true, "second"); again != first {
		t.Error("it was read again")
	}
	wantVerified(t, s.issuers, s.realm.AccessToken(s.alice), "", false, "another of the same user")
	s.seen.tokens.CleanUp() // sizes follow behind
	if tokens, bytes := s.seen.Size(); tokens != 2 || bytes < 2000 {
		t.Errorf("%d tokens, %d bytes", tokens, bytes)
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	s := newSeenStage(t, func(_ *KeySetConfig, c *Config) { c.Audiences = []string{"account"} })
	good := s.realm.AccessToken(s.alice)
	wantVerified(t, s.issuers, good, "", false, "good")
	for i := range 100 {
		wantVerified(t, s.issuers, good[:len(good)-9]+fmt.Sprintf("%04dAAAAA", i), ReasonSignature, false, "bad signature")
		wantVerified(t, s.issuers, s.realm.AccessToken(s.alice, kctest.Claim("aud", "x")), ReasonAudience, false, "audience")
	}
	s.seen.tokens.CleanUp()
	if tokens, _ := s.seen.Size(); tokens != 1 {
		t.Errorf("%d tokens are remembered", tokens)
	}
	wantVerified(t, s.issuers, good, "", true, "good")
}

func testASeenTokenIsCheckedOnEachRequest(t *testing.T) {
	t.Run("its end", func(t *testing.T) {
		s := newSeenStage(t, func(_ *KeySetConfig, c *Config) { c.Leeway = 10 * time.Second })
		s.realm.SetLifespan(5 * time.Minute)
		raw := s.realm.AccessToken(s.alice)
		wantVerified(t, s.issuers, raw, "", false, "first")
		s.advance(5*time.Minute - time.Second)
		wantVerified(t, s.issuers, raw, "", true, "a second before its end")
		s.advance(time.Second)
		wantVerified(t, s.issuers, raw, "", false, "at its end, within the leeway")
		wantVerified(t, s.issuers, raw, "", false, "it does not enter again")
		s.advance(10 * time.Second)
		wantVerified(t, s.issuers, raw, ReasonExpired, false, "after the leeway")
	})
	t.Run("the clock set back", func(t *testing.T) {
		s := newSeenStage(t)
		raw := s.realm.AccessToken(s.alice)
		wantVerified(t, s.issuers, raw, "", false, "first")
		s.advance(-time.Hour)
		wantVerified(t, s.issuers, raw, ReasonIssuedInFuture, false, "an hour before it was made")
	})
	t.Run("its key withdrawn", func(t *testing.T) { // KC-011
		s := newSeenStage(t)
		raw := s.realm.AccessToken(s.alice)
		wantVerified(t, s.issuers, raw, "", false, "first")
		s.realm.Disable(s.realm.ActiveKey("ES256"))
		s.realm.Rotate("ES256")
		s.advance(time.Hour)
		wantVerified(t, s.issuers, raw, ReasonUnknownKey, false, "an hour later")
		s.seen.tokens.CleanUp()
		if tokens, _ := s.seen.Size(); tokens != 0 {
			t.Error("it is still remembered")
		}
	})
	t.Run("its key unavailable", func(t *testing.T) { // KC-002
		s := newSeenStage(t, func(k *KeySetConfig, _ *Config) { k.MaxStale = time.Hour })
		raw := s.realm.AccessToken(s.alice)
		wantVerified(t, s.issuers, raw, "", false, "first")
		s.server.Stop()
		s.advance(time.Hour)
		wantVerified(t, s.issuers, raw, "", true, "while known keys serve")
		s.advance(time.Second)
		wantVerified(t, s.issuers, raw, ReasonKeysUnavailable, false, "afterwards")
	})
}

// What one handler has seen is no verdict for another.
func testHandlersThatShareWhatTheySawJudgeForThemselves(t *testing.T) {
	s := newSeenStage(t, func(_ *KeySetConfig, c *Config) { c.Leeway = time.Minute })
	raw := s.realm.AccessToken(s.alice)
	wantVerified(t, s.issuers, raw, "", false, "first")
	for name, test := range map[string]struct {
		change func(*Config)
		want   Reason
	}{
		"as lenient":         {func(*Config) {}, ""},
		"an audience":        {func(c *Config) { c.Audiences = []string{"api"} }, ReasonAudience},
		"another client":     {func(c *Config) { c.AuthorizedParties = []string{"shop"} }, ReasonAuthorizedParty},
		"other algorithms":   {func(c *Config) { c.Algorithms = []string{"RS256"} }, ReasonAlgorithm},
		"a shorter lifetime": {func(c *Config) { c.MaxLifetime = time.Hour }, ReasonLifetime},
		"a smaller size":     {func(c *Config) { c.MaxSize = len(raw) - 1 }, ReasonTooLarge},
		"an earlier clock":   {func(c *Config) { c.Now = func() time.Time { return s.now().Add(-time.Minute) } }, ReasonIssuedInFuture},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Issuer: s.realm.Issuer(), Keys: s.keys, Now: s.now}
			test.change(&cfg)
			v, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			other, err := New(Config{Issuer: "https://other.test/realms/x", Keys: otherKeys(t), MaxSize: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			for kind, all := range map[string][]Issuer{"alone": {v}, "beside one that is wider": {other, v}} {
				issuers, err := NewIssuers(s.seen, all...)
				if err != nil {
					t.Fatal(err)
				}
				wantVerified(t, issuers, raw, test.want, test.want == "", kind)
			}
		})
	}
	t.Run("another issuer", func(t *testing.T) {
		v, err := New(Config{Issuer: "https://other.test/realms/x", Keys: otherKeys(t), Now: s.now})
		if err != nil {
			t.Fatal(err)
		}
		issuers, err := NewIssuers(s.seen, v)
		if err != nil {
			t.Fatal(err)
		}
		wantVerified(t, issuers, raw, ReasonIssuer, false, "another issuer")
	})
	wantVerified(t, s.issuers, raw, "", true, "the first, still")
}

func otherKeys(t *testing.T) *KeySet {
	t.Helper()
	keys, err := NewKeySet(KeySetConfig{Issuer: "https://other.test/realms/x"})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// An issuer of the same name whose keys come from elsewhere is another issuer.
func TestAnotherKeySetOfTheSameIssuerDoesNotTrustWhatWasSeen(t *testing.T) {
	s := newSeenStage(t)
	raw := s.realm.AccessToken(s.alice)
	wantVerified(t, s.issuers, raw, "", false, "first")
	elsewhere := kctest.Start(t).Realm("acme")
	elsewhere.SetDefaultAlgorithm("ES256")
	alike := kctest.Start(t).Realm("alike")
	text, err := json.Marshal(map[string]any{"keys": []any{kctest.NewKey("ES256").WithID(s.realm.ActiveKey("ES256").ID).JWK()}})
	if err != nil {
		t.Fatal(err)
	}
	alike.Break(kctest.Body(string(text)), kctest.Certs)
	for name, test := range map[string]struct {
		jwks string
		want Reason
		seen bool
	}{
		"another key of its id": {alike.JWKSURL(), ReasonSignature, false},
		"other keys":            {elsewhere.JWKSURL(), ReasonUnknownKey, false},
		"the same keys":         {s.realm.JWKSURL(), "", true},
		"no keys to be had":     {s.server.URL() + "/nowhere", ReasonKeysUnavailable, false},
		"other keys once again": {elsewhere.JWKSURL(), ReasonUnknownKey, false},
	} {
		t.Run(name, func(t *testing.T) {
			wantVerified(t, s.issuers, raw, "", s.seen.get(s.seen.digest(raw)) != nil, "here") // is seen now
			keys, err := NewKeySet(KeySetConfig{Issuer: s.realm.Issuer(), JWKSURL: test.jwks, Now: s.now})
			if err != nil {
				t.Fatal(err)
			}
			defer keys.Close()
			v, err := New(Config{Issuer: s.realm.Issuer(), Keys: keys, Now: s.now})
			if err != nil {
				t.Fatal(err)
			}
			issuers, err := NewIssuers(s.seen, v)
			if err != nil {
				t.Fatal(err)
			}
			wantVerified(t, issuers, raw, test.want, test.seen, "there")
		})
	}
}

// A key that the issuer describes otherwise than before is taken anew, not refused.
func TestASeenTokenWhoseKeyIsWrittenOtherwiseIsVerifiedAgain(t *testing.T) {
	s := newSeenStage(t, func(k *KeySetConfig, _ *Config) { k.Refresh = time.Minute })
	raw := s.realm.AccessToken(s.alice)
	wantVerified(t, s.issuers, raw, "", false, "first")
	jwk := s.realm.ActiveKey("ES256").JWK()
	delete(jwk, "alg")
	text, err := json.Marshal(map[string]any{"keys": []any{jwk}})
	if err != nil {
		t.Fatal(err)
	}
	s.realm.Break(kctest.Body(string(text)), kctest.Certs)
	s.advance(time.Hour)
	wantVerified(t, s.issuers, raw, "", false, "the same key without alg")
	wantVerified(t, s.issuers, raw, "", true, "and from then on")
}

func TestSeenTokensOfATemplate(t *testing.T) {
	s := newTenants(t)
	v, err := NewForRealms(Config{Now: s.now}, s.realms, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	seen := seenOf(t, SeenConfig{Now: s.now})
	issuers, err := NewIssuers(seen, v)
	if err != nil {
		t.Fatal(err)
	}
	raw := s.token("t1")
	wantVerified(t, issuers, raw, "", false, "first")
	verified, err := issuers.Verify(t.Context(), raw)
	if err != nil || !verified.Seen || verified.Tenant != "t1" {
		t.Errorf("got %+v, %v", verified, err)
	}
	strict, err := NewForRealms(Config{Now: s.now}, s.realms, func(tenant string) bool { return tenant == "t2" })
	if err != nil {
		t.Fatal(err)
	}
	narrow, err := NewIssuers(seen, strict)
	if err != nil {
		t.Fatal(err)
	}
	wantVerified(t, narrow, raw, ReasonIssuer, false, "where its tenant is not allowed")
}

func TestEachProcessHasItsOwnDigests(t *testing.T) {
	one, other := seenOf(t, SeenConfig{}), seenOf(t, SeenConfig{})
	a, b := one.digest("token"), other.digest("token")
	switch {
	case a == b:
		t.Error("two have the same")
	case a != one.digest("token"):
		t.Error("it changes")
	case a == one.digest("Token"):
		t.Error("two tokens have one")
	}
}

func TestTheDigestOfATokenMakesNoCopyOfIt(t *testing.T) {
	seen := seenOf(t, SeenConfig{})
	raw := strings.Repeat("x", 16<<10)
	before := allocated()
	for range 100 {
		seen.digest(raw)
	}
	// Not nothing: under the race detector, sync.Pool forgets now and then.
	if n := (allocated() - before) / 100; n > uint64(len(raw))/8 {
		t.Errorf("%d bytes each time", n)
	}
}

func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// The bound holds for the memory that is really taken, claims and all.
func TestWhatIsRememberedTakesNoMoreMemoryThanSaid(t *testing.T) {
	s := newStage(t)
	const most = 4 << 20
	many := make([]string, 0, 100)
	for i := range 100 {
		many = append(many, fmt.Sprintf("role-number-%d", i))
	}
	small := kctest.User{ID: "alice"}
	roles := kctest.User{ID: "alice", RealmRoles: many, Groups: many}
	clients := kctest.User{ID: "alice", ClientRoles: clientsWith("a", 60)}
	for name, test := range map[string]struct {
		user    kctest.User
		decoded bool
	}{
		"small tokens":          {small, false},
		"small tokens, decoded": {small, true},
		"many roles":            {roles, false},
		"many roles, decoded":   {roles, true},
		"many clients":          {clients, false},
		"many clients, decoded": {clients, true},
	} {
		t.Run(name, func(t *testing.T) {
			seen := seenOf(t, SeenConfig{MaxBytes: most, Now: s.now})
			issuers, err := NewIssuers(seen, s.verifier)
			if err != nil {
				t.Fatal(err)
			}
			before := heap()
			for range 600 {
				verified, err := issuers.Verify(t.Context(), s.realm.AccessToken(test.user))
				if err != nil {
					t.Fatal(err)
				}
				if test.decoded {
					verified.Token.Claim("sub") // decodes them all
				}
			}
			seen.tokens.CleanUp()
			taken, tokens := heap()-before, 0
			for range seen.tokens.All() {
				tokens++
			}
			_, said := seen.Size()
			t.Logf("%d tokens: %d KiB taken, %d KiB said", tokens, taken>>10, said>>10)
			if said > most || tokens < 20 {
				t.Errorf("%d bytes for %d tokens", said, tokens)
			}
			if taken > said*5/4+100<<10 {
				t.Errorf("%d bytes are taken, %d said", taken, said)
			}
			runtime.KeepAlive(seen)
		})
	}
}

func clientsWith(role string, n int) map[string][]string {
	clients := make(map[string][]string, n)
	for i := range n {
		clients[fmt.Sprint("client", i)] = []string{role}
	}
	return clients
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestSeenConfigIsChecked(t *testing.T) {
	if _, err := NewSeen(SeenConfig{MaxBytes: -1}); err == nil {
		t.Error("no error")
	}
}
