package store

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// minAppendBudget is the least time that appending an event has: flushes are
	// rare, and one that is not sent is an error.
	minAppendBudget = 500 * time.Millisecond

	// maxOutgoing is how many events may wait until they are read back. Beyond
	// that flushes of members become flushes of their tenants, and these one of
	// everybody.
	maxOutgoing = 1024
)

// outgoing is an event of this node that it has not read back from the log yet.
// Until then Redis' entries in its scope are held.
type outgoing struct {
	event   event
	places  []uint16
	sending bool
	acked   bool   // Redis says that it was appended …
	round   uint64 // … after this round of the tail had begun
}

// outbox has the outgoing events by their ref.
type outbox struct {
	mu     sync.Mutex
	items  map[string]*outgoing
	round  uint64 // of the tail; see begin
	broken bool   // the last attempt of the tail failed
}

// hold takes up an event before it is sent, and before the local fence is
// raised for it.
func (g *flushLog) hold(e event) *outgoing {
	item := &outgoing{event: e, sending: true}
	if e.flushes() {
		item.places = g.fences.scope(e.scope)
	}
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	g.take(item)
	if len(g.sent.items) > maxOutgoing {
		g.collapse()
	}
	return item
}

// take and release are called with the outbox' mu held.
func (g *flushLog) take(item *outgoing) {
	for _, place := range item.places {
		g.held[place].Add(1)
	}
	g.sent.items[item.event.ref] = item
}

func (g *flushLog) release(item *outgoing) {
	delete(g.sent.items, item.event.ref)
	for _, place := range item.places {
		g.held[place].Add(-1)
	}
}

// collapse makes few events of many. The larger ones hold before the smaller
// ones are released. An event that is being sent meanwhile is sent twice.
func (g *flushLog) collapse() {
	g.news.add(func(n *LogNews) { n.Collapsed++ })
	flushes, everybody := false, false
	tenants := map[string]bool{}
	for _, item := range g.sent.items {
		if item.event.kind == kindLogout {
			g.logouts.resay(item.event.logout)
		}
		if !item.event.flushes() {
			continue
		}
		flushes = true
		if tenant := item.event.scope.Tenant; tenant != "" {
			tenants[tenant] = true
		} else {
			everybody = true
		}
	}
	if everybody || len(tenants) > maxOutgoing/2 {
		clear(tenants)
	}
	old := make([]*outgoing, 0, len(g.sent.items))
	for _, item := range g.sent.items {
		old = append(old, item)
	}
	wider := make([]Scope, 0, len(tenants)+1)
	for tenant := range tenants {
		wider = append(wider, Scope{Tenant: tenant})
	}
	if len(wider) == 0 && flushes {
		wider = append(wider, Scope{All: true})
	}
	for _, scope := range wider {
		g.take(&outgoing{event: flushEvent(scope), places: g.fences.scope(scope)})
	}
	for _, item := range old {
		g.release(item)
	}
}

// unsentFlushes returns what the waiting events flush.
func (g *flushLog) unsentFlushes() (scopes []Scope) {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	for _, item := range g.sent.items {
		if item.event.flushes() && !item.acked {
			scopes = append(scopes, item.event.scope)
		}
	}
	return scopes
}

// send appends an event for a caller, within a budget of its own.
func (g *flushLog) send(ctx context.Context, item *outgoing, observer Observer) error {
	if g.hopeless() {
		g.sendDone(item, ErrUnavailable)
		return fmt.Errorf("%w: the flush log cannot be reached", ErrUnavailable)
	}
	budget := g.budget
	if deadline, ok := ctx.Deadline(); ok {
		budget = min(budget, time.Until(deadline))
	}
	// A caller who goes away does not end it: the connection would go with it.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	start := time.Now()
	_, err := g.client.append(bounded, item.event.fields())
	observer.RedisOp(OpAppend, time.Since(start), err)
	g.sendDone(item, err)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// hopeless tells whether the tail has just failed and events wait already: then
// one more waits with them, instead of for a server that hangs.
func (g *flushLog) hopeless() bool {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	return g.sent.broken && len(g.sent.items) > 1
}

func (g *flushLog) sendDone(item *outgoing, err error) {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	item.sending = false
	if err == nil {
		item.acked, item.round = true, g.sent.round
	}
}

// beginRound is called before each reading of the log to its end.
func (g *flushLog) beginRound() {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	g.sent.round++
}

// seen ends the hold of an event that was read, if it is one of our own. The
// shared fence has been raised.
func (g *flushLog) seen(e *event) {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	if item, ok := g.sent.items[e.ref]; ok && item.event == *e {
		g.release(item)
	}
}

// own tells whether an event is one of those that this node waits to see.
func (g *flushLog) own(e *event) bool {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	item, ok := g.sent.items[e.ref]
	return ok && item.event == *e
}

// unsent returns the events that are to be appended, and lays claim to them:
// those that were not yet, and those that Redis had taken and the round which
// began afterwards did not show. These are lost.
func (g *flushLog) unsent(limit int) []*outgoing {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	g.sent.broken = false
	var items []*outgoing
	repeated := 0
	for _, item := range g.sent.items {
		if len(items) == limit {
			break
		}
		if item.sending || item.acked && item.round >= g.sent.round {
			continue
		}
		if item.acked {
			repeated++
		}
		item.sending, item.acked = true, false
		// A new name, because the new primary may give the event the id that it had:
		// who has read the lost one would not notice that others were lost with it.
		// Should both stand in the log, the former counts as somebody else's.
		delete(g.sent.items, item.event.ref)
		item.event.ref = newRef()
		items = append(items, item)
	}
	for _, item := range items {
		g.sent.items[item.event.ref] = item
	}
	if repeated > 0 {
		g.news.add(func(n *LogNews) { n.Repeated += repeated })
	}
	return items
}

// logoutWaits tells whether a logout waits to be appended to the log, or to be
// appended again.
func (g *flushLog) logoutWaits(t tombstone) bool {
	if g.logouts.isUnsaid(t) {
		return true
	}
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	for _, item := range g.sent.items {
		if e := &item.event; !item.acked && e.kind == kindLogout && e.logout.sameAs(&t) {
			return true
		}
	}
	return false
}

// pending returns how many events Redis has not taken.
func (g *flushLog) pending() int {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	n := 0
	for _, item := range g.sent.items {
		if !item.acked {
			n++
		}
	}
	return n
}

func (g *flushLog) setBroken() {
	g.sent.mu.Lock()
	defer g.sent.mu.Unlock()
	g.sent.broken = true
}
