package store

import (
	"hash/maphash"
	"sync/atomic"
)

// fenceSlots is how many fences a store has: 128 KiB of them.
const fenceSlots = 1 << 14

// fences refuse what was loaded or read before a deletion, so that work in
// flight cannot bring back what was deleted meanwhile.
//
// A store counts its deletions. Whoever begins to load or read an entry notes
// the count, its position, in the entry; a deletion raises the fence of its
// key to a new count; an entry whose position is below the fence of its key is
// refused, when it is set and again when it is got. So nobody waits for
// anybody: an entry that slips in between check and deletion is found out when
// it is read.
//
// Many keys share a fence. That errs to the safe side: a deletion may make a
// few other entries miss once.
type fences struct {
	count atomic.Uint64
	seed  maphash.Seed
	slots []atomic.Uint64
}

func newFences() *fences {
	return &fences{seed: maphash.MakeSeed(), slots: make([]atomic.Uint64, fenceSlots)}
}

// position returns what an entry carries whose loading or reading begins now.
func (f *fences) position() uint64 { return f.count.Load() }

// raise refuses every entry under key that was begun before this call.
func (f *fences) raise(key string) {
	position := f.count.Add(1)
	slot := f.slot(key)
	for {
		height := slot.Load()
		if height >= position || slot.CompareAndSwap(height, position) {
			return
		}
	}
}

// admits tells whether an entry under key with this position may be used.
func (f *fences) admits(key string, position uint64) bool {
	return position >= f.slot(key).Load()
}

func (f *fences) slot(key string) *atomic.Uint64 {
	return &f.slots[maphash.String(f.seed, key)%fenceSlots]
}
