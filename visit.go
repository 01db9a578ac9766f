package keycloakcacheauth

import (
	"strings"
	"sync/atomic"
	"weak"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// visit is what a token's requests to a tenant have in common: texts that follow from
// token, tenant, member and settings alone, so that they are made once and not for
// each request. It is no verdict: token and member are looked up and checked each
// time all the same. It is never changed.
type visit struct {
	by     *visits
	tenant string
	key    string // of the member, in the cache

	// The headers that tell of the member, and what they take. The visit keeps neither
	// the member alive, whose memory is the cache's to give back, nor a part of its text.
	member weak.Pointer[member.Member]
	fields []headerField
	size   int
}

// visits are those to one handler. A token holds one visit: that to the handler and
// the tenant that it came to first, for as long as they are there. Who goes from one
// tenant to another all the time gains nothing by it, and loses nothing.
type visits struct {
	ended atomic.Bool // the handler is gone
}

// What a token may hold is bounded, for its memory is counted by an estimate
// ([token.Attachable]).
const (
	maxVisitFields = 12
	maxVisitSize   = 512 // of the headers, in bytes
)

// last returns the token's visit to a tenant, or nil.
func (v *visits) last(tok *token.Token, tenant string) *visit {
	if last, _ := tok.Attached().(*visit); last != nil && last.by == v && last.tenant == tenant {
		return last
	}
	return nil
}

// isFree tells whether the token may hold a visit to a tenant: it holds none, or one
// there, or one to a handler that is gone.
func (v *visits) isFree(held any, tenant string) bool {
	last, _ := held.(*visit)
	return last == nil || last.by.ended.Load() || last.by == v && last.tenant == tenant
}

// knownKey returns the key of the member in the cache, if the visit has it.
func (v *visit) knownKey() string {
	if v == nil {
		return ""
	}
	return v.key
}

// fieldsFor returns the headers that tell of a member, and what they take, if the visit
// has them. The caller must not change them.
func (v *visit) fieldsFor(m *member.Member) (fields []headerField, size int, known bool) {
	if v == nil || v.member.Value() != m {
		return nil, 0, false
	}
	return v.fields, v.size, true
}

// visited has the token of an admitted member hold the visit, unless it holds another.
// The member was in memory: most tokens that come once come again, and others are not
// worth it.
func (h *Handler) visited(id *identity, fields []headerField, size int) {
	if id.source != sourceMemory || !h.headers.lasting || size > maxVisitSize || len(fields) > maxVisitFields {
		return
	}
	held := id.token.Attached()
	if !h.visits.isFree(held, id.tenant) {
		return
	}
	own := make([]headerField, len(fields))
	for i, f := range fields {
		own[i] = headerField{f.name, strings.Clone(f.value)}
	}
	id.token.Attach(held, &visit{
		by: h.visits, tenant: strings.Clone(id.tenant), key: h.members.question(id.token, id.tenant, nil).key,
		member: weak.Make(id.member), fields: own, size: size,
	})
}
