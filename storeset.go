package keycloakcacheauth

import (
	"context"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// shelf is one configured store and the builder of this handler's keys in it.
type shelf struct {
	*memberStore
	keys *store.Keys
}

// storeSet is where a handler caches members: some tenants' in a store of
// their own, all others' in the common one. Data of one never gets into
// another.
type storeSet struct {
	common   *shelf
	byTenant map[string]*shelf
	all      []*shelf
	maxBlind time.Duration
}

// newStoreSet opens the configured stores, and returns what gives them back.
// It connects to none.
func newStoreSet(ctx caddy.Context, h *Handler, repl *caddy.Replacer, resolvers []member.Resolver) (*storeSet, []func() error, error) {
	set := &storeSet{byTenant: make(map[string]*shelf)}
	var releases []func() error
	configured := make([]Store, 0, len(h.Stores)+1)
	for _, settings := range h.Stores {
		configured = append(configured, *settings)
	}
	if !hasCommonStore(configured) {
		configured = append(configured, Store{URL: memoryURL})
	}
	for _, settings := range configured {
		set.maxBlind = max(set.maxBlind, orDefault(settings.MaxBlind, defaultMaxBlind))
		settings, err := settings.expand(repl)
		if err != nil {
			return nil, releases, err
		}
		keys, err := newKeys(settings, resolvers)
		if err != nil {
			return nil, releases, err
		}
		opened, release, err := acquireStore(ctx, h.Memory, settings, time.Duration(h.MaxTokenLifetime))
		if err != nil {
			return nil, releases, err
		}
		releases = append(releases, release)
		s := &shelf{opened, keys}
		set.all = append(set.all, s)
		if len(settings.Tenants) == 0 {
			set.common = s
		}
		for _, tenant := range settings.Tenants {
			set.byTenant[tenant] = s
		}
	}
	return set, releases, nil
}

func hasCommonStore(stores []Store) bool {
	for _, s := range stores {
		if len(s.Tenants) == 0 {
			return true
		}
	}
	return false
}

// expand replaces the global placeholders of the settings, and checks what
// became of them.
func (s Store) expand(repl *caddy.Replacer) (Store, error) {
	var err error
	if s.URL, err = repl.ReplaceOrErr(s.URL, true, true); err != nil {
		return Store{}, errors.New("store: the URL has a placeholder that is unknown or empty; see that the environment variable or the file exists")
	}
	if s.Secrets, err = expandAll(repl, s.Secrets); err != nil {
		return Store{}, errors.New("secret: it has a placeholder that is unknown or empty; see that the environment variable or the file exists")
	}
	for _, text := range []*string{&s.ClientCertificateFile, &s.ClientKeyFile, &s.ServerName} {
		if *text, err = repl.ReplaceOrErr(*text, true, true); err != nil {
			return Store{}, err
		}
	}
	return s, s.check()
}

// of returns where members of a tenant are cached.
func (s *storeSet) of(tenant string) *shelf {
	if own, ok := s.byTenant[tenant]; ok {
		return own
	}
	return s.common
}

// loggedOut tells whether a token of the session, or of the user from before
// the user's logout, is refused. Logouts are in all stores: any will do.
func (s *storeSet) loggedOut(issuer, session, subject string, issuedAt time.Time) bool {
	for _, one := range s.all {
		one.begin()
		if one.LoggedOut(issuer, session, subject, issuedAt) {
			return true
		}
	}
	return false
}

// knowsLogouts tells whether the stores have learnt who was logged out before
// they were first used, or have had their time to. A request that came sooner could
// use a token that has been ended.
func (s *storeSet) knowsLogouts(ctx context.Context, now time.Time) bool {
	for _, one := range s.all {
		one.settle(ctx)
		if !one.LogoutsKnown() && now.Sub(one.begun) < s.maxBlind {
			return false
		}
	}
	return true
}

// logOut tells all stores of a logout, since the tenants that it is about are
// not known. It reports whether it was news to one of them, and an error if one
// could not tell its other nodes.
func (s *storeSet) logOut(ctx context.Context, logout store.Logout, observer store.Observer) (news bool, err error) {
	for _, one := range s.all {
		one.begin()
		first, oneErr := one.Logout(ctx, logout, observer)
		news, err = news || first, errors.Join(err, oneErr)
	}
	return news, err
}

// checkStores tells what is wrong with the stores as a whole.
func (h *Handler) checkStores() error {
	common := 0
	taken := make(map[string]bool)
	for _, s := range h.Stores {
		if s == nil {
			return errors.New("store: null is not a store")
		}
		if err := s.checkUnexpanded(); err != nil {
			return err
		}
		if len(s.Tenants) == 0 {
			common++
		}
		for _, tenant := range s.Tenants {
			if taken[tenant] {
				return errors.New("store: a tenant is given to two stores; keep it in one")
			}
			taken[tenant] = true
		}
	}
	if common > 1 {
		return errors.New("store is given twice without `tenants`; name the tenants of all but one")
	}
	return nil
}
