package store

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

var (
	schedules    = flag.Int("schedules", defaultSchedules, "how many interleavings of flushes and look-ups are tried")
	scheduleSeed = flag.Uint64("schedule-seed", 1, "which interleavings: another number is others")
)

// exists tells whether the database has the member.
func exists(version int) bool { return version%4 != 3 }

// ask is a request for the member.
func (w *world) ask(n int) {
	node, least, from := w.nodes[n], w.least(n), "memory"
	version, a := -1, w.running
	defer func() {
		if a.died {
			return
		}
		w.asked++
		w.hits[from]++
		w.note("node %d answers %d from %s, asked when %d was the least", n, version, from, least)
		if version < least {
			w.stale = append(w.stale, fmt.Sprintf("node %d serves version %d from %s after the flush of %d; what happened:\n%s",
				n, version, from, least, strings.Join(w.trace, "\n")))
		}
	}()
	spare, result := node.Memory(w.key, w.want)
	if result == Hit {
		version = versionOf(spare)
		return
	}
	if reason, ok := node.Absent(w.key, w.want); ok {
		version, _ = strconv.Atoi(reason)
		from = "absence"
		return
	}
	w.pause()
	l := node.Begin(w.key, w.want, between{world: w})
	w.pause()
	entry, level, result := l.Get(context.Background())
	if result == Hit {
		version, from = versionOf(entry), level.String()
		return
	}
	w.pause()
	if w.chance(35) { // the resolver fails
		version, from = w.version, "nothing"
		if entry != nil {
			version, from = versionOf(entry), "stale "+level.String()
		}
		return
	}
	version, from = w.resolve(l), "database"
}

// resolve asks the database and stores what it says.
func (w *world) resolve(l *Lookup) int {
	version := w.version
	w.pause()
	if exists(version) {
		m, _ := alice()
		m.KCID = w.want.KCID
		m.Attributes = map[string]member.Value{"version": member.Text(strconv.Itoa(version))}
		l.Put(context.Background(), m, 10*time.Second, 20*time.Second)
	} else {
		l.PutAbsent(context.Background(), strconv.Itoa(version), 5*time.Second)
	}
	return version
}

func versionOf(e *Entry) int {
	version, _ := strconv.Atoi(e.Member.Attribute("version").Text())
	return version
}

// flush changes the member and flushes it.
func (w *world) flush(n int) {
	w.version++
	version := w.version
	w.running.version = version
	scopes := []Scope{
		{Tenant: w.want.Tenant, KCID: w.want.KCID},
		{Issuer: w.want.Issuer, KCID: w.want.KCID},
		{KCID: w.want.KCID},
		{Tenant: w.want.Tenant},
		{All: true},
		{Tenant: w.want.Tenant, MemberID: "4711"},
	}
	i := w.random.IntN(len(scopes))
	w.note("node %d begins to flush version %d: %+v", n, version, scopes[i])
	_, err := w.nodes[n].Flush(context.Background(), scopes[i], nil)
	for _, item := range w.nodes[n].log.sent.items {
		if _, known := w.sent[item]; !known {
			w.sent[item] = version // it was not even tried to send it
		}
	}
	w.nodes[n].least = max(w.nodes[n].least, version)
	w.note("node %d has flushed version %d: %v", n, version, err)
}

// tail lets a node read the log.
func (w *world) tail(n int) {
	t := &w.nodes[n].log.tail
	t.quietUntil = time.Time{}
	if _, err := t.round(context.Background()); err != nil {
		t.failed(err)
	}
	w.note("node %d has read up to %v", n, t.last.at)
}

// refresh renews what is stored without looking at it.
func (w *world) refresh(n int) {
	l := w.nodes[n].Begin(w.key, w.want, nil)
	w.pause()
	w.note("node %d has refreshed version %d", n, w.resolve(l))
}

// run carries out one schedule.
func (w *world) run(number int) {
	_, want := alice()
	want.KCID = "user-" + strconv.Itoa(number)
	want.TTL, want.Stale = 10*time.Second, 20*time.Second
	w.want, w.key, w.version = want, "key-"+strconv.Itoa(number), 0
	w.flushes, w.trace, w.stale = nil, nil, nil
	clear(w.sent)
	for _, node := range w.nodes {
		node.least = 0
	}
	w.reading = [worldNodes]bool{}
	w.trim()
	calm := w.chance(30)                  // otherwise one failover follows another
	slow := w.random.IntN(worldNodes + 1) // the node that seldom reads the log, if any
	if !calm && w.chance(20) {
		w.split()
	}
	for budget := 20 + w.random.IntN(40); budget > 0 || len(w.actors) > 0; budget-- {
		if budget > 0 && (len(w.actors) == 0 || w.chance(40)) {
			n := w.random.IntN(worldNodes)
			switch p := w.random.IntN(100); {
			case p < 45:
				w.spawn(n, func() { w.ask(n) })
			case p < 60:
				w.spawn(n, func() { w.flush(n) })
			case p < 80:
				if !w.reading[n] && (n != slow || w.chance(20)) {
					w.reading[n] = true
					w.spawn(n, func() { w.tail(n); w.reading[n] = false })
				}
			case p < 84 || !calm && p < 87:
				w.spawn(n, func() { w.refresh(n) })
			case p < 89: // evicted
				w.nodes[n].memory.remove(w.key)
			case p < 92 || calm && p < 97:
				w.clock.advance(time.Duration(w.random.IntN(8000)) * time.Millisecond)
			case p < 98:
				w.failover()
				if w.chance(15) { // perhaps who wrote what was lost
					w.restart(n)
				}
			default:
				w.clock.advance(time.Duration(w.random.IntN(1000)) * time.Millisecond)
			}
			continue
		}
		if len(w.actors) > 0 {
			w.step()
		}
	}
	// In the end all nodes have read the log, and nobody is behind.
	for range 2 {
		for n := range w.nodes {
			w.finish(n, func() { w.tail(n) })
		}
	}
	for n := range w.nodes {
		w.finish(n, func() { w.ask(n) })
	}
}

// finish carries out one thing, and whatever is under way, to its end.
func (w *world) finish(n int, f func()) {
	w.spawn(n, f)
	for len(w.actors) > 0 {
		w.step()
	}
}

// split begins a schedule with what seldom comes about by chance: one node has
// read what is lost, and is loading, when another writes in its place.
func (w *world) split() {
	knows, other := w.random.IntN(worldNodes), w.random.IntN(worldNodes)
	writer := w.random.IntN(worldNodes)
	w.finish(writer, func() { w.flush(writer) })
	w.finish(knows, func() { w.tail(knows) })
	w.spawn(knows, func() { w.refresh(knows) })
	for n := w.random.IntN(6); n > 0 && len(w.actors) > 0; n-- {
		w.step()
	}
	w.failover()
	if writer != knows && w.chance(50) {
		w.restart(writer)
	}
	w.spawn(other, func() { w.flush(other) })
}

// After a flush has returned, its node never serves what was loaded before it,
// and another node never does once it has read it, whatever comes in between.
func TestFlushWinsInAllSchedules(t *testing.T) {
	t.Run("IV-001 IV-013 IV-014", flushWinsInAllSchedules)
}

func flushWinsInAllSchedules(t *testing.T) {
	var (
		mu    sync.Mutex
		hits  = map[string]int{}
		asked int
		stale int // schedules with a stale answer
		seeds atomic.Int64
		wait  sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				seed := seeds.Add(1)
				if (seed-1)*schedulesPerWorld >= int64(*schedules) {
					return
				}
				w := newWorld(t, uint64(seed))
				for number := range schedulesPerWorld {
					if w.run(number); len(w.stale) == 0 {
						continue
					}
					mu.Lock()
					if stale++; stale == 1 {
						t.Errorf("world %d, schedule %d: %s", seed, number, w.stale[0])
					}
					mu.Unlock()
				}
				w.close()
				mu.Lock()
				asked += w.asked
				for from, n := range w.hits {
					hits[from] += n
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	t.Logf("%d answers in %d schedules: %v", asked, *schedules, hits)
	if stale > 0 {
		t.Errorf("%d schedules have a stale answer", stale)
	}
	for _, from := range []string{"memory", "redis", "database", "absence", "stale memory", "stale redis"} {
		if *schedules >= 5000 && hits[from] == 0 {
			t.Errorf("only %d answers came from %s: the schedules are not what they should be", hits[from], from)
		}
	}
}
