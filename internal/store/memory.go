package store

import (
	"context"
	"errors"
	"math"
	"time"

	gocache "github.com/eko/gocache/lib/v4/store"
	"github.com/maypok86/otter/v2"
)

// DefaultMemoryBytes is the size of the memory level unless the configuration
// says otherwise: 64 MiB.
const DefaultMemoryBytes = 64 << 20

// errMisuse says that a level was asked for what this package never asks for.
var errMisuse = errors.New("store: not supported by this level")

// memoryLevel keeps entries of this process. It is a level of gocache's chain,
// and is asked directly on the hot path.
type memoryLevel struct {
	entries *otter.Cache[string, *Entry]
	fences  *fences
	log     *flushLog // nil without a Redis level
	now     func() time.Time
}

func newMemoryLevel(maxBytes int64, f *fences, now func() time.Time, clock otter.Clock) (*memoryLevel, error) {
	entries, err := otter.New(&otter.Options[string, *Entry]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       weigh,
		// The entry alone says when it ends, so no write can lengthen its life.
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, *Entry]) time.Duration {
			return max(e.Value.left(now()), 1)
		}),
		Clock:  clock,
		Logger: &otter.NoopLogger{}, // it logs panics of callbacks, and ours do not
	})
	if err != nil {
		return nil, err
	}
	return &memoryLevel{entries: entries, fences: f, now: now}, nil
}

// find returns the entry for want with [Hit] or [Stale], or nil and what is
// wrong. It takes no lock and allocates nothing on a hit.
func (m *memoryLevel) find(key string, want *Want) (*Entry, Result) {
	entry, ok := m.entries.GetIfPresent(key)
	if !ok {
		return nil, Miss
	}
	result := Fenced
	if m.fences.admits(&entry.places, entry.position) {
		now := m.now()
		result = entry.judge(want, now, m.log.blind(now, entry.known))
	}
	switch result {
	case Hit, Stale:
		return entry, result
	case Expired, Blind: // it may still serve a more patient reader, or once the log is read again
	default:
		m.remove(key)
	}
	return nil, result
}

// add stores an entry unless a fence refuses it or it has ended. A promoted
// entry, which was read from Redis a while ago, does not replace a newer one.
func (m *memoryLevel) add(key string, entry *Entry, promoted bool) bool {
	if !m.fences.admits(&entry.places, entry.position) || entry.left(m.now()) <= 0 {
		return false
	}
	if !promoted {
		m.entries.Set(key, entry)
		return true
	}
	stored, _ := m.entries.Compute(key, func(old *Entry, found bool) (*Entry, otter.ComputeOp) {
		if found && m.fences.admits(&old.places, old.position) && !entry.loaded.after(old.loaded) {
			return old, otter.CancelOp
		}
		return entry, otter.WriteOp
	})
	return stored == entry
}

func (m *memoryLevel) remove(key string) { m.entries.Invalidate(key) }

// close ends otter's goroutine. The level can be used afterwards.
func (m *memoryLevel) close() { m.entries.StopAllGoroutines() }

// Get implements gocache's StoreInterface.
func (m *memoryLevel) Get(ctx context.Context, key any) (any, error) {
	entry, _, err := m.GetWithTTL(ctx, key)
	return entry, err
}

// GetWithTTL implements gocache's StoreInterface, for the look-up in ctx.
func (m *memoryLevel) GetWithTTL(ctx context.Context, key any) (any, time.Duration, error) {
	l, k := lookupFrom(ctx), keyOf(key)
	if l == nil || k == "" {
		return nil, 0, errMisuse
	}
	entry, result := m.find(k, &l.want)
	if result != Hit {
		return nil, 0, gocache.NotFoundWithCause(nil)
	}
	return entry, entry.left(m.now()), nil
}

// Set implements gocache's StoreInterface. What comes without a look-up is a
// promotion of the chain.
func (m *memoryLevel) Set(ctx context.Context, key, value any, _ ...gocache.Option) error {
	entry, ok := value.(*Entry)
	if k := keyOf(key); ok && entry != nil && entry.Member.KCID != "" && k != "" {
		m.add(k, entry, lookupFrom(ctx) == nil)
		return nil // a refused entry is as good as one that was evicted at once
	}
	return errMisuse
}

// Delete implements gocache's StoreInterface.
func (m *memoryLevel) Delete(_ context.Context, key any) error {
	m.remove(keyOf(key))
	return nil
}

// Invalidate implements gocache's StoreInterface; there are no tags.
func (m *memoryLevel) Invalidate(context.Context, ...gocache.InvalidateOption) error {
	return errMisuse
}

// Clear implements gocache's StoreInterface.
func (m *memoryLevel) Clear(context.Context) error {
	m.entries.InvalidateAll()
	return nil
}

// GetType implements gocache's StoreInterface.
func (m *memoryLevel) GetType() string { return "memory" }

func keyOf(key any) string {
	k, _ := key.(string)
	return k
}

// entryOverhead is what an entry costs beside its texts, measured on 64-bit Linux:
// otter's node and its place in hash table, policy and timer wheel; Entry, with Member.
const entryOverhead = 380

// weigh returns about how many bytes of memory an entry keeps in use. The tenant and
// the issuer, which entries share (see [sharedTexts]), are counted once for each,
// because there may be too many of them to be shared.
func weigh(key string, e *Entry) uint32 {
	return uint32(min(entryOverhead+len(key)+len(e.Tenant)+len(e.Issuer)+e.size, math.MaxUint32))
}
