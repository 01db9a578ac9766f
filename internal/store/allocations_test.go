package store

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/allocations"
)

// constantValue is a value that stands in Redis under every key.
type constantValue string

func (v constantValue) Get(context.Context, string) *redis.StringCmd {
	return redis.NewStringResult(string(v), nil)
}

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
	shared := sharing(t, newFakeRedis(t), nil)
	shared.redis.values = constantValue(text) // and no longer the server
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
		{Name: "found in Redis, without what the client does", Run: func(tb testing.TB) {
			shared.memory.remove(key)
			if entry, level, _ := shared.Begin(key, want, nil).Get(tb.Context()); entry == nil || level != Redis {
				tb.Fatal(level)
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
