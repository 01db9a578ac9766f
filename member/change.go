package member

import "context"

// Change says which cached members may have become wrong: the most specific
// set that its fields name.
//
//	Tenant and KCID   one user in one tenant
//	Tenant and ID     one member, by the application's own id
//	KCID              one user, in all tenants
//	Tenant            all members of a tenant
//	All               everybody, whatever else is set
type Change struct {
	All    bool
	Tenant string
	KCID   string
	ID     string
}

// Watcher is implemented by a [Resolver] that can tell when its source has
// changed, so that cached members need not wait for their time to pass.
type Watcher interface {
	// Watch calls changed for each change, until ctx ends. It returns at once;
	// changed is called on another goroutine, never by two at a time, and may
	// take a while. After each time for which changes may have been missed, the
	// one before the first connection included, changed is called with All.
	Watch(ctx context.Context, changed func(Change))

	// WatchIdentity returns a text that differs between any two that watch
	// different things, or the same with other credentials; "" if Watch would do
	// nothing. It may hold what is secret: it is kept in memory only.
	WatchIdentity() string
}

// WatchTeller is implemented by a [Watcher] that can tell how it is doing. Metrics are
// made of that.
type WatchTeller interface {
	// WatchState returns what has come of watching so far.
	WatchState() WatchState
}

// WatchState is how a [Watcher] is doing. Its counts begin with the source's first
// watch, and may go on across configurations.
type WatchState struct {
	Connected  bool   // whether changes are heard of now
	Failures   uint64 // connections that could not be made, or were lost
	Changes    uint64 // times that the source has told of a change
	Unreadable uint64 // of these, what was not understood and taken to mean everybody
}

// Checker is implemented by a [Resolver] that can find out, before there are
// requests, whether it would be able to answer them.
type Checker interface {
	// Check asks the source about a user who does not exist. It returns an error
	// that says what is wrong and how to mend it, or nil.
	Check(ctx context.Context) error
}
