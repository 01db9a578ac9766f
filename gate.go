package keycloakcacheauth

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// gates bound the calls of all configurations with the same resolvers and
// limits: a reload does not let twice as many through.
var gates = shared.NewPool[*gate]()

const (
	defaultMaxLookups = 64
	maxMaxLookups     = 10_000

	// so many look-ups wait for each one that is under way
	waitingPerLookup = 32
)

// acquireGate returns the gate before these resolvers, and what gives it back.
func acquireGate(resolvers []member.Resolver, inAll, perTenant int) (*gate, func() error, error) {
	if inAll == 0 {
		inAll = defaultMaxLookups
	}
	if perTenant == 0 {
		perTenant = max(1, inAll/4)
	}
	waiting := waitingPerLookup * inAll
	limits := gateLimits{inAll, perTenant, waiting, waiting / 2} // one tenant leaves room for others
	key := struct {
		Resolvers        []string
		InAll, PerTenant int
	}{identitiesOf(resolvers), inAll, perTenant}
	return gates.Acquire(key, func() (*gate, error) { return newGate(limits), nil })
}

// Destruct implements [caddy.Destructor]. Who is inside may stay.
func (g *gate) Destruct() error { return nil }

// errBusy says that so many look-ups wait for the resolvers that one more
// would wait in vain.
var errBusy = errors.New("too many look-ups wait for the resolvers")

// gate bounds how many resolver calls there are at a time, in all and for each
// tenant, so that neither a cold cache nor one busy tenant overruns what
// answers them. Who does not get in at once waits for a place, in turn with
// its tenant's others; a bounded number of them.
type gate struct {
	limits gateLimits

	mu      sync.Mutex
	inside  int
	waiting int
	tenants map[string]*tenantGate
	turn    []*tenantGate // with somebody waiting who could go in as far as the tenant is concerned
}

// gateLimits are the bounds of a gate.
type gateLimits struct {
	inAll, perTenant         int // calls at a time
	waitingInAll, waitingFor int // look-ups that wait, in all and for one tenant
}

// tenantGate is the part of a gate that one tenant uses.
type tenantGate struct {
	name   string
	inside int
	queue  []chan struct{} // closed when it is their turn
	inTurn bool
}

func newGate(limits gateLimits) *gate {
	return &gate{limits: limits, tenants: make(map[string]*tenantGate)}
}

// enter waits for a place, if patient, and returns what gives it back. Its error
// is [errBusy], or that of the context.
func (g *gate) enter(ctx context.Context, tenant string, patient bool) (leave func(), err error) {
	g.mu.Lock()
	t := g.tenants[tenant]
	if t == nil {
		t = &tenantGate{name: tenant}
		g.tenants[tenant] = t
	}
	leave = sync.OnceFunc(func() { g.leave(t) })
	if len(t.queue) == 0 && g.inside < g.limits.inAll && t.inside < g.limits.perTenant {
		g.inside++
		t.inside++
		g.mu.Unlock()
		return leave, nil
	}
	if !patient || g.waiting >= g.limits.waitingInAll || len(t.queue) >= g.limits.waitingFor {
		g.forget(t)
		g.mu.Unlock()
		return nil, errBusy
	}
	mine := make(chan struct{})
	t.queue = append(t.queue, mine)
	g.waiting++
	g.line(t)
	g.mu.Unlock()

	select {
	case <-mine:
		return leave, nil
	case <-ctx.Done():
		if !g.giveUp(t, mine) {
			leave() // it was let in just now
		}
		return nil, ctx.Err()
	}
}

// leave gives a place back and lets the next in.
func (g *gate) leave(t *tenantGate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	t.inside--
	g.line(t)
	g.admit()
	g.forget(t)
}

// line puts a tenant with somebody waiting at the end of the turn, if it may
// have one more inside. g.mu is held.
func (g *gate) line(t *tenantGate) {
	if !t.inTurn && len(t.queue) > 0 && t.inside < g.limits.perTenant {
		t.inTurn = true
		g.turn = append(g.turn, t)
	}
}

// admit lets in whose turn it is, tenant by tenant, while there is room. g.mu
// is held.
func (g *gate) admit() {
	for g.inside < g.limits.inAll && len(g.turn) > 0 {
		t := g.turn[0]
		g.turn = g.turn[1:]
		t.inTurn = false
		if len(t.queue) == 0 || t.inside >= g.limits.perTenant {
			g.forget(t)
			continue
		}
		next := t.queue[0]
		t.queue = t.queue[1:]
		g.waiting--
		g.inside++
		t.inside++
		close(next)
		g.line(t)
	}
}

// giveUp takes one who waits out of the queue, and tells whether they were
// still in it.
func (g *gate) giveUp(t *tenantGate, mine chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range t.queue {
		if other == mine {
			t.queue = append(t.queue[:i], t.queue[i+1:]...)
			g.waiting--
			if len(t.queue) == 0 && t.inTurn {
				g.turn = slices.DeleteFunc(g.turn, func(other *tenantGate) bool { return other == t })
				t.inTurn = false
			}
			g.forget(t)
			return true
		}
	}
	return false
}

// forget drops a tenant that nobody uses. g.mu is held.
func (g *gate) forget(t *tenantGate) {
	if t.inside == 0 && len(t.queue) == 0 && !t.inTurn {
		delete(g.tenants, t.name)
	}
}
