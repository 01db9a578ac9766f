package token

import (
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/allocations"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

func TestAllocationsOfVerification(t *testing.T) {
	server := kctest.Start(t)
	realm := server.Realm("acme")
	alice := realm.AddUser(kctest.User{Username: "alice", Email: "alice@example.test"})
	keys, err := NewKeySet(KeySetConfig{Issuer: realm.Issuer()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	v, err := New(Config{Issuer: realm.Issuer(), Keys: keys, Audiences: []string{"account"}})
	if err != nil {
		t.Fatal(err)
	}
	remembering, err := NewIssuers(seenOf(t, SeenConfig{}), v)
	if err != nil {
		t.Fatal(err)
	}
	forgetful, err := NewIssuers(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(name string, issuers *Issuers, raw string) allocations.Step {
		return allocations.Step{Name: name, Run: func(tb testing.TB) {
			if _, err := issuers.Verify(tb.Context(), raw); err != nil {
				tb.Fatal(err)
			}
		}}
	}
	for _, alg := range jws.DefaultAlgorithms() {
		realm.ActiveKey(alg) // before the first fetch
	}
	steps := []allocations.Step{{Name: "nothing", Run: func(testing.TB) {}}}
	for _, alg := range jws.DefaultAlgorithms() {
		steps = append(steps, verify("seen for the first time, "+alg, forgetful, realm.AccessToken(alice, kctest.Algorithm(alg))))
	}
	steps = append(steps, verify("seen before", remembering, realm.AccessToken(alice)))
	allocations.Compare(t, "testdata/allocations.json", steps)
}
