package keycloakcacheauth

import (
	"context"
	"flag"
	"strconv"
	"testing"

	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

var (
	floodMembers = flag.Int("members", 100_000, "how many members go through the cache in TestMemoryStaysFlat")
	floodTokens  = flag.Int("tokens", 10_000, "how many tokens are verified in TestMemoryStaysFlat")
	floodCache   = flag.Int64("cache", 16, "how many MiB the cache of TestMemoryStaysFlat may take")
)

// However many members and tokens come along, memory holds what it may hold.
// More of them: -args -members 1000000 -tokens 10000000 -cache 64.
func TestMemoryStaysFlat(t *testing.T) {
	if raceDetector {
		*floodMembers, *floodTokens = min(*floodMembers, 10_000), min(*floodTokens, 1_000)
	}
	t.Run("T-20", func(t *testing.T) {
		s := newSite(t)
		s.realm.SetDefaultAlgorithm("EdDSA")
		h, _ := load(t, s.config(func(h *Handler) { h.Memory = Memory{MaxSize: *floodCache << 20, MaxTokensSize: 16 << 20} }))
		h.logger, h.members.logger = zap.NewNop(), zap.NewNop()
		s.source.respond(func(_ context.Context, q member.Query) (*member.Member, error) {
			return &member.Member{
				Tenant: q.Tenant, KCID: q.KCID, ID: "m-" + q.KCID, Active: true,
				Attributes: map[string]member.Value{"roles": member.List("editor", "viewer"), "plan": member.Text("gold")},
			}, nil
		})
		before := heap()
		flat(t, "members", *floodMembers, func(i int) {
			tok := &token.Token{Issuer: s.realm.Issuer(), Subject: "user-" + strconv.Itoa(i)}
			if _, refused := h.members.find(t.Context(), tok, "t"+strconv.Itoa(i%50), nil); refused != "" {
				t.Fatal(refused)
			}
		})
		flat(t, "tokens", *floodTokens, func(i int) {
			raw := s.token("alice", kctest.Claim("jti", strconv.Itoa(i)))
			if _, err := h.tokens.Verify(t.Context(), raw); err != nil {
				t.Fatal(err)
			}
		})
		// members, tokens and what both need besides
		if grown := int64(heap()) - int64(before); grown > (*floodCache+16+8)<<20*3/2 {
			t.Errorf("the heap has grown by %d MiB", grown>>20)
		}
	})
}

// flat does something n times, and reports a heap that still grows in the last
// fifth of it.
func flat(t *testing.T, what string, n int, do func(int)) {
	t.Helper()
	for i := range n * 4 / 5 {
		do(i)
	}
	before := heap()
	for i := n * 4 / 5; i < n; i++ {
		do(i)
	}
	after := heap()
	t.Logf("%d %s: %d MiB of heap after four fifths, %d MiB at the end", n, what, before>>20, after>>20)
	if after > before+before/20+4<<20 {
		t.Errorf("%s: the heap grows from %d to %d MiB", what, before>>20, after>>20)
	}
}
