package token

import (
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

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
	for _, alg := range DefaultAlgorithms() {
		realm.ActiveKey(alg) // before the first fetch
	}
	for _, alg := range DefaultAlgorithms() {
		raw := realm.AccessToken(alice, kctest.Algorithm(alg))
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err != nil {
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
