package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLogoutRefusesTokens(t *testing.T) {
	at := testTime
	until := at.Add(time.Hour)
	type tokenOf struct {
		issuer, sid, sub string
		issuedAt         time.Time
	}
	tests := map[string]struct {
		logout Logout
		token  tokenOf
		after  time.Duration
		want   bool
	}{
		"of the session": {
			Logout{testIssuer, "s1", "", at, until}, tokenOf{testIssuer, "s1", "alice", at}, 0, true,
		},
		"of the session, renewed later": {
			Logout{testIssuer, "s1", "", at, until}, tokenOf{testIssuer, "s1", "alice", at.Add(time.Minute)}, 0, true,
		},
		"of the session, though the user came as well": {
			Logout{testIssuer, "s1", "alice", at, until}, tokenOf{testIssuer, "s1", "alice", at.Add(time.Minute)}, 0, true,
		},
		"not of another session": {
			Logout{testIssuer, "s1", "", at, until}, tokenOf{testIssuer, "s2", "alice", at}, 0, false,
		},
		"not of another issuer's session": {
			Logout{testIssuer, "s1", "", at, until}, tokenOf{"https://other", "s1", "alice", at}, 0, false,
		},
		"BL sid wins: a new login in the same second passes": {
			Logout{testIssuer, "s1", "alice", at, until}, tokenOf{testIssuer, "s2", "alice", at}, 0, false,
		},
		"BL sid wins: an older session passes": {
			Logout{testIssuer, "s1", "alice", at, until}, tokenOf{testIssuer, "s0", "alice", at.Add(-time.Minute)}, 0, false,
		},
		"of the user, issued before": {
			Logout{testIssuer, "", "alice", at, until}, tokenOf{testIssuer, "s1", "alice", at.Add(-time.Minute)}, 0, true,
		},
		"of the user, issued in the same second": {
			Logout{testIssuer, "", "alice", at, until}, tokenOf{testIssuer, "s1", "alice", at.Add(900 * time.Millisecond)}, 0, true,
		},
		"not of the user, issued after": {
			Logout{testIssuer, "", "alice", at, until}, tokenOf{testIssuer, "s1", "alice", at.Add(time.Second)}, 0, false,
		},
		"of the user, without any time": {
			Logout{testIssuer, "", "alice", at, until}, tokenOf{testIssuer, "", "alice", time.Time{}}, 0, true,
		},
		"not of a user whose name is the session's": {
			Logout{testIssuer, "x", "", at, until}, tokenOf{testIssuer, "", "x", at}, 0, false,
		},
		"not of a session whose name is the user's": {
			Logout{testIssuer, "", "x", at, until}, tokenOf{testIssuer, "x", "bob", at}, 0, false,
		},
		"to the last second": {
			Logout{testIssuer, "s1", "", at, until}, tokenOf{testIssuer, "s1", "alice", at}, time.Hour - 1, true,
		},
		"no longer than they could live": {
			Logout{testIssuer, "s1", "", at, until}, tokenOf{testIssuer, "s1", "alice", at}, time.Hour, false,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, clock := newFakeRedis(t), newTestClock()
			here, there, alone := sharing(t, f, clock.now), sharing(t, f, clock.now), newTestStore(t, Config{Now: clock.now})
			for _, s := range []*Store{here, alone} {
				if news, err := s.Logout(t.Context(), test.logout, nil); err != nil || !news {
					t.Fatalf("news %t, error %v", news, err)
				}
			}
			caughtUp(t, f, here, there)
			late := sharing(t, f, clock.now) // as a node that was started afterwards
			clock.advance(test.after)
			for node, s := range map[string]*Store{"here": here, "there": there, "later": late, "without Redis": alone} {
				tok := test.token
				if got := s.LoggedOut(tok.issuer, tok.sid, tok.sub, tok.issuedAt); got != test.want {
					t.Errorf("%s: logged out %t", node, got)
				}
			}
		})
	}
}

func TestLogoutFlushesTheUserOnce(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	here, there := sharing(t, f, clock.now), sharing(t, f, clock.now)
	m, want := alice()
	logout := Logout{testIssuer, "s1", m.KCID, testTime, testTime.Add(time.Hour)}
	here.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	there.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	if news, err := here.Logout(t.Context(), logout, nil); err != nil || !news {
		t.Fatalf("news %t, error %v", news, err)
	}
	if _, result := here.Memory("k", want); result != Fenced {
		t.Errorf("here she is a %s", result)
	}
	caughtUp(t, f, here, there)
	if _, result := there.Memory("k", want); result != Fenced {
		t.Errorf("there she is a %s", result)
	}

	// BL replay: who says it again must not keep her out of the caches
	for _, s := range []*Store{here, there} {
		s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		events := len(f.ofKind(kindLogout))
		again := logout
		again.Until = again.Until.Add(time.Minute) // counted from when it came
		if news, err := s.Logout(t.Context(), again, nil); err != nil || news {
			t.Errorf("news %t, error %v", news, err)
		}
		if n := len(f.ofKind(kindLogout)); n != events {
			t.Error("a replay stands in the log")
		}
		if _, result := s.Memory("k", want); result != Hit {
			t.Errorf("a replay flushes her: %s", result)
		}
	}
	f.appended(lineOf(event{kind: kindLogout, logout: tombstone{testIssuer, "s1", m.KCID, testTime.Unix(), testTime.Add(time.Hour).Unix()}})...)
	caughtUp(t, f, here, there)
	if _, result := there.Memory("k", want); result != Hit {
		t.Errorf("a replay in the log flushes her: %s", result)
	}
	later := logout
	later.IssuedAt = later.IssuedAt.Add(time.Second)
	if news, _ := here.Logout(t.Context(), later, nil); !news {
		t.Error("a later logout is no news")
	}
}

func TestLogoutsOutliveTheLog(t *testing.T) {
	f := newFakeRedis(t)
	here, there := sharing(t, f, nil), sharing(t, f, nil)
	now := time.Now()
	for i := range 3 {
		if _, err := here.Logout(t.Context(), Logout{testIssuer, fmt.Sprint(i), "", now, now.Add(time.Hour)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	caughtUp(t, f, here, there)
	before := here.Stats().Log.Generation
	f.change(func([]fakeEvent) []fakeEvent { return nil })
	eventually(t, "all are said again", func() bool {
		sids := map[string]bool{}
		for _, e := range f.ofKind(kindLogout) {
			sids[fieldsOf(e.fields)[fieldSID]] = true
		}
		return len(sids) == 3
	})
	caughtUp(t, f, here, there)
	if here.Stats().Log.Generation == before {
		t.Error("the generation is the old one")
	}
	late := sharing(t, f, nil)
	for i := range 3 {
		if !late.LoggedOut(testIssuer, fmt.Sprint(i), "alice", now) {
			t.Errorf("a node that is started afterwards does not know of logout %d", i)
		}
	}
	if n := len(f.ofKind(kindLogout)); n > 2*3 {
		t.Errorf("they are said %d times", n)
	}
	if n := late.Stats().Logouts; n != 3 {
		t.Errorf("%d are remembered", n)
	}
}

func TestLogoutThatCannotBeSentHoldsHere(t *testing.T) {
	f := newFakeRedis(t)
	here, there := sharing(t, f, nil), sharing(t, f, nil)
	now := time.Now()
	f.answer("-OOM command not allowed when used memory > 'maxmemory'.", "XADD")
	news, err := here.Logout(t.Context(), Logout{testIssuer, "s", "", now, now.Add(time.Hour)}, nil)
	if !news || !errors.Is(err, ErrUnavailable) {
		t.Errorf("news %t, error %v", news, err)
	}
	if !here.LoggedOut(testIssuer, "s", "", now) {
		t.Error("it does not hold here")
	}
	f.answer("", "XADD")
	eventually(t, "the other node learns of it", func() bool { return there.LoggedOut(testIssuer, "s", "", now) })
}

func TestLogoutsThatAreNone(t *testing.T) {
	good := Logout{testIssuer, "s", "alice", testTime, testTime.Add(time.Hour)}
	for name, change := range map[string]func(*Logout){
		"no issuer":             func(l *Logout) { l.Issuer = "" },
		"neither sid nor sub":   func(l *Logout) { l.SID, l.Sub = "", "" },
		"no time":               func(l *Logout) { l.IssuedAt = time.Time{} },
		"no end":                func(l *Logout) { l.Until = time.Time{} },
		"a sid that is a text":  func(l *Logout) { l.SID = strings.Repeat("x", maxIDLength+1) },
		"a sub that is a text":  func(l *Logout) { l.Sub = strings.Repeat("x", maxIDLength+1) },
		"an end beyond reading": func(l *Logout) { l.Until = time.Unix(maxUnix+1, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			s, l := newTestStore(t, Config{}), good
			change(&l)
			if news, err := s.Logout(t.Context(), l, nil); news || !errors.Is(err, ErrLogout) {
				t.Errorf("news %t, error %v", news, err)
			}
			if n := s.Stats().Logouts; n != 0 {
				t.Errorf("%d are remembered", n)
			}
		})
	}
}

func TestLogoutsAreBounded(t *testing.T) {
	clock := newTestClock()
	s := newTestStore(t, Config{Now: clock.now, MaxLogouts: 100, MaxLogoutLife: 2001 * time.Minute})
	for i := range 1000 { // those that end last come first
		logout := Logout{testIssuer, fmt.Sprint(i), "", testTime, testTime.Add(time.Duration(2000-i) * time.Minute)}
		if _, err := s.Logout(t.Context(), logout, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Stats().Logouts; n > 100 || n < 80 {
		t.Errorf("%d are remembered", n)
	}
	for i := range 80 {
		if !s.LoggedOut(testIssuer, fmt.Sprint(i), "", testTime) {
			t.Fatalf("logout %d, which lasts longest, is forgotten", i)
		}
	}
	clock.advance(2001 * time.Minute)
	if _, err := s.Logout(t.Context(), Logout{testIssuer, "s", "", clock.now(), clock.now().Add(time.Hour)}, nil); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Logouts; n != 1 {
		t.Errorf("%d are remembered after all but one have ended", n)
	}
	for i := range s.logouts.filter {
		if n := s.logouts.filter[i].Load(); n < 0 || n > 1 {
			t.Fatalf("the filter counts %d", n)
		}
	}
}

func TestLoggedOutCostsNoAllocation(t *testing.T) {
	s := newTestStore(t, Config{})
	_, want := alice()
	now := time.Now()
	for _, logouts := range []string{"none", "some"} {
		if logouts == "some" {
			for _, l := range []Logout{{testIssuer, "s", "", now, now.Add(time.Hour)}, {testIssuer, "", "u", now, now.Add(time.Hour)}} {
				if _, err := s.Logout(t.Context(), l, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		n := testing.AllocsPerRun(1000, func() {
			if s.LoggedOut(testIssuer, "another", want.KCID, now) || s.LoggedOut(testIssuer, "s", "u", now) != (logouts == "some") {
				t.Error("wrong")
			}
		})
		if n > 0 {
			t.Errorf("%s: %v allocations", logouts, n)
		}
	}
}

func BenchmarkLoggedOut(b *testing.B) {
	for _, logouts := range []int{0, 1, 10000} {
		b.Run(fmt.Sprint(logouts), func(b *testing.B) {
			s := newTestStore(b, Config{})
			_, want := alice()
			now := time.Now()
			for i := range logouts {
				if _, err := s.Logout(b.Context(), Logout{testIssuer, fmt.Sprint(i), "", now, now.Add(time.Hour)}, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if s.LoggedOut(testIssuer, "another", want.KCID, now) {
						b.Error("logged out")
					}
				}
			})
		})
	}
}
