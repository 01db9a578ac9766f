package sqlresolver

import (
	"sync"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Bounds of the changes that wait to be told to one watcher.
const (
	maxPerTenant = 1_000  // of one tenant; beyond, the whole tenant has changed
	maxPending   = 10_000 // of all; beyond, everything has
)

// pending holds the changes that a watcher has not been told of yet, each once.
// It lies between the connection, which must be read whatever happens, and a
// callback that may take a while.
type pending struct {
	mu      sync.Mutex
	all     bool
	tenants map[string]map[member.Change]struct{} // nil for a whole tenant; "" are changes in all tenants
	count   int                                   // of tenants and of the changes in them
	filled  chan struct{}                         // holds something if there may be changes
}

func newPending() *pending {
	return &pending{tenants: make(map[string]map[member.Change]struct{}), filled: make(chan struct{}, 1)}
}

// add notes changes, and reports how many of them were widened.
func (p *pending) add(changes ...member.Change) (widened uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range changes {
		if p.addOne(c) {
			widened++
		}
	}
	select {
	case p.filled <- struct{}{}:
	default: // the watcher will find this one too
	}
	return widened
}

// addOne needs the lock.
func (p *pending) addOne(c member.Change) (widened bool) {
	if p.all {
		return false // it is told with the rest
	}
	if c.All {
		p.clear()
		p.all = true
		return false
	}
	known, seen := p.tenants[c.Tenant]
	if seen && known == nil {
		return false
	}
	if _, twice := known[c]; twice {
		return false
	}
	whole := c.Tenant != "" && (c.KCID == "" && c.ID == "")
	if !whole && c.Tenant != "" && len(known) >= maxPerTenant {
		whole, widened = true, true
	}
	switch {
	case whole:
		p.count += 1 - len(known)
		p.tenants[c.Tenant] = nil
	case known == nil:
		p.tenants[c.Tenant] = map[member.Change]struct{}{c: {}}
		p.count++
	default:
		known[c] = struct{}{}
		p.count++
	}
	if p.count > maxPending {
		p.clear()
		p.all, widened = true, true
	}
	return widened
}

// clear needs the lock.
func (p *pending) clear() {
	p.all, p.count = false, 0
	p.tenants = make(map[string]map[member.Change]struct{})
}

// take removes and returns what waits.
func (p *pending) take() []member.Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all {
		p.clear()
		return []member.Change{{All: true}}
	}
	changes := make([]member.Change, 0, p.count)
	for tenant, known := range p.tenants {
		if known == nil {
			changes = append(changes, member.Change{Tenant: tenant})
		}
		for c := range known {
			changes = append(changes, c)
		}
	}
	p.clear()
	return changes
}
