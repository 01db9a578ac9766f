package store

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// employee is a member with eight attributes, as a resolver makes one of a row: with
// names and values that it shares with nobody.
func employee(i int) *member.Member {
	kcID := fmt.Sprintf("8d0c5a3e-0000-4000-8000-%012d", i)
	attributes := map[string]member.Value{"roles": member.List("editor", "viewer")}
	for name, value := range map[string]string{
		"department": "research", "team": "blue", "locale": "de-CH", "plan": "gold",
		"phone": fmt.Sprintf("+41 44 %07d", i), "cost_center": fmt.Sprintf("cc-%d", i%100), "title": "Engineer",
	} {
		attributes[fmt.Sprint(name)] = member.Text(fmt.Sprint(value))
	}
	return &member.Member{KCID: kcID, Tenant: fmt.Sprintf("tenant-%d", i%50), Active: true, ID: fmt.Sprint(i), Attributes: attributes}
}

// heapHeld returns how many bytes, and objects, the heap holds.
func heapHeld() (bytes, objects float64) {
	// What earlier tests have left goes bit by bit, as their goroutines end.
	const settled = 5 // collections in a row that find little
	for calm := 0; calm < settled; calm++ {
		before := bytes
		runtime.Gosched()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		bytes, objects = float64(stats.HeapAlloc), float64(stats.HeapObjects)
		if before-bytes > 64<<10 || before == 0 {
			calm = 0
		}
	}
	return bytes, objects
}

// fillEmployees has the store hold n members of 50 tenants, all of whom are loaded.
func fillEmployees(tb testing.TB, s *Store, n int, through func(*Lookup, *member.Member)) {
	keys := newTestKeys(tb)
	for i := range n {
		m := employee(i)
		want := Want{Tenant: fmt.Sprint(m.Tenant), Issuer: fmt.Sprint(testIssuer), KCID: fmt.Sprint(m.KCID), TTL: time.Hour}
		through(s.Begin(keys.Member(want.Tenant, want.Issuer, want.KCID), want, nil), m)
	}
	s.memory.entries.CleanUp()
}

// TestHeapOfAMember bounds what a cached member with eight attributes costs in
// memory, all told, and the collector: a node of the cache, the key, the entry and
// its texts.
func TestHeapOfAMember(t *testing.T) {
	const n, bound, objects = 20000, 580, 4
	for name, through := range map[string]func(*Lookup, *member.Member){
		"that was resolved": func(l *Lookup, m *member.Member) { l.Put(t.Context(), m, time.Hour, 0) },
		"that came from Redis": func(l *Lookup, m *member.Member) {
			now := l.store.now()
			text, err := encode(&Entry{Member: *m, Tenant: l.want.Tenant, Issuer: l.want.Issuer, KCID: l.want.KCID, loaded: momentOf(now), life: time.Hour, keep: time.Hour}, testMark)
			if err != nil {
				t.Fatal(err)
			}
			entry, _, err := decode(text)
			if err != nil {
				t.Fatal(err)
			}
			entry.position, entry.places = l.position, l.store.fences.entry(l.key, &l.want, m.ID)
			l.store.texts.lean(l.key, entry) // as reading Redis does
			if !l.store.memory.add(l.key, entry, false) {
				t.Fatal("not added")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Config{MemoryBytes: 1 << 30})
			bytesBefore, objectsBefore := heapHeld()
			fillEmployees(t, s, n, through)
			bytesAfter, objectsAfter := heapHeld()
			each, pieces := (bytesAfter-bytesBefore)/n, (objectsAfter-objectsBefore)/n
			t.Logf("%.0f bytes in %.1f objects each; it is taken for %d", each, pieces, s.Stats().Bytes/n)
			if got := s.Stats().Entries; got != n {
				t.Fatalf("%d are held", got)
			}
			if each > bound {
				t.Errorf("a member with 8 attributes takes %.0f bytes, want at most %d", each, bound)
			}
			if pieces > objects+0.1 {
				t.Errorf("a member with 8 attributes takes %.1f objects, want at most %d", pieces, objects)
			}
		})
	}
}
