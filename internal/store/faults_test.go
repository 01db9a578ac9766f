package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestRedisErrorsAreTold(t *testing.T) {
	tests := map[string]struct {
		command, reply string
		lookup         string
		state          []string // after three look-ups with their stores
		sets           int      // that were sent
	}{
		"RD-003 no answer to a read":    {"GETRANGE", hang, "error", []string{"down"}, 0},
		"a dropped connection":          {"GETRANGE", drop, "error", []string{"down"}, 0},
		"RD-006 NOAUTH":                 {"GETRANGE", "-NOAUTH Authentication required.", "error", []string{"down"}, 0},
		"RD-006 NOPERM":                 {"GETRANGE", "-NOPERM this user has no permissions", "error", []string{"down"}, 0},
		"RD-008 LOADING":                {"GETRANGE", "-LOADING Redis is loading the dataset in memory", "error", []string{"down"}, 0},
		"RD-008 MASTERDOWN":             {"GETRANGE", "-MASTERDOWN Link with MASTER is down", "error", []string{"down"}, 0},
		"RD-008 CLUSTERDOWN":            {"GETRANGE", "-CLUSTERDOWN Hash slot not served", "error", []string{"down"}, 0},
		"RD-009 MOVED":                  {"GETRANGE", "-MOVED 12182 127.0.0.1:1", "error", []string{"down"}, 0},
		"RD-010 maxclients":             {"GETRANGE", "-ERR max number of clients reached", "error", []string{"down"}, 0},
		"a reply of another kind":       {"GETRANGE", "*1\r\n:1", "error", []string{"down"}, 0},
		"no reply at all but rubbish":   {"GETRANGE", "<html>", "error", []string{"down"}, 0},
		"RD-005 READONLY":               {"SET", "-READONLY You can't write against a read only replica.", "miss", []string{"read_only"}, 1},
		"RD-007 OOM":                    {"SET", "-OOM command not allowed when used memory > 'maxmemory'.", "miss", []string{"read_only"}, 1},
		"RD-006 NOPERM to write":        {"SET", "-NOPERM this user has no permissions", "miss", []string{"read_only"}, 1},
		"no answer to a write":          {"SET", hang, "miss", nil, 1},
		"CI-025 a value of other types": {"GETRANGE", "-WRONGTYPE Operation against a key holding the wrong kind of value", "invalid", nil, 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
			timeout := 5 * time.Second
			if test.reply == hang {
				timeout = 100 * time.Millisecond
			}
			s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: timeout})
			m, want := alice()
			f.answer(test.reply, test.command)

			for range 3 {
				l := s.Begin("k", want, w)
				s.memory.remove("k")
				if entry, _, _ := l.Get(t.Context()); entry != nil {
					t.Fatalf("got %+v", entry)
				}
				if entry := l.Put(t.Context(), m, time.Minute, 0); entry.Member.ID != m.ID {
					t.Fatal("the resolver's answer was lost")
				}
				if _, result := s.Memory("k", want); result != Hit {
					t.Fatalf("memory: %s", result)
				}
				f.mu.Lock()
				delete(f.values, "k")
				f.mu.Unlock()
			}
			lookup := "redis " + test.lookup
			w.expect(t, "look-ups", &w.lookups, lookup, lookup, lookup)
			w.expect(t, "states", &w.states, test.state...)
			if n := f.count("SET"); n != test.sets {
				t.Errorf("%d values were sent, want %d", n, test.sets)
			}
			for _, err := range w.errs {
				if errors.Is(err, redis.Nil) {
					t.Errorf("a miss is told as an error: %v", err)
				}
			}
		})
	}
}

func TestWritesAreTriedAgainWhileReadsGoOn(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := sharing(t, f, clock.now)
	m, want := alice()
	lookup := func(key string) Level {
		l := s.Begin(key, want, w)
		_, level, _ := l.Get(t.Context())
		if level == None {
			l.Put(t.Context(), m, time.Minute, 0)
		}
		return level
	}

	f.set("there", aliceText)
	f.answer("-READONLY You can't write against a read only replica.", "SET")
	lookup("a")
	if level := lookup("there"); level != Redis {
		t.Errorf("a replica is not read: %s", level)
	}
	lookup("b")
	if n := f.count("SET"); n != 1 {
		t.Errorf("%d writes were sent, want one and a pause", n)
	}
	clock.advance(writePause)
	lookup("c")
	if n := f.count("SET"); n != 2 {
		t.Errorf("%d writes were sent, want another try after the pause", n)
	}
	w.expect(t, "it is told once", &w.states, "read_only")

	f.answer("", "SET")
	clock.advance(writePause)
	lookup("d")
	lookup("e")
	if _, ok := f.get("e"); !ok {
		t.Error("writes stay off")
	}
	w.expect(t, "recovery", &w.states, "up")
}

func TestWritesThatGetNoAnswerAreToldAsReadOnly(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: 50 * time.Millisecond})
	m, want := alice()
	f.answer(hang, "SET")
	for i := range tripAfter {
		w.expect(t, "before", &w.states)
		l := s.Begin(fmt.Sprint(i), want, w)
		l.Get(t.Context())
		l.Put(t.Context(), m, time.Minute, 0)
		clock.advance(writePause)
	}
	w.expect(t, "after", &w.states, "read_only")
}

func TestRefusedWritesAloneDoNotStopReads(t *testing.T) {
	f, clock, w := newFakeRedis(t), newTestClock(), &witness{}
	s := sharing(t, f, clock.now)
	m, want := alice()
	f.answer("-OOM command not allowed", "SET")
	for i := range 2 * tripAfter {
		s.Begin(fmt.Sprint(i), want, w).Put(t.Context(), m, time.Hour, 0)
		clock.advance(writePause)
	}
	if n := f.count("SET"); n != 2*tripAfter {
		t.Errorf("%d writes were tried", n)
	}
	w.expect(t, "states", &w.states, "read_only")
}

func TestFullServerThatDeletesIsStillFull(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := sharing(t, f, nil)
	m, want := alice()
	f.answer("-OOM command not allowed", "SET")
	s.Begin("k", want, w).Put(t.Context(), m, time.Minute, 0)
	if err := s.Delete(t.Context(), "k", w); err != nil {
		t.Error(err)
	}
	w.expect(t, "states", &w.states, "read_only")
}

func TestRedisHasOneBudgetForALookup(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Timeout: 600 * time.Millisecond})
	m, want := alice()
	s.Begin("warm", want, w).Get(t.Context())
	w.ops = nil

	f.on(func(args []string) {
		if args[0] == "GETRANGE" || args[0] == "SET" {
			pass(400 * time.Millisecond) // either would do alone
		}
	})
	l := s.Begin("k", want, w)
	l.Get(t.Context())
	l.Put(t.Context(), m, time.Minute, 0)
	w.expect(t, "operations", &w.ops, "get ok", "set failed")
}

func TestCallersDeadlineIsNoFaultOfRedis(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := sharing(t, f, nil)
	_, want := alice()
	s.Begin("warm", want, w).Get(t.Context())
	f.answer(hang, "GETRANGE")
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		start := time.Now()
		s.Begin("k", want, w).Get(ctx)
		cancel()
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("a caller with 5ms waited %v", took)
		}
	}
	w.expect(t, "states", &w.states)

	f.answer("", "GETRANGE")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	dials := f.dialed()
	if _, level, _ := s.Begin("k", want, w).Get(gone); level != None {
		t.Error("a caller who has gone is served")
	}
	if _, level, _ := s.Begin("k", want, w).Get(t.Context()); level != None || f.dialed() > dials+1 {
		t.Errorf("%d connections afterwards, %d before", f.dialed(), dials)
	}
}

func TestBrokenRedisIsLeftAloneAndFoundAgain(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := newTestStore(t, Config{URL: f.url(), Timeout: 200 * time.Millisecond})
	m, want := alice()
	f.answer(hang, "GETRANGE")
	for range tripAfter {
		s.Begin("k", want, w).Get(t.Context())
	}
	w.expect(t, "states", &w.states, "down")
	if state := s.Stats().Redis; state != Down {
		t.Errorf("stats say %s", state)
	}
	w.lookups, w.ops = nil, nil

	start := time.Now()
	for range 1000 {
		l := s.Begin("k", want, w)
		l.Get(t.Context())
		l.Put(t.Context(), m, time.Minute, 0)
		s.memory.remove("k")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a thousand look-ups with an open breaker took %v", took)
	}
	w.expect(t, "operations", &w.ops)
	if len(w.lookups) != 1000 || w.lookups[999] != "redis skipped" {
		t.Errorf("look-ups: %d, %q", len(w.lookups), w.lookups[len(w.lookups)-1:])
	}

	f.answer("", "GETRANGE")
	eventually(t, "Redis is used again", func() bool {
		s.Begin("k", want, w).Get(t.Context())
		return len(w.ops) > 0
	})
	w.expect(t, "states", &w.states, "up")
}

func TestStateIsToldOnceWhoeverShares(t *testing.T) {
	f, a, b := newFakeRedis(t), &witness{}, &witness{}
	s := sharing(t, f, nil)
	_, want := alice()
	f.answer("-LOADING", "GETRANGE")
	for range 10 {
		s.Begin("k", want, a).Get(t.Context())
		s.Begin("k", want, b).Get(t.Context())
	}
	if got := append(a.states, b.states...); len(got) != 1 || got[0] != "down" {
		t.Errorf("told %q", got)
	}
}

func TestRefusedPortCostsNextToNothing(t *testing.T) { t.Run("RD-001", refusedPortCostsNextToNothing) }

func refusedPortCostsNextToNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()

	w := &witness{}
	s := newTestStore(t, Config{URL: "redis://" + address})
	m, want := alice()
	start := time.Now()
	for i := range 10 {
		l := s.Begin(fmt.Sprint(i), want, w)
		l.Get(t.Context())
		l.Put(t.Context(), m, time.Minute, 0)
	}
	if took := time.Since(start); took > time.Second { // go-redis' defaults: 17 s
		t.Errorf("ten look-ups took %v", took)
	}
	foundDown(t, s, w)
}

func TestAnswersOfAnotherProtocolAreErrors(t *testing.T) {
	t.Run("RD-012", answersOfAnotherProtocolAreErrors)
}

func answersOfAnotherProtocolAreErrors(t *testing.T) {
	f, w := newFakeRedis(t), &witness{}
	s := sharing(t, f, nil)
	_, want := alice()
	f.answer("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n", "HELLO", "GETRANGE")
	if entry, _, _ := s.Begin("k", want, w).Get(t.Context()); entry != nil {
		t.Errorf("got %v", entry)
	}
	w.expect(t, "look-ups", &w.lookups, "redis error")
}
