package keycloakcacheauth

import (
	"sync"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
)

// views are the ways in which configurations look into a store: whose keys
// they build, and for which issuers. The admin API, which has no configuration
// of its own, finds members by them.
type views struct {
	mu     sync.Mutex
	active map[*view]struct{}
}

// view is the way of one configuration.
type view struct {
	keys    *store.Keys
	issuers func(tenant string) []string
	life    memberLife
}

// add makes a view known until the returned function is called.
func (v *views) add(one *view) (release func() error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.active == nil {
		v.active = make(map[*view]struct{})
	}
	v.active[one] = struct{}{}
	return func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.active, one)
		return nil
	}
}

// keysOf returns under which keys a user may be cached in a tenant, with what is
// wanted of what is there. Where resolvers read further claims of the token, these
// are part of the key, and it can only be told from the entries in memory, which
// are given by their keys.
func (v *views) keysOf(tenant, kcID string, inMemory map[string]*store.Entry) map[string]store.Want {
	v.mu.Lock()
	defer v.mu.Unlock()
	keys := make(map[string]store.Want)
	for one := range v.active {
		for _, issuer := range one.issuers(tenant) {
			add := func(claims string) {
				keys[one.keys.MemberWith(tenant, issuer, kcID, claims)] = store.Want{
					Tenant: tenant, Issuer: issuer, KCID: kcID, Claims: claims, TTL: one.life.ttl, Stale: one.life.stale,
				}
			}
			add("")
			for key, entry := range inMemory {
				if entry.Issuer == issuer && one.keys.MemberWith(tenant, issuer, kcID, entry.Claims) == key {
					add(entry.Claims)
				}
			}
		}
	}
	return keys
}
