package store

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// BenchmarkRedis shows what it costs to find a member that is in Redis and not in
// memory, and what one GET and decoding the same JSON costs by itself.
func BenchmarkRedis(b *testing.B) {
	server := startRedis(b)
	type question struct {
		key  string
		want Want
	}
	// As many as would not fit into what a processor has at hand.
	questions := make([]question, 512)
	keys := newTestKeys(b)
	for i := range questions {
		m := employee(i)
		want := Want{Tenant: m.Tenant, Issuer: testIssuer, KCID: m.KCID, TTL: time.Hour}
		questions[i] = question{keys.Member(want.Tenant, want.Issuer, want.KCID), want}
	}
	fill := func(b *testing.B, s *Store) {
		b.Helper()
		for i, q := range questions {
			s.Begin(q.key, q.want, nil).Put(b.Context(), employee(i), time.Hour, 0)
		}
	}

	for name, secrets := range map[string][]string{"hit": nil, "hit, encrypted": {"0123456789abcdef0123456789abcdef"}} {
		b.Run(name, func(b *testing.B) {
			s := newTestStore(b, Config{URL: server.url(), Secrets: secrets, Timeout: time.Second})
			fill(b, s)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q := questions[i%len(questions)]
				s.memory.remove(q.key)
				if entry, level, _ := s.Begin(q.key, q.want, nil).Get(b.Context()); entry == nil || level != Redis {
					b.Fatal(level)
				}
			}
		})
	}
	b.Run("plain GET", func(b *testing.B) {
		s := newTestStore(b, Config{URL: server.url(), Timeout: time.Second})
		fill(b, s)
		client := redis.NewClient(&redis.Options{Addr: server.address()})
		defer func() { _ = client.Close() }()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			text, err := client.Get(b.Context(), questions[i%len(questions)].key).Bytes()
			if err != nil {
				b.Fatal(err)
			}
			var decoded struct {
				Tenant, Issuer    string
				KCID              string `json:"kc_id"`
				LoadedAt, Expires int64
				Member            struct {
					KCID       string `json:"kc_id"`
					Tenant, ID string
					Active     bool
					Attributes map[string]any
				}
			}
			if err := json.Unmarshal(text, &decoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMemoryInParallel shows whether processors are in each other's way when they
// look for members in memory.
func BenchmarkMemoryInParallel(b *testing.B) {
	type question struct {
		key  string
		want Want
	}
	s, keys := newTestStore(b, Config{}), newTestKeys(b)
	questions := make([]question, 512)
	for i := range questions {
		m := employee(i)
		want := Want{Tenant: m.Tenant, Issuer: testIssuer, KCID: m.KCID, TTL: time.Hour}
		questions[i] = question{keys.Member(want.Tenant, want.Issuer, want.KCID), want}
		s.Begin(questions[i].key, want, nil).Put(b.Context(), m, time.Hour, 0)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			q := questions[i%len(questions)]
			if _, result := s.Memory(q.key, q.want); result != Hit {
				b.Error(result)
			}
		}
	})
}
