package keycloakcacheauth

import (
	"sync"
	"time"
)

// flights are the look-ups that are under way in a store: one per member and node,
// whose result all share who ask for the member meanwhile.
//
// It is what golang.org/x/sync/singleflight does, for look-ups that begin on the
// goroutine of who asks first: to read Redis needs neither a second one nor a
// channel, unless somebody else comes to wait.
type flights struct {
	mu    sync.Mutex
	under map[flightKey]*flight
}

// flightKey tells which look-ups may share their result. Whoever accepts another
// age of members may need another one.
type flightKey struct {
	key        string
	ttl, stale time.Duration
	renewal    bool // in the background; nobody waits for it
}

// flight is one look-up.
type flight struct {
	landed chan struct{} // closed once there is a result; nil while nobody waits for it
	result flightResult
}

// board returns the look-up that is under way, or one that the caller has to carry
// out, and to land.
func (f *flights) board(key flightKey) (joined *flight, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if there := f.under[key]; there != nil {
		there.expect()
		return there, false
	}
	if f.under == nil {
		f.under = make(map[flightKey]*flight)
	}
	joined = new(flight)
	f.under[key] = joined
	return joined, true
}

// await has a look-up's first waiter wait like the others.
func (f *flights) await(joined *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	joined.expect()
}

// expect is called with the mutex held.
func (f *flight) expect() {
	if f.landed == nil {
		f.landed = make(chan struct{})
	}
}

// land ends a look-up with its result.
func (f *flights) land(key flightKey, joined *flight, result flightResult) {
	f.mu.Lock()
	defer f.mu.Unlock()
	joined.result = result
	if joined.landed != nil {
		close(joined.landed)
	}
	f.remove(key, joined)
}

// forget has whoever asks next begin a look-up of their own. This one goes on.
func (f *flights) forget(key flightKey, joined *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(key, joined)
}

// remove is called with the mutex held.
func (f *flights) remove(key flightKey, joined *flight) {
	if f.under[key] == joined {
		delete(f.under, key)
	}
}
