package store

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestOneRealmDoesNotEraseTheLogoutsOfOthers(t *testing.T) {
	const limit = 1000
	clock := newTestClock()
	s, w := newTestStore(t, Config{Now: clock.now, MaxLogouts: limit}), &witness{}
	mustLogOut(t, s, Logout{testIssuer, "victim", "", testTime, testTime.Add(time.Hour)})
	for i := range 3 * limit { // they end later
		logout := Logout{"https://kc/realms/evil", fmt.Sprint(i), "", testTime, testTime.Add(2 * time.Hour)}
		if _, err := s.Logout(t.Context(), logout, w); err != nil {
			t.Fatal(err)
		}
	}
	if !s.LoggedOut(testIssuer, "victim", "alice", testTime) {
		t.Error("another realm has logged her in again")
	}
	stats := s.Stats()
	if stats.Logouts > limit || stats.Logouts < limit*8/10 {
		t.Errorf("%d are remembered", stats.Logouts)
	}
	if want := uint64(3*limit + 1 - stats.Logouts); stats.LogoutsEvicted != want || w.news.Evicted != int(want) {
		t.Errorf("%d were evicted, %d are counted, %d told", want, stats.LogoutsEvicted, w.news.Evicted)
	}
}

func TestIssuersOfLogoutsAreBounded(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now})
	for i := range 3 {
		mustLogOut(t, s, Logout{testIssuer, fmt.Sprint(i), "", testTime, testTime.Add(time.Hour)})
	}
	for i := range maxLogoutIssuers + 10 {
		s.logouts.add(tombstone{fmt.Sprint("https://evil/", i), "s", "", testTime.Unix(), testTime.Add(time.Hour).Unix()}, testTime)
	}
	if n := len(s.logouts.shares); n != maxLogoutIssuers {
		t.Errorf("%d issuers", n)
	}
	for i := range 3 {
		if !s.LoggedOut(testIssuer, fmt.Sprint(i), "", testTime) {
			t.Errorf("logout %d is forgotten", i)
		}
	}
}

func TestLogoutsOfWhoWritesToRedisAreClamped(t *testing.T) {
	const forever = maxUnix
	f, clock := newFakeRedis(t), newTestClock()
	now := testTime.Unix()
	life := int64(DefaultMaxLogoutLife / time.Second)
	s, w := sharing(t, f, clock.now), &witness{}
	write := func(sid string, iat, until int64) {
		f.appended("kind", "logout", "issuer", testIssuer, "sid", sid, "iat", fmt.Sprint(iat), "until", fmt.Sprint(until))
	}
	write("for ever", now, forever)
	write("in the past", now-20, now-10)
	write("from now on", now+int64(maxLogoutLead/time.Second), now+3600)
	write("from later on", now+int64(maxLogoutLead/time.Second)+1, now+3600)
	caughtUp(t, f, s)
	late := sharing(t, f, clock.now)
	caughtUp(t, f, late)
	for name, node := range map[string]*Store{"the node": s, "one that starts later": late} {
		for sid, want := range map[string]bool{"for ever": true, "in the past": false, "from now on": true, "from later on": false} {
			if got := node.LoggedOut(testIssuer, sid, "", testTime); got != want {
				t.Errorf("%s: %s is logged out: %t", name, sid, got)
			}
		}
		if n := node.Stats().Logouts; n != 2 {
			t.Errorf("%s remembers %d", name, n)
		}
	}
	s.tell(w)
	if w.news.Malformed != 1 {
		t.Errorf("%d malformed events are told of, want the one from the future", w.news.Malformed)
	}
	clock.advance(time.Duration(life)*time.Second - 1)
	if !s.LoggedOut(testIssuer, "for ever", "", testTime) {
		t.Error("it ends too early")
	}
	clock.advance(1)
	if s.LoggedOut(testIssuer, "for ever", "", testTime) {
		t.Error("it lasts for ever")
	}
}

func TestLogoutsOfThisNodeAreClamped(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now, MaxLogoutLife: time.Hour})
	mustLogOut(t, s, Logout{testIssuer, "s", "", testTime, testTime.Add(24 * time.Hour)})
	clock.advance(time.Hour)
	if s.LoggedOut(testIssuer, "s", "", testTime) {
		t.Error("it lasts longer than other nodes let it")
	}
	ahead := Logout{testIssuer, "t", "", clock.now().Add(maxLogoutLead + time.Second), clock.now().Add(time.Hour)}
	if news, err := s.Logout(t.Context(), ahead, nil); news || err != ErrLogout { //nolint:errorlint // it is what it is
		t.Errorf("from the future: news %t, error %v", news, err)
	}
}

func TestWhoWritesToRedisDoesNotEraseLogouts(t *testing.T) {
	inBubble(t, func(t *testing.T, node func(logClient, int64) *Store) {
		m := &memoryLog{}
		s := node(m, 0)
		s.logouts.max = 1000
		pass(5 * time.Second)
		mustLogOut(t, s, sessionEnd("s"))
		for i := range 3000 {
			_, _ = m.append(t.Context(), []string{
				"kind", "logout", "issuer", "x", "sid", fmt.Sprint(i), "iat", "1", "until", fmt.Sprint(int64(maxUnix)),
			})
		}
		pass(time.Minute)
		if !s.LoggedOut(testIssuer, "s", "alice", time.Now()) {
			t.Error("she is logged in again")
		}
		if n := s.Stats().Logouts; n > 1000 {
			t.Errorf("%d are remembered", n)
		}
	})
}

func TestIDsArePackedExactly(t *testing.T) {
	const uuid = "0f9a8b7c-1234-4cde-8f01-abcdefabcdef"
	raw := string(packID(nil, kindSession, uuid)[1:])
	ids := []string{
		"", "s", "S", uuid, raw, "S" + raw, "s" + raw, strings.ToUpper(uuid), "{" + uuid + "}",
		strings.ReplaceAll(uuid, "-", ""), "0f9a8b7c+1234-4cde-8f01-abcdefabcdef", "0f9a8b7c-1234-4cde-8f01-abcdefabcdeg",
		"0f9a8b7c-12345-cde-8f01-abcdefabcdef", "Zh3SBNtUnjVgXfsmGsx3lOpM",
	}
	keys := map[string]string{}
	for _, kind := range []byte{kindSession, kindUser} {
		for _, id := range ids {
			key := string(packID(nil, kind, id))
			if other, taken := keys[key]; taken {
				t.Errorf("%q has the key of %q", id, other)
			}
			keys[key] = id
			if gotKind, got := unpackID(key); gotKind != kind || got != id {
				t.Errorf("%q comes back as %q", id, got)
			}
		}
	}
	if n := len(packID(nil, kindUser, uuid)); n != 17 {
		t.Errorf("a UUID takes %d bytes", n)
	}
}

func TestALogoutTakesLittleMemory(t *testing.T) {
	const count = 1 << 17
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	l := newLogouts(2 * count)
	before := heap()
	for i := range count {
		sid := fmt.Sprintf("%08x-1234-4cde-8f01-abcdefabcdef", i)
		l.add(tombstone{testIssuer, sid, "alice", testTime.Unix(), testTime.Unix() + 3600}, testTime)
	}
	each := float64(heap()-before) / count
	t.Logf("%.0f bytes", each)
	if l.len() != count || each > 130 {
		t.Errorf("%d logouts take %.0f bytes each", l.len(), each)
	}
	runtime.KeepAlive(l)
}

func BenchmarkLogoutEviction(b *testing.B) {
	const count = 1_000_000
	l := newLogouts(count)
	for i := range count {
		sid := fmt.Sprintf("%08x-1234-4cde-8f01-abcdefabcdef", i)
		l.add(tombstone{testIssuer, sid, "", testTime.Unix(), testTime.Unix() + int64(i)%86400 + 1}, testTime)
	}
	b.ResetTimer()
	for range b.N {
		l.mu.Lock()
		l.makeRoom(testIssuer)
		l.mu.Unlock()
		b.StopTimer()
		for i := 0; l.len() < count; i++ {
			sid := fmt.Sprintf("%08x-1234-4cde-8f01-abcdefabcde0", i)
			l.add(tombstone{testIssuer, sid, "", testTime.Unix(), testTime.Unix() + int64(i)%86400 + 1}, testTime)
		}
		b.StartTimer()
	}
}

func TestAdoptedLogoutsAreClampedToo(t *testing.T) {
	clock, fast := newTestClock(), newTestClock()
	fast.advance(time.Hour)
	other := newTestStore(t, Config{Now: fast.now})
	mustLogOut(t, other, Logout{testIssuer, "s", "", fast.now(), fast.now().Add(time.Hour)})
	s := newTestStore(t, Config{Now: clock.now})
	s.Adopt(other)
	if n := s.Stats().Logouts; n != 0 {
		t.Error("a logout from the future is adopted")
	}
}

func TestTheLogIsLongEnoughForItsLogouts(t *testing.T) {
	const logouts = 100
	f, clock := newFakeRedis(t), newTestClock()
	s := newTestStore(t, Config{URL: f.url(), Now: clock.now, LogLength: 300, Timeout: 5 * time.Second})
	caughtUp(t, f, s)
	var lengths []string
	f.on(func(args []string) {
		if args[0] == "XADD" {
			lengths = append(lengths, args[4])
		}
	})
	for i := range logouts {
		mustLogOut(t, s, Logout{testIssuer, fmt.Sprint(i), "", testTime, testTime.Add(time.Hour)})
	}
	f.on(nil)
	if first, last := lengths[0], lengths[len(lengths)-1]; first != "300" || last != fmt.Sprint(perLogout*logouts) {
		t.Errorf("it is kept to %s events, then to %s", first, last)
	}
}
