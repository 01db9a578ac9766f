package keycloakcacheauth

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// FlushScope names whom [Flush] is about: everybody; a tenant; one user or
// member of a tenant; or one user in all tenants, of one issuer or of any.
// Nothing else may be set besides.
type FlushScope struct {
	All      bool   `json:"all"`
	Tenant   string `json:"tenant"`
	KCID     string `json:"kc_id"`     // the user's Keycloak id
	MemberID string `json:"member_id"` // the application's id of the member
	Issuer   string `json:"issuer"`
}

// Flushed tells what [Flush] did in one store.
type Flushed struct {
	// Store is where the store is, without secrets.
	Store string `json:"store"`

	// Node says that it holds on this node.
	Node bool `json:"node"`

	// Shared tells of the other nodes with this store: `done`, `none` (there are
	// none) or `pending` (Redis could not be reached; they hear of it when it can).
	Shared string `json:"shared"`

	// Error is why it is pending, "" if it is not.
	Error string `json:"error,omitempty"`
}

// ErrFlushScope says that a [FlushScope] names nobody, or more than one thing.
var ErrFlushScope = errors.New(`say whom to flush: {"all": true}, {"tenant": …}, {"tenant": …, "kc_id": …}, {"tenant": …, "member_id": …}, {"kc_id": …} or {"issuer": …, "kc_id": …}`)

// Flush makes the cached members in scope invalid, in all stores of this
// process, for all nodes that share them: what the admin API does, for programs
// that have Caddy in them. Once it has returned, this process serves nothing
// that was loaded before the call.
//
// Its error is [ErrFlushScope], and then nothing was done. That a store could
// not tell the other nodes is no error but in its [Flushed].
func Flush(ctx context.Context, scope FlushScope) ([]Flushed, error) {
	flushed := []Flushed{}
	for _, one := range stores.All() {
		one.begin()
		done, err := one.Flush(ctx, store.Scope(scope), nil)
		if errors.Is(err, store.ErrScope) {
			return nil, ErrFlushScope
		}
		told := Flushed{Store: one.name, Node: done.Node, Shared: done.Shared.String()}
		if err != nil {
			told.Error = err.Error()
		}
		flushed = append(flushed, told)
	}
	return flushed, nil
}

// MemberOf returns the member that a request was let in for, to Caddy handlers
// that come after this module's; ok is false for an anonymous one. The member
// may be shared, and must not be changed. Its Attributes are put together for
// each call, so call it once per request.
func MemberOf(r *http.Request) (m *member.Member, ok bool) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return nil, false
	}
	known, ok := repl.Get(identityKey)
	id, isIdentity := known.(*identity)
	if !ok || !isIdentity || id.member == nil {
		return nil, false
	}
	return id.member.Unpacked(), true
}
