package keycloakcacheauth

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// watches are the sources whose changes flush a store. They live with the
// store and not with a configuration: a reload must miss no change, and need
// not flush everything for fear that it did.
type watches struct {
	mu     sync.Mutex
	active map[string]*watch // by what is watched
	begun  bool
	ended  bool
}

// watch is one source that is watched, and how many configurations want it.
type watch struct {
	users    int
	resolver watcher
	ctx      context.Context
	end      context.CancelFunc
}

// start has the source tell the store of its changes.
func (w *watch) start(s *memberStore) {
	w.resolver.Watch(w.ctx, func(change member.Change) { s.changed(w.ctx, change) })
}

// flushTimeout bounds how long telling a store of one change may take.
const flushTimeout = 5 * time.Second

// add has a resolver's changes flush the store until the returned function is
// called as often as add was.
func (w *watches) add(s *memberStore, resolver watcher) (release func() error) {
	identity := resolver.WatchIdentity()
	if identity == "" {
		return func() error { return nil }
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.active[identity]
	if one == nil && !w.ended {
		ctx, cancel := context.WithCancel(context.Background())
		one = &watch{resolver: resolver, ctx: ctx, end: cancel}
		if w.active == nil {
			w.active = make(map[string]*watch)
		}
		w.active[identity] = one
		if w.begun {
			one.start(s)
		}
	}
	if one == nil {
		return func() error { return nil }
	}
	one.users++
	return sync.OnceValue(func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if one.users--; one.users == 0 {
			one.end()
			if w.active[identity] == one {
				delete(w.active, identity)
			}
		}
		return nil
	})
}

// begin starts all watches, and from now on those that are added.
func (w *watches) begin(s *memberStore) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = true
	for _, one := range w.active {
		one.start(s)
	}
}

// end ends all watches.
func (w *watches) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, one := range w.active {
		one.end()
	}
	clear(w.active)
}

// watcher is a resolver that tells of changes.
type watcher interface {
	member.Resolver
	member.Watcher
}

// changed flushes what a source has changed. What cannot be told to the other
// nodes now holds here, and is told later.
func (m *memberStore) changed(ctx context.Context, change member.Change) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var err error
	for _, scope := range flushesFor(change) {
		_, one := m.Flush(ctx, scope, nil)
		if errors.Is(one, store.ErrScope) { // to be safe
			_, one = m.Flush(ctx, store.Scope{All: true}, nil)
		}
		err = errors.Join(err, one)
	}
	if err != nil && ctx.Err() == nil {
		// no configuration's logger lives as long as this
		caddy.Log().Named("http.handlers.keycloak_cache_auth").Debug("a change is known to this node only, until Redis is back", zap.Error(err))
	}
}

// flushesFor returns what to flush for a change. One that names a user and a
// member means both: they may have been the same only before it, or after.
func flushesFor(change member.Change) []store.Scope {
	switch {
	case change.All:
		return []store.Scope{{All: true}}
	case change.KCID != "" && change.ID != "":
		return []store.Scope{{Tenant: change.Tenant, KCID: change.KCID}, {Tenant: change.Tenant, MemberID: change.ID}}
	default:
		return []store.Scope{{Tenant: change.Tenant, KCID: change.KCID, MemberID: change.ID}}
	}
}
