package token

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// BenchmarkVerify shows what a token costs that comes for the first time, one that was
// seen before, and rubbish.
func BenchmarkVerify(b *testing.B) {
	server, err := kctest.NewServer()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Stop()
	realm := server.Realm("acme")
	keys, err := NewKeySet(KeySetConfig{Issuer: realm.Issuer()})
	if err != nil {
		b.Fatal(err)
	}
	defer keys.Close()
	v, err := New(Config{Issuer: realm.Issuer(), Keys: keys, Audiences: []string{"account"}})
	if err != nil {
		b.Fatal(err)
	}
	alice := realm.AddUser(kctest.User{Username: "alice", Email: "alice@example.test"})
	for _, alg := range jws.DefaultAlgorithms() {
		realm.ActiveKey(alg) // before the first fetch
	}
	for _, alg := range jws.DefaultAlgorithms() {
		raw := realm.AccessToken(alice, kctest.Algorithm(alg))
		b.Run("first/"+alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("seen/"+alg, func(b *testing.B) {
			issuers, err := NewIssuers(seenOf(b, SeenConfig{}), v)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := issuers.Verify(b.Context(), raw); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if verified, err := issuers.Verify(b.Context(), raw); err != nil || !verified.Seen {
					b.Fatal(err)
				}
			}
		})
	}
	tok, err := v.Authenticate(b.Context(), realm.AccessToken(alice))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("check only", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := v.Check(b.Context(), tok); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, raw := range map[string]string{
		"1 MB of dots": strings.Repeat(".", 1<<20), "16 KiB of dots": strings.Repeat(".", 16<<10),
		"16 KiB of letters": strings.Repeat("a", 16<<10-2) + "..",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// BenchmarkPlainOIDC shows what a token costs that go-oidc verifies by itself, which
// checks less.
func BenchmarkPlainOIDC(b *testing.B) {
	server, err := kctest.NewServer()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Stop()
	realm := server.Realm("acme")
	alice := realm.AddUser(kctest.User{Username: "alice", Email: "alice@example.test"})
	for _, alg := range []string{"RS256", "ES256"} {
		realm.ActiveKey(alg)
	}
	provider, err := oidc.NewProvider(b.Context(), realm.Issuer())
	if err != nil {
		b.Fatal(err)
	}
	verifier := provider.VerifierContext(b.Context(), &oidc.Config{ClientID: "account", SupportedSigningAlgs: []string{"RS256", "ES256"}})
	for _, alg := range []string{"RS256", "ES256"} {
		raw := realm.AccessToken(alice, kctest.Algorithm(alg))
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verifier.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSeenInParallel shows the same with a realm of a template, which has a table
// to be looked up in, on all processors.
func BenchmarkSeenInParallel(b *testing.B) {
	s := newTenants(b)
	v, err := NewForRealms(Config{Now: s.now}, s.realms, func(string) bool { return true })
	if err != nil {
		b.Fatal(err)
	}
	issuers, err := NewIssuers(seenOf(b, SeenConfig{Now: s.now}), v)
	if err != nil {
		b.Fatal(err)
	}
	raw := s.token("t1")
	if _, err := issuers.Verify(b.Context(), raw); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if verified, err := issuers.Verify(b.Context(), raw); err != nil || !verified.Seen {
				b.Error(err)
			}
		}
	})
}

// BenchmarkRefreshBurst shows what a new token costs while very many come, as when all
// users refresh theirs within a minute: as much when few are remembered as when memory
// has long been full and each one has to leave for another. It reports how many are
// remembered then, and how much memory they take by their own count.
func BenchmarkRefreshBurst(b *testing.B) {
	const distinct = 256
	s := newTenants(b)
	v, err := NewForRealms(Config{Now: s.now}, s.realms, func(string) bool { return true })
	if err != nil {
		b.Fatal(err)
	}
	fresh := make([]string, distinct)
	for i := range fresh {
		fresh[i] = s.token("t1")
	}
	for _, before := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("after %d tokens", before), func(b *testing.B) {
			seen := seenOf(b, SeenConfig{Now: s.now})
			issuers, err := NewIssuers(seen, v)
			if err != nil {
				b.Fatal(err)
			}
			for i := range before {
				text, tok := madeUp(b, s.now(), i)
				seen.put(seen.digest(text), tok)
			}
			seen.tokens.CleanUp()
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%distinct == 0 { // they are new once more
					b.StopTimer()
					for _, raw := range fresh {
						seen.forget(seen.digest(raw))
					}
					b.StartTimer()
				}
				if verified, err := issuers.Verify(b.Context(), fresh[n%distinct]); err != nil || verified.Seen {
					b.Fatal(err)
				}
			}
			seen.tokens.CleanUp()
			count, bytes := seen.Size()
			b.ReportMetric(float64(count), "tokens")
			b.ReportMetric(float64(bytes)/(1<<20), "MiB")
		})
	}
}
