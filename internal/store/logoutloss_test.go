package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// shortLog keeps so many events, as a stream with a MAXLEN.
type shortLog struct {
	*memoryLog
	length int
}

func (s shortLog) append(ctx context.Context, fields []string) (position, error) {
	at, err := s.memoryLog.append(ctx, fields)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = s.records[max(0, len(s.records)-s.length):]
	return at, err
}

// logoutsIn returns how many events of the log are logouts.
func (m *memoryLog) logoutsIn() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if r.fields[fieldKind] == kindLogout {
			n++
		}
	}
	return n
}

// inBubble runs a test in a synctest bubble, with a function that starts nodes
// on a log there.
func inBubble(t *testing.T, test func(t *testing.T, node func(log logClient, length int64) *Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var nodes []*Store
		test(t, func(log logClient, length int64) *Store {
			s, err := New(Config{URL: "redis://127.0.0.1:1", logClient: log, LogLength: length})
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, s)
			return s
		})
		for _, s := range nodes {
			_ = s.Destruct()
		}
		pass(time.Minute) // until otter's goroutines have ended, too
	})
}

// sessionEnd is the logout of a session that ends now.
func sessionEnd(sid string) Logout {
	return Logout{Issuer: testIssuer, SID: sid, IssuedAt: time.Now(), Until: time.Now().Add(24 * time.Hour)}
}

func mustLogOut(t *testing.T, s *Store, logout Logout) {
	t.Helper()
	if news, err := s.Logout(t.Context(), logout, nil); err != nil || !news {
		t.Fatalf("news %t, error %v", news, err)
	}
}

func TestANodeThatStartsWithoutRedisDoesNotKnowTheLogouts(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		m := &memoryLog{}
		here := node(m, 0)
		pass(5 * time.Second)
		mustLogOut(t, here, sessionEnd("s"))
		pass(time.Second)
		if !here.LogoutsKnown() || !here.Stats().LogoutsKnown {
			t.Error("who has read the log does not know")
		}

		m.fail(errTest)
		there := node(m, 0)
		pass(time.Hour)
		if there.LogoutsKnown() || there.LoggedOut(testIssuer, "s", "alice", time.Now()) {
			t.Error("it knows what it cannot")
		}
		if !here.LogoutsKnown() {
			t.Error("who knew the logouts does not any more")
		}
		m.fail(nil)
		pass(2 * time.Second)
		if !there.LogoutsKnown() || !there.LoggedOut(testIssuer, "s", "alice", time.Now()) {
			t.Error("it does not know though it could read the log")
		}
	})
	if !newTestStore(t, Config{}).LogoutsKnown() {
		t.Error("without Redis there are others to know of")
	}
}

// readOnlyLog takes nothing.
type readOnlyLog struct{ *memoryLog }

func (readOnlyLog) append(context.Context, []string) (position, error) { return position{}, errTest }

func TestLogoutsAreKnownThoughNoGenerationCanBeBegun(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		m := &memoryLog{}
		_, _ = m.append(t.Context(), lineOf(logoutEvent(tombstone{testIssuer, "s", "", time.Now().Unix(), time.Now().Add(time.Hour).Unix()})))
		s := node(readOnlyLog{m}, 0)
		pass(5 * time.Second)
		if !s.LogoutsKnown() || !s.LoggedOut(testIssuer, "s", "", time.Now()) || s.log.head.Load() != nil {
			t.Error("a log on a replica teaches nothing")
		}
	})
}

func TestLogoutsSurviveTheTrimmingOfTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		m := shortLog{&memoryLog{}, 100}
		nodes := []*Store{node(m, 100), node(m, 100), node(m, 100)}
		pass(5 * time.Second)
		for i := range 10 {
			mustLogOut(t, nodes[0], sessionEnd(fmt.Sprint(i)))
		}
		pass(time.Second)
		for i := range 300 {
			if _, err := nodes[i%3].Flush(t.Context(), Scope{KCID: fmt.Sprint(i)}, nil); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				pass(5 * time.Second) // two flushes a second
			}
		}
		restarted := node(m, 100)
		pass(5 * time.Second)
		for i := range 10 {
			if !restarted.LoggedOut(testIssuer, fmt.Sprint(i), "alice", time.Now()) {
				t.Errorf("a node that is started afterwards does not know of logout %d", i)
			}
		}
		if n := m.generations(); n > 1 {
			t.Errorf("%d generations: a flush of everybody each time", n)
		}

		// Once said they are said no more.
		pass(2 * time.Minute)
		before := m.clock
		pass(10 * time.Minute)
		if m.clock != before {
			t.Errorf("%d events without a reason", m.clock-before)
		}
	})
}

func TestLogoutsAreSaidAgainByFewNodes(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		const logouts, count = 200, 8
		m := &memoryLog{}
		var nodes []*Store
		for range count {
			nodes = append(nodes, node(m, 0))
		}
		pass(5 * time.Second)
		for i := range logouts {
			mustLogOut(t, nodes[0], sessionEnd(fmt.Sprint(i)))
		}
		pass(time.Second)
		m.mu.Lock()
		m.records = m.records[len(m.records)-1:] // somebody trims it, to the last event
		m.mu.Unlock()
		pass(3 * time.Minute)
		if n := m.logoutsIn(); n < logouts || n > 2*logouts {
			t.Errorf("%d logouts are said %d times", logouts, n)
		}
		restarted := node(m, 0)
		pass(5 * time.Second)
		if n := restarted.Stats().Logouts; n != logouts {
			t.Errorf("a node that is started afterwards knows of %d", n)
		}
	})
}

func TestSayingLogoutsAgainIsNoStorm(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		const logouts = 10 * saidASecond
		m := &memoryLog{}
		other := node(&memoryLog{}, 0)
		pass(time.Second)
		for i := range logouts {
			other.logouts.add(tombstone{testIssuer, fmt.Sprint(i), "", time.Now().Unix(), time.Now().Add(time.Hour).Unix()}, time.Now())
		}
		s := node(m, 0)
		s.Adopt(other)
		start := time.Now()
		for m.logoutsIn() < logouts {
			before := m.logoutsIn()
			pass(time.Second)
			if n := m.logoutsIn() - before; n > 2*saidASecond { // a second has parts of two
				t.Fatalf("%d are said in a second", n)
			}
			if time.Since(start) > 2*time.Minute {
				t.Fatalf("%d of %d are said after two minutes", m.logoutsIn(), logouts)
			}
		}
	})
}

func TestAGenerationOfAnotherNodeMakesLogoutsSaid(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		m := &memoryLog{}
		here := node(m, 0)
		pass(5 * time.Second)
		mustLogOut(t, here, sessionEnd("s"))
		pass(2 * time.Second)
		m.mu.Lock()
		m.records = m.records[len(m.records)-1:]
		m.mu.Unlock()
		_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{KCID: "x"})))
		pass(time.Second)
		m.mu.Lock()
		m.records = m.records[1:]
		m.mu.Unlock()
		there := node(m, 0) // finds no generation
		pass(resayDelay + 2*time.Second)
		if !there.LoggedOut(testIssuer, "s", "", time.Now()) {
			t.Error("a node that begins a generation is not told of the logouts")
		}
	})
}

func TestAdoptCarriesLogoutsOver(t *testing.T) {
	clock := newTestClock()
	old := newTestStore(t, Config{Now: clock.now})
	at, until := testTime, testTime.Add(time.Hour)
	for _, logout := range []Logout{{testIssuer, "s", "alice", at, until}, {"https://other", "", "bob", at, until}} {
		mustLogOut(t, old, logout)
	}
	s := newTestStore(t, Config{Now: clock.now})
	s.Adopt(old)
	s.Adopt(s)
	s.Adopt(nil)
	for what, got := range map[string]bool{
		"the session":              s.LoggedOut(testIssuer, "s", "alice", at),
		"the user":                 s.LoggedOut("https://other", "t", "bob", at),
		"nobody else's session":    !s.LoggedOut(testIssuer, "t", "alice", at),
		"not the user, later":      !s.LoggedOut("https://other", "t", "bob", at.Add(time.Second)),
		"not of another's session": !s.LoggedOut("https://other", "s", "carol", at),
	} {
		if !got {
			t.Errorf("%s: wrong", what)
		}
	}
	clock.advance(time.Hour)
	if s.LoggedOut(testIssuer, "s", "alice", at) {
		t.Error("it lasts longer than it did")
	}
}

// A reload with other settings, such as the right password, makes another store. What
// the former one could not send must not be lost with it.
func TestAdoptCarriesWaitingFlushesOver(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	old, there := sharing(t, f, clock.now), sharing(t, f, clock.now)
	m, want := alice()
	there.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	f.answer("-NOPERM no permission", "XADD")
	if _, err := old.Flush(t.Context(), Scope{Tenant: want.Tenant}, nil); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	s := sharing(t, f, clock.now)
	s.Adopt(old)
	if err := old.Destruct(); err != nil {
		t.Fatal(err)
	}
	if entry, _, _ := s.Begin("k", want, nil).Get(t.Context()); entry != nil {
		t.Error("the store that comes after serves who was flushed")
	}
	f.answer("", "XADD")
	eventually(t, "the other node learns of the flush", func() bool {
		_, result := there.Memory("k", want)
		return result == Fenced
	})
}

func TestALogoutThatWaitsIsNoSuccessWhenRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		m := &memoryLog{}
		s := node(m, 0)
		pass(5 * time.Second)
		m.fail(errTest)
		logout := sessionEnd("s")
		logout.Sub = "alice"
		if news, err := s.Logout(t.Context(), logout, nil); !news || !errors.Is(err, ErrUnavailable) {
			t.Errorf("news %t, error %v", news, err)
		}
		for range 2 {
			if news, err := s.Logout(t.Context(), logout, nil); news || !errors.Is(err, ErrUnavailable) {
				t.Errorf("repeated: news %t, error %v", news, err)
			}
		}
		m.fail(nil)
		pass(5 * time.Second)
		if news, err := s.Logout(t.Context(), logout, nil); news || err != nil {
			t.Errorf("repeated when the log has it: news %t, error %v", news, err)
		}
		s.logouts.resay(tombstone{issuer: testIssuer, sid: "s"})
		if news, err := s.Logout(t.Context(), logout, nil); news || !errors.Is(err, ErrUnavailable) {
			t.Errorf("repeated when the log has lost it: news %t, error %v", news, err)
		}
	})
}

func TestALaterLogoutIsNotTakenForTheOneInTheLog(t *testing.T) {
	l, now := newLogouts(10), time.Now()
	user := tombstone{testIssuer, "", "alice", now.Unix() - 10, now.Unix() + 3600}
	if !l.learn(user, 1, now) || l.learn(user, 2, now) {
		t.Error("what is news is not told from what is not")
	}
	l.missing()
	if l.isUnsaid(user) {
		t.Error("what stands in the log is to be said again")
	}
	later := user
	later.issuedAt += 5
	if !l.add(later, now) {
		t.Error("a later one is no news")
	}
	if l.learn(user, 3, now) {
		t.Error("the earlier one is news after the later")
	}
	l.missing()
	if ones := l.unsaidOnes(10, now); len(ones) != 1 || ones[0] != later {
		t.Errorf("to be said again: %+v", ones)
	}
}
