package store

import (
	"slices"
	"strconv"
	"testing"
)

func TestEventIDsTellEventsApart(t *testing.T) {
	base := map[string]string{"kind": "flush", "scope": "all", "ref": "1"}
	id := newEventID(base)
	if id.String() != "126845f6f45d97bc" { // computed by another program
		t.Errorf("the id of the documented event is %v", id)
	}
	for name, fields := range map[string]map[string]string{
		"another ref":                   {"kind": "flush", "scope": "all", "ref": "2"},
		"no ref":                        {"kind": "flush", "scope": "all"},
		"a field that nobody knows":     {"kind": "flush", "scope": "all", "ref": "1", "x": ""},
		"a name and its value swapped":  {"kind": "flush", "all": "scope", "ref": "1"},
		"the border of the texts moved": {"kind": "flush", "scop": "eall", "ref": "1"},
	} {
		if newEventID(fields) == id {
			t.Errorf("%s: the same id", name)
		}
	}
}

// A history remembers the last events that it was given, and no more of them
// than its limit; what was read from it before does not change.
func TestHistoriesAreBoundedAndDoNotChange(t *testing.T) {
	const limit = minHistory
	see := func(n int) sighting {
		return sighting{position{millis: uint64(n)}, newEventID(map[string]string{"ref": strconv.Itoa(n)})}
	}
	h := newHistory(1)
	var before []history
	for n := range 5 * limit {
		h = h.next(see(n))
		if len(h.events) > limit || cap(h.events) > limit {
			t.Fatalf("after %d events it has %d, and room for %d", n, len(h.events), cap(h.events))
		}
		if n%(limit/2) == limit/4 {
			before = append(before, h)
		}
		for back := range min(n, limit/4*3) {
			if back%97 == 0 && !h.has(see(n-back)) {
				t.Fatalf("after event %d, the one %d before is forgotten", n, back)
			}
		}
	}
	for i, old := range before {
		last := i*limit/2 + limit/4
		if !old.has(see(last)) || old.has(see(last+1)) {
			t.Errorf("what was read after event %d has changed", last)
		}
	}
	if h.has(see(0)) {
		t.Error("the first event is remembered for ever")
	}
	if !slices.IsSortedFunc(h.events, func(a, b sighting) int { return a.at.compare(b.at) }) {
		t.Error("it is out of order")
	}
	last := see(5*limit - 1)
	last.event[0] ^= 1
	if h.has(last) {
		t.Error("another event at the same position is taken for the one that was read")
	}
}

// lose has a log forget its last events, as a failover does, and give the next
// event an id that follows a position.
func (m *memoryLog) lose(events int, last uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = m.records[:len(m.records)-events]
	m.clock = last
}

// A node has read an event that a failover lost, another one what the new primary
// gave its place, an earlier or a later one. Until they notice, an entry that one
// of them writes must not pass with the other for newer than what that one read.
func TestPositionsOfLostEventsAreNobodyElses(t *testing.T) {
	_, want := alice()
	for name, clock := range map[string]uint64{"the same id": 1, "an earlier id": 0, "a later id": 5} {
		t.Run(name, func(t *testing.T) {
			m := &memoryLog{}
			add := func(kind ...string) { _, _ = m.append(t.Context(), append([]string{fieldKind}, kind...)) }
			follow := func(g *flushLog) *head {
				if _, err := g.tail.round(t.Context()); err != nil {
					t.Fatal(err)
				}
				return g.head.Load()
			}
			m.clock = 1
			add(kindGeneration, fieldID, "g") // 2
			before, after := newTestLog(t, m), newTestLog(t, m)
			follow(after)
			m.clock += 2
			add(kindFlush, fieldScope, nameTenant, fieldTenant, "umbrella", fieldRef, "lost") // 5
			lost := follow(before).mark()
			m.lose(1, 3+clock)
			add(kindFlush, fieldScope, nameTenant, fieldTenant, want.Tenant, fieldRef, "new")
			read := follow(after).mark()

			at := func(g *flushLog) *places { p := g.fences.entry("k", &want, ""); return &p }
			if after.admits(at(after), lost) {
				t.Errorf("an entry of %v passes where %v was read", lost.at, read.at)
			}
			if before.admits(at(before), read) {
				t.Errorf("an entry of %v passes where %v was read", read.at, lost.at)
			}
			if !after.admits(at(after), read) || !before.admits(at(before), lost) {
				t.Error("nothing passes: this proves nothing")
			}
			if h := follow(before); h.generation.id == "g" || before.admits(at(before), lost) {
				t.Errorf("after the loss was noticed, generation %q is in force", h.generation.id)
			}
		})
	}
}

// Generation g lost a flush, so a node began another; if that is lost as well, g
// must not come back into force: the flush is still missing in it.
func TestNoGenerationComesBack(t *testing.T) {
	m := &memoryLog{}
	g := newTestLog(t, m)
	in := func() string {
		if _, err := g.tail.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		return g.head.Load().generation.id
	}
	seen := []string{in()}
	_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{All: true})))
	in()
	m.lose(1, 1)
	for range 3 {
		id := in()
		if slices.Contains(seen, id) {
			t.Fatalf("generation %q is in force again", id)
		}
		seen = append(seen, id)
		m.lose(1, m.clock) // the event that began it
	}

	// Nor one that was only read in passing.
	_, _ = m.append(t.Context(), []string{fieldKind, kindGeneration, fieldID, "passing"})
	_, _ = m.append(t.Context(), []string{fieldKind, kindGeneration, fieldID, "last"})
	if id := in(); id != "last" {
		t.Fatalf("in generation %q", id)
	}
	m.lose(1, m.clock)
	if id := in(); id == "passing" {
		t.Error("a generation that was read in passing is in force")
	}
	for range 2 * maxKnownGenerations {
		g.tail.knows([]string{newGeneration()})
	}
	if n := len(g.tail.known); n > maxKnownGenerations {
		t.Errorf("%d generations are remembered", n)
	}
}
