package token

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// RealmsConfig says whose keys [Realms] hold and how they get them.
type RealmsConfig struct {
	// Issuer is the template of the realms' issuers. Required.
	Issuer string

	// JWKSURL and BackchannelURL are templates of what [KeySetConfig] calls so. At
	// most one of them.
	JWKSURL        string
	BackchannelURL string

	// Keys makes the key set of one realm, from addresses, to which it adds its
	// client and whatever else it has, or takes it from a pool. Release is called
	// once, when nobody uses the key set any more; nil does nothing. It must not
	// wait for the network. Default: [NewKeySet] and [KeySet.Close].
	Keys func(tenant string, addresses KeySetConfig) (keys *KeySet, release func(), err error)

	// MaxProven bounds the realms whose keys are held. Default: 1000.
	MaxProven int

	// MaxUnproven bounds the realms that have been asked and never gave keys. They
	// push out each other only. Default: 100.
	MaxUnproven int

	// FetchBurst and FetchesPerSecond bound the fetches that are to bring the first
	// keys of a realm. A realm's first success counts for nothing, as long as
	// MaxProven is not reached. Realms that gave keys before and were pushed out have
	// as much again for themselves, so that invented ones cannot keep them away.
	// Default: 5, and then 1 per second.
	FetchBurst       int
	FetchesPerSecond float64

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

const (
	// maxMissing bounds the realms remembered as not there.
	maxMissing = 1000
	// maxOnce bounds the realms remembered to have given keys once.
	maxOnce = 10_000
	// missingFor is for how long: so long may a realm made anew be taken for missing.
	missingFor = time.Minute
)

var (
	errBudget   = errors.New("too many realms have been asked for their first keys")
	errReleased = errors.New("the realms are closed")
)

// Realms hold the keys of the realms of a template. A realm is known from the first
// token that names it, whoever made that up; so what such tokens can cost is bounded:
// in memory, in fetches, and for the realms that exist. It is safe for concurrent use.
type Realms struct {
	cfg                       RealmsConfig
	issuer, jwks, backchannel Template
	budget                    *budget      // of realms that never gave keys
	returning                 *budget      // of those that once did
	uses                      atomic.Int64 // counts, to tell what was used least recently

	mu        sync.RWMutex
	byTenant  map[string]*realm
	proven    int                  // of byTenant
	missing   map[string]time.Time // when the issuer said that there is no such realm
	once      map[string]struct{}  // those that gave keys, pushed out or not
	wasClosed bool
}

// realm is one realm's keys. The table holds one reference to it, each request that
// uses it another; with the last one its keys are released.
type realm struct {
	tenant string
	budget *budget // that its first keys are fetched out of
	used   atomic.Int64
	refs   atomic.Int64
	paid   atomic.Bool // for a fetch, out of the budget
	proven atomic.Bool // changed under Realms.mu

	opening sync.Once
	keys    *KeySet
	err     error // why there are none

	releasing sync.Once
	release   func()
}

// NewRealms returns realms none of which is known yet. It does no network I/O.
func NewRealms(cfg RealmsConfig) (*Realms, error) {
	rs := &Realms{byTenant: make(map[string]*realm), missing: make(map[string]time.Time), once: make(map[string]struct{})}
	for _, address := range []struct {
		name, text string
		to         *Template
	}{
		{"issuer", cfg.Issuer, &rs.issuer},
		{"jwks url", cfg.JWKSURL, &rs.jwks},
		{"backchannel url", cfg.BackchannelURL, &rs.backchannel},
	} {
		if address.text == "" && address.name != "issuer" {
			continue
		}
		var err error
		if *address.to, err = ParseTemplate(address.text); err != nil {
			return nil, fmt.Errorf("%s: %w", address.name, err)
		}
	}
	switch {
	case cfg.JWKSURL != "" && cfg.BackchannelURL != "":
		return nil, errors.New("jwks url: makes the backchannel url useless; give one of them")
	case cfg.MaxProven < 0, cfg.MaxUnproven < 0, cfg.FetchBurst < 0, cfg.FetchesPerSecond < 0:
		return nil, errors.New("limits: negative")
	}
	cfg.MaxProven = cmp.Or(cfg.MaxProven, 1000)
	cfg.MaxUnproven = cmp.Or(cfg.MaxUnproven, 100)
	if cfg.Keys == nil {
		cfg.Keys = func(_ string, addresses KeySetConfig) (*KeySet, func(), error) {
			keys, err := NewKeySet(addresses)
			if err != nil {
				return nil, nil, err
			}
			return keys, keys.Close, nil
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	rs.cfg = cfg
	burst, perSecond := float64(cmp.Or(cfg.FetchBurst, 5)), cmp.Or(cfg.FetchesPerSecond, 1)
	rs.budget, rs.returning = newBudget(burst, perSecond), newBudget(burst, perSecond)
	return rs, nil
}

// Close releases the keys of all realms, once the requests that use them are done.
// What is known goes on serving as far as closed key sets do; no realm is added.
func (rs *Realms) Close() {
	rs.mu.Lock()
	realms := rs.byTenant
	wasClosed := rs.wasClosed
	rs.wasClosed = true
	rs.mu.Unlock()
	if wasClosed {
		return
	}
	for _, r := range realms { // nothing writes to the map any more
		r.unref()
	}
}

// acquire returns the realm of a tenant, for use until [Realms.giveBack].
func (rs *Realms) acquire(tenant string) (*realm, error) {
	r, missing := rs.lookup(tenant)
	switch {
	case missing:
		return nil, ErrNoRealm
	case r == nil:
		var err error
		if r, err = rs.add(tenant); err != nil {
			return nil, err
		}
	}
	r.opening.Do(func() { rs.open(r) })
	if r.err != nil {
		rs.drop(r)
		r.unref()
		return nil, r.err
	}
	return r, nil
}

func (rs *Realms) lookup(tenant string) (r *realm, missing bool) {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	if r = rs.byTenant[tenant]; r != nil {
		r.refs.Add(1)
		r.used.Store(rs.uses.Add(1))
		return r, false
	}
	at, missing := rs.missing[tenant]
	return nil, missing && rs.cfg.Now().Sub(at) < missingFor
}

// add makes room for a realm and puts it there, if it could be asked for its keys.
func (rs *Realms) add(tenant string) (*realm, error) {
	from := rs.budgetOf(tenant)
	if from.empty(rs.cfg.Now()) {
		return nil, errBudget
	}
	var evicted *realm
	defer func() { evicted.unref() }() // without the lock
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.wasClosed {
		return nil, errReleased
	}
	r := rs.byTenant[tenant]
	if r == nil {
		if len(rs.byTenant)-rs.proven >= rs.cfg.MaxUnproven {
			evicted = rs.evict(false)
		}
		r = &realm{tenant: tenant, budget: from}
		r.refs.Add(1) // the table's
		rs.byTenant[tenant] = r
	}
	r.refs.Add(1)
	r.used.Store(rs.uses.Add(1))
	return r, nil
}

// budgetOf returns what the first keys of a realm that is not there are fetched out of.
func (rs *Realms) budgetOf(tenant string) *budget {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	if _, known := rs.once[tenant]; known {
		return rs.returning
	}
	return rs.budget
}

// open asks the caller for the realm's keys, without holding any lock.
func (rs *Realms) open(r *realm) {
	addresses := KeySetConfig{Issuer: rs.issuer.URL(r.tenant), Confined: true, Now: rs.cfg.Now}
	if rs.cfg.JWKSURL != "" {
		addresses.JWKSURL = rs.jwks.URL(r.tenant)
	}
	if rs.cfg.BackchannelURL != "" {
		addresses.BackchannelURL = rs.backchannel.URL(r.tenant)
	}
	r.keys, r.release, r.err = rs.cfg.Keys(r.tenant, addresses)
	switch {
	case r.err != nil:
	case r.keys == nil, r.keys.cfg.Issuer != addresses.Issuer, r.keys.cfg.JWKSURL != addresses.JWKSURL,
		r.keys.cfg.BackchannelURL != addresses.BackchannelURL, !r.keys.cfg.Confined:
		r.err = errors.New("the key set is not the one asked for")
	}
}

// asking lets the realm's first keys be fetched out of the template's budget.
func (rs *Realms) asking(r *realm, obs Observer) asking {
	return asking{observer: obs, first: func() bool {
		if !r.budget.take(rs.cfg.Now()) {
			return false
		}
		r.paid.Store(true)
		return true
	}}
}

// giveBack ends the use of a realm, and notes what has become known of it: err is
// that of asking for its keys, if it was asked in vain. It reports whether the issuer
// says that there is no such realm.
func (rs *Realms) giveBack(r *realm, err error) (missing bool) {
	switch {
	case r.keys.proven():
		if !r.proven.Load() {
			rs.promote(r)
		}
	case errors.Is(err, ErrNoRealm): // or not any more
		missing = true
		rs.remember(r.tenant)
		rs.drop(r)
	}
	r.unref()
	return missing
}

// promote moves a realm that gave keys to those that only such ones push out.
func (rs *Realms) promote(r *realm) {
	var evicted *realm
	defer func() { evicted.unref() }() // without the lock
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.proven.Load() || rs.byTenant[r.tenant] != r || rs.wasClosed {
		return
	}
	if rs.proven >= rs.cfg.MaxProven {
		// Full: from here on first fetches are paid for, or whoever knows enough
		// realms could make them take turns, a fetch each.
		evicted = rs.evict(true)
	} else if r.paid.Load() {
		r.budget.giveBack()
	}
	r.proven.Store(true)
	rs.proven++
	if len(rs.once) >= maxOnce {
		for other := range rs.once { // any: none is better than another
			delete(rs.once, other)
			break
		}
	}
	rs.once[r.tenant] = struct{}{}
}

// evict takes out of the table what was used least recently of the proven or the
// unproven, and returns it. rs.mu is held.
func (rs *Realms) evict(proven bool) *realm {
	var oldest *realm
	for _, r := range rs.byTenant {
		if r.proven.Load() == proven && (oldest == nil || r.used.Load() < oldest.used.Load()) {
			oldest = r
		}
	}
	if oldest != nil {
		rs.remove(oldest)
	}
	return oldest
}

// drop forgets a realm that is of no use.
func (rs *Realms) drop(r *realm) {
	rs.mu.Lock()
	known := rs.byTenant[r.tenant] == r && !rs.wasClosed
	if known {
		rs.remove(r)
	}
	rs.mu.Unlock()
	if known {
		r.unref()
	}
}

// remove takes a realm out of the table, whose reference the caller gives up once it
// holds no lock: releasing may wait for a fetch to end. rs.mu is held.
func (rs *Realms) remove(r *realm) {
	delete(rs.byTenant, r.tenant)
	if r.proven.Load() {
		rs.proven--
	}
}

// remember notes that a realm does not exist, if there is room for it.
func (rs *Realms) remember(tenant string) {
	now := rs.cfg.Now()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.once, tenant)
	if len(rs.missing) >= maxMissing {
		for other, at := range rs.missing {
			if now.Sub(at) >= missingFor {
				delete(rs.missing, other)
			}
		}
	}
	if len(rs.missing) < maxMissing {
		rs.missing[tenant] = now
	}
}

// unref ends one use of r, if there is one, and with the last releases its keys.
func (r *realm) unref() {
	if r == nil || r.refs.Add(-1) > 0 {
		return
	}
	r.releasing.Do(func() {
		if r.release != nil {
			r.release()
		}
	})
}
