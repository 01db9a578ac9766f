package store

import (
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/allocations"
)

func TestAllocationsOfTheStore(t *testing.T) {
	s := newTestStore(t, Config{})
	m := employee(1)
	want := Want{Tenant: m.Tenant, Issuer: testIssuer, KCID: m.KCID, TTL: time.Hour}
	keys := newTestKeys(t)
	key := keys.Member(want.Tenant, want.Issuer, want.KCID)
	entry := s.Begin(key, want, nil).Put(t.Context(), m, time.Hour, 0)
	text := mustEncode(t, entry)
	sealing, err := newSealer([]string{"0123456789abcdef0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealing.seal(key, text)
	if err != nil {
		t.Fatal(err)
	}
	failing := func(err error, tb testing.TB) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	allocations.Compare(t, "testdata/allocations.json", []allocations.Step{
		{Name: "nothing", Run: func(testing.TB) {}},
		{Name: "key", Run: func(testing.TB) { keys.Member(want.Tenant, want.Issuer, want.KCID) }},
		{Name: "found in memory", Run: func(tb testing.TB) {
			if _, result := s.Memory(key, want); result != Hit {
				tb.Fatal(result)
			}
		}},
		{Name: "encode", Run: func(tb testing.TB) {
			_, err := encode(entry, testMark)
			failing(err, tb)
		}},
		{Name: "decode", Run: func(tb testing.TB) {
			_, _, err := decode(text)
			failing(err, tb)
		}},
		{Name: "decrypt", Run: func(tb testing.TB) {
			_, err := sealing.open(key, sealed)
			failing(err, tb)
		}},
	})
}
