package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
)

// sighting is an event of the log that a node has read: where it stood, and
// which one it was.
//
// The position alone does not say which. A primary that takes over without the
// last events gives new ones ids by its own clock, and these may be those of the
// lost ones, or earlier. So nodes that have read different events, and have not
// noticed yet, would take each other's positions for their own.
type sighting struct {
	at    position
	event eventID
}

// eventID tells an event from others at its position: the first bytes of SHA-256
// over its names and values, `ref` and unknown ones included, sorted by name,
// each text after its length in 8 bytes. Nothing secret hangs on it: who may
// write to the log may flush everybody.
type eventID [8]byte

func newEventID(fields map[string]string) eventID {
	h := sha256.New()
	var length [8]byte
	add := func(text string) {
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		_, _ = h.Write(length[:])
		_, _ = h.Write([]byte(text))
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		add(name)
		add(fields[name])
	}
	return eventID(h.Sum(nil)[:len(eventID{})])
}

// parseEventID reads an id as String writes it, and no other spelling of it.
func parseEventID(text string) (id eventID, ok bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return eventID{}, false
	}
	id = eventID(raw)
	return id, id.String() == text
}

// String returns the id as entries have it: 16 hexadecimal digits.
func (id eventID) String() string { return hex.EncodeToString(id[:]) }

func (r record) sighting() sighting { return sighting{r.at, newEventID(r.fields)} }

// history is what this node has read of a generation: its events in their order,
// the one that began it included. Of those it remembers the last, at most limit,
// at 24 bytes each: 2.4 MB at the default length of the log. An entry whose event
// is not among them is not used.
//
// A history is never changed. The one that next returns shares its array, behind
// the former's end, so only the last of a line may have a next: that of the tail.
type history struct {
	limit  int
	events []sighting
}

// minHistory is the least limit: nodes must know the events that come between the
// writing of an entry and its reading.
const minHistory = 1000

func newHistory(limit int64) history { return history{limit: int(max(limit, minHistory))} }

// next returns the history with one more event. One that is full loses a quarter
// at once, so that copying costs little for each event.
func (h history) next(s sighting) history {
	if n := len(h.events); n == cap(h.events) {
		kept := h.events[max(0, n-h.limit/4*3):]
		h.events = append(make([]sighting, 0, min(max(2*n, 64), h.limit)), kept...)
	}
	h.events = append(h.events, s)
	return h
}

// has tells whether an event was read where it is said to stand.
func (h history) has(s sighting) bool {
	i, found := slices.BinarySearchFunc(h.events, s.at, func(e sighting, at position) int { return e.at.compare(at) })
	return found && h.events[i].event == s.event
}
