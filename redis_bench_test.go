package keycloakcacheauth

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// BenchmarkFindInRedis shows what it costs to find members who are in Redis and not
// in memory, by 32 requests at a time, and how long the slowest hundredth waits.
func BenchmarkFindInRedis(b *testing.B) {
	server := servers.Redis(b)
	s := newSite(b)
	h, _ := load(b, s.config(func(h *Handler) {
		h.Memory.MaxSize = 1 << 20 // a tenth of them has room
		h.Stores = []*Store{{URL: "redis://" + server.Addr, Timeout: caddy.Duration(time.Second)}}
	}))
	tokens := make([]*token.Token, 8192)
	for i := range tokens {
		tokens[i] = &token.Token{Issuer: s.realm.Issuer(), Subject: fmt.Sprintf("8d0c4a52-0000-4000-8000-%012d", i)}
		s.source.put(&member.Member{
			Tenant: "t1", KCID: tokens[i].Subject, ID: fmt.Sprint("m-", i), Active: true,
			Attributes: map[string]member.Value{"roles": member.List("editor", "viewer"), "plan": member.Text("gold")},
		})
		if _, refused := h.members.find(b.Context(), tokens[i], "t1", nil); refused != "" {
			b.Fatal(refused)
		}
	}
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			calls := s.source.called()
			var next, done atomic.Int64
			took := make([]time.Duration, b.N)
			b.ReportAllocs()
			b.SetParallelism(parallel)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					began := time.Now()
					tok := tokens[int(next.Add(1))%len(tokens)]
					if _, refused := h.members.find(b.Context(), tok, "t1", nil); refused != "" {
						b.Error(refused)
						return
					}
					took[done.Add(1)-1] = time.Since(began)
				}
			})
			if s.source.called() != calls {
				b.Fatal("the source was asked")
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
