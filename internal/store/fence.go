package store

import (
	"hash/maphash"
	"sync/atomic"
)

// fenceSlots is how many fences of each sort a store has: 128 KiB of them. It
// is no more than a uint16 can count.
const fenceSlots = 1 << 14

// fences refuse what this node loaded or read before a flush or a deletion, so
// that work in flight cannot bring back what is meant to be gone.
//
// A store counts its flushes and deletions. Whoever begins to load or read an
// entry notes the count in it; a flush raises the fence at the place of its
// scope to a new count; an entry whose count is below a fence that it has to
// pass is refused, when it is set and again when it is got. So nobody waits for
// anybody: an entry that slips in between check and flush is found out when it
// is read.
//
// Many scopes share a fence. That errs to the safe side: a flush may make a few
// other entries miss once.
type fences struct {
	hasher
	count atomic.Uint64
	slots heights
}

// heights are the heights of fences by place.
type heights []atomic.Uint64

func newFences() *fences {
	return &fences{hasher: hasher{maphash.MakeSeed()}, slots: make(heights, fenceSlots)}
}

// position returns what an entry carries whose loading or reading begins now.
func (f *fences) position() uint64 { return f.count.Load() }

// raise refuses every entry at these places that was begun before this call.
func (f *fences) raise(places ...uint16) {
	position := f.count.Add(1)
	for _, place := range places {
		f.slots.raise(place, position)
	}
}

// raiseKey refuses every entry under key that was begun before this call.
func (f *fences) raiseKey(key string) { f.raise(f.key(key)) }

// admits tells whether an entry at these places, begun at this position, may be
// used. As long as there was no flush since, that is one comparison.
func (f *fences) admits(p *places, position uint64) bool {
	return position == f.count.Load() || f.slots.admit(p, position)
}

// admitsOwn is admits for somebody who has raised a fence himself, to that
// height: it does not refuse him.
func (f *fences) admitsOwn(p *places, position, own uint64) bool {
	if own == 0 {
		return f.admits(p, position)
	}
	for _, place := range p {
		if height := f.slots[place].Load(); position < height && height != own {
			return false
		}
	}
	return true
}

// raiseOwn is raiseKey for somebody who began at this position. It returns the
// new height of the fence, or 0 if the fence refuses him already.
func (f *fences) raiseOwn(place uint16, position uint64) uint64 {
	height := f.count.Add(1)
	slot := &f.slots[place]
	for {
		switch there := slot.Load(); {
		case there > position:
			return 0
		case slot.CompareAndSwap(there, height):
			return height
		}
	}
}

// raise lifts one fence, unless it is higher already.
func (h heights) raise(place uint16, position uint64) {
	slot := &h[place]
	for {
		height := slot.Load()
		if height >= position || slot.CompareAndSwap(height, position) {
			return
		}
	}
}

// admit tells whether a position is below none of the fences.
func (h heights) admit(p *places, position uint64) bool {
	for _, place := range p {
		if position < h[place].Load() {
			return false
		}
	}
	return true
}
