package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// memoryLog is a log for tests that need no server.
type memoryLog struct {
	mu      sync.Mutex
	records []record
	clock   uint64
	fails   error
	reads   atomic.Int64
}

func (m *memoryLog) append(_ context.Context, fields []string) (position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails != nil {
		return position{}, m.fails
	}
	m.clock++
	at := position{millis: m.clock}
	m.records = append(m.records, record{at, fieldsOf(fields)})
	return at, nil
}

func (m *memoryLog) read(_ context.Context, from position, count int) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads.Add(1)
	i, _ := slices.BinarySearchFunc(m.records, from, func(r record, at position) int { return r.at.compare(at) })
	return slices.Clone(m.records[i:min(len(m.records), i+count)]), m.fails
}

func (m *memoryLog) wait(ctx context.Context, after position) error {
	for end := time.Now().Add(waitFor); time.Now().Before(end) && ctx.Err() == nil; pass(time.Millisecond) {
		m.mu.Lock()
		news := len(m.records) > 0 && m.records[len(m.records)-1].at.compare(after) > 0
		err := m.fails
		m.mu.Unlock()
		if news || err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memoryLog) drop(context.Context) error { return nil }
func (m *memoryLog) close() error               { return nil }

func (m *memoryLog) generations() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if r.fields[fieldKind] == kindGeneration {
			n++
		}
	}
	return n
}

func (m *memoryLog) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

// newTestLog returns a log that is not followed until start is called.
func newTestLog(t *testing.T, client logClient) *flushLog {
	t.Helper()
	cfg := Config{URL: "redis://unused", Now: time.Now}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	g := newFlushLog(client, &cfg, time.Now(), newFences(), newLogouts(cfg.MaxLogouts))
	g.check = func() {}
	t.Cleanup(func() { _ = g.stop() })
	return g
}

func TestNodesThatStartTogetherAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memoryLog{}
		nodes := make([]*flushLog, 5)
		for i := range nodes {
			nodes[i] = newTestLog(t, m)
			nodes[i].start()
		}
		agree := func(what string) {
			t.Helper()
			pass(time.Minute)
			before := m.generations()
			pass(time.Minute)
			if n := m.generations(); n != before {
				t.Errorf("%s: they keep beginning generations: %d, then %d", what, before, n)
			}
			for _, node := range nodes {
				if h := node.head.Load(); h == nil || h.generation.id != nodes[0].head.Load().generation.id {
					t.Errorf("%s: they are in different generations", what)
				}
			}
		}
		agree("at the start")
		if n := m.generations(); n > len(nodes) {
			t.Errorf("%d generations", n)
		}
		known := nodes[0].head.Load().generation.id
		_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{All: true})))
		pass(time.Second)
		before := m.generations()
		m.mu.Lock()
		m.records = m.records[:len(m.records)-1] // a failover that loses the last event
		m.mu.Unlock()
		agree("after a loss")
		if n := m.generations(); n == before || n > before+len(nodes) {
			t.Errorf("%d generations before, %d afterwards", before, n)
		}
		if nodes[0].head.Load().generation.id == known {
			t.Error("the old generation is still in force")
		}
		m.mu.Lock()
		m.records = nil // eviction
		m.mu.Unlock()
		agree("after the end of the log")
		if n := m.generations(); n == 0 || n > len(nodes) {
			t.Errorf("%d generations", n)
		}
	})
}

func TestTailIsPatientWithALogThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memoryLog{}
		g, w := newTestLog(t, m), &witness{}
		var checks atomic.Int64
		g.check = func() { checks.Add(1) }
		g.start()
		pass(time.Second)
		g.news.tell(w)
		w.expect(t, "states", &w.logs, "followed")
		if g.blind(g.now(), never) {
			t.Error("it is blind")
		}
		m.fail(errTest)
		before := m.reads.Load()
		pass(time.Minute)
		if n := m.reads.Load() - before; n < 30 || n > 130 || checks.Load() < n-1 {
			t.Errorf("%d readings and %d checks in a minute", n, checks.Load())
		}
		for range 3 {
			g.news.tell(w)
		}
		w.expect(t, "states", &w.logs, "blind")
		if !g.blind(g.now(), never) || g.followed(g.now()) != nil {
			t.Error("it is not blind")
		}
		if g.blind(g.now(), g.elapsed(g.now().Add(-DefaultMaxBlind))) || !g.blind(g.now(), g.elapsed(g.now().Add(-DefaultMaxBlind-1))) {
			t.Error("what was loaded within max_blind is not told from what was not")
		}
		m.fail(nil)
		pass(2 * time.Second)
		g.news.tell(w)
		w.expect(t, "states", &w.logs, "followed")
		if g.blind(g.now(), never) {
			t.Error("it stays blind")
		}
	})
}

func TestTailPollsWhereItMayNotWait(t *testing.T) {
	f := newFakeRedis(t)
	f.answer("-NOPERM this user has no permissions to run the 'xread' command", "XREAD")
	s := sharing(t, f, nil)
	f.appended(lineOf(flushEvent(Scope{All: true}))...)
	caughtUp(t, f, s)
	before := f.count("XRANGE")
	eventually(t, "it polls", func() bool { return f.count("XRANGE") > before+3 })
	if n := f.count("XREAD"); n != 1 {
		t.Errorf("it tried to wait %d times", n)
	}
}

func TestLogThatIsNoStreamIsReplaced(t *testing.T) {
	f := newFakeRedis(t)
	s := sharing(t, f, nil)
	f.answer("-WRONGTYPE Operation against a key holding the wrong kind of value", "XRANGE")
	f.on(func(args []string) {
		if args[0] == "UNLINK" && args[1] == "kca:3:log" {
			f.change(func([]fakeEvent) []fakeEvent { return nil })
			f.answer("", "XRANGE")
		}
	})
	eventually(t, "there is another generation", func() bool {
		h := s.log.head.Load()
		return h != nil && h.generation.id != testGeneration
	})
}

func TestLongLogsAreReadInPages(t *testing.T) {
	m := &memoryLog{}
	for i := range 3 * maxPage {
		if i == 10 {
			_, _ = m.append(t.Context(), []string{fieldKind, kindGeneration, fieldID, "g"})
		}
		_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{KCID: "8d0c"})))
	}
	g := newTestLog(t, m)
	if n, err := g.tail.round(t.Context()); err != nil || n != 3*maxPage+1 {
		t.Fatalf("%d events, error %v", n, err)
	}
	if h := g.head.Load(); h.generation.id != "g" || h.last.at.millis != 3*maxPage+1 || h.history.events[0].at.millis != 11 {
		t.Errorf("%+v", h)
	}
	for range 2*maxPage + 1 {
		_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{KCID: "8d0c"})))
	}
	if n, err := g.tail.round(t.Context()); err != nil || n != 2*maxPage+1 {
		t.Fatalf("%d events, error %v", n, err)
	}
	last := m.records[len(m.records)-1]
	for what, records := range map[string][]record{
		"it is trimmed":              nil,
		"another event stands there": {{last.at, fieldsOf(lineOf(flushEvent(Scope{All: true})))}},
	} {
		m.records = records
		if _, _, err := g.tail.page(t.Context()); !errors.Is(err, errLost) {
			t.Errorf("%s: error is %v", what, err)
		}
	}
	m.records = []record{last}
	if page, _, err := g.tail.page(t.Context()); err != nil || len(page) != 0 {
		t.Errorf("all before the last event is trimmed: %d events, error %v", len(page), err)
	}
}

// forgetfulLog shows nothing of what is appended.
type forgetfulLog struct{ *memoryLog }

func (forgetfulLog) read(context.Context, position, int) ([]record, error) { return nil, nil }

func TestLogThatShowsNothingIsNotFloodedWithGenerations(t *testing.T) {
	m := &memoryLog{}
	g := newTestLog(t, forgetfulLog{m})
	for n := 1; n < 4; n++ {
		if _, err := g.tail.round(t.Context()); !errors.Is(err, errNotShown) || g.head.Load() != nil {
			t.Errorf("error is %v", err)
		}
		if m.generations() != n {
			t.Errorf("%d generations after %d rounds", m.generations(), n)
		}
	}
}

func TestFreshnessIsWhenReadingBegan(t *testing.T) {
	clock := newTestClock()
	m := &memoryLog{}
	g := newTestLog(t, m)
	g.born, g.now = clock.now(), func() time.Time { clock.advance(time.Second); return clock.now() }
	for range 2 {
		if _, err := g.tail.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := g.elapsed(clock.now())
	if _, err := g.tail.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := g.fresh.Load(); got != before+int64(time.Second) {
		t.Errorf("fresh is %v, reading began at %v", got, before+int64(time.Second))
	}
}
