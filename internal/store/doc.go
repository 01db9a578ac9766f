// Package store keeps members in memory and in Redis, so that most requests
// need not ask where members come from.
//
// A [Store] is what one `store` of the configuration stands for: two levels,
// joined by gocache's chain.
//
//	memory  otter, bounded in bytes, asked directly by [Store.Memory]
//	Redis   optional; shared by nodes, so it outlives a restart and a reload
//
// A request asks memory first. If that has no good entry, one [Lookup] per
// member reads Redis and, if need be, stores what the resolver found:
//
//	if entry, result := s.Memory(key, want); result == store.Hit { … }
//	l := s.Begin(key, want, observer)
//	entry, level, result := l.Get(ctx) // nil: ask the resolver
//	entry = l.Put(ctx, member, ttl)    // memory at once, Redis within its budget
//
// What holds for every entry, whatever level it came from: it repeats whom it
// is about and is compared with who was asked for; it is no older than its
// writer and its reader allow; it was not loaded or read before a flush of it.
//
// [Store.Flush] and [Store.Logout] put events into the flush log, a stream in
// Redis that all nodes follow and to which any program may append; event.go has
// the format, flushlog.go what makes a flush win. A node that cannot read the
// log for a few seconds uses what it loads itself, and no longer than that.
//
// Redis can neither fail a request nor hold it up: all its operations of one
// look-up share a small time budget, and a breaker leaves it alone while it
// does not answer; of a cluster, each master has one of its own. It is not
// trusted either: values are bounded, decoded strictly and checked.
//
// Look-ups that read Redis at the same time share a round trip; batch.go has how.
//
// The commands used are GETRANGE, SET, UNLINK, XADD, XRANGE and XREAD, on keys
// that begin with the prefix and a colon; a Redis user needs no other rights.
// Without XREAD the log is polled; without XADD, XRANGE and SET this node shares
// nothing.
//
// A Store is shared by configurations and outlives any one of them, so it has
// no logger, metrics or context. What there is to tell goes to the [Observer]
// of the call.
package store
