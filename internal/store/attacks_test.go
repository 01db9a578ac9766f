package store

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowProxy answers for a server after a delay, and once it is mute not at all.
func slowProxy(t *testing.T, server string, delay time.Duration, mute *atomic.Bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			behind, err := net.Dial("tcp", server)
			if err != nil {
				_ = conn.Close()
				continue
			}
			t.Cleanup(func() { _ = behind.Close() })
			serving.Go(func() { _, _ = io.Copy(behind, conn) })
			serving.Go(func() {
				buffer := make([]byte, 4096)
				for {
					n, err := behind.Read(buffer)
					if err != nil {
						return
					}
					pass(delay)
					if mute.Load() {
						continue
					}
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(serving.Wait) // after the connections, which are closed before
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestSlowRedisCostsNoMoreThanItsBudget(t *testing.T) {
	tests := map[string]struct {
		delay time.Duration
		mute  bool
		hits  bool
	}{
		"RD-011 latency of 20 ms":  {20 * time.Millisecond, false, true},
		"RD-011 latency of 100 ms": {100 * time.Millisecond, false, false},
		"RD-011 latency of 500 ms": {500 * time.Millisecond, false, false},
		"RD-013 no answer, ever":   {0, true, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFakeRedis(t)
			budget := DefaultTimeout
			if test.hits {
				budget = time.Second // the machine may be busy
			}
			var mute atomic.Bool
			s, err := New(Config{URL: "redis://" + slowProxy(t, f.listener.Addr().String(), test.delay, &mute), Timeout: budget})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Destruct() })
			eventually(t, "the log is read", func() bool { return followed(s) })
			mute.Store(test.mute)
			w := &witness{}
			m, want := alice()
			const rounds = 50
			start := time.Now()
			for i := range rounds {
				l := s.Begin(fmt.Sprint("k", i), want, w)
				if entry, _, _ := l.Get(t.Context()); entry != nil {
					t.Errorf("got %v", entry)
				}
				if entry := l.Put(t.Context(), m, time.Minute, 0); entry.Member.ID != m.ID {
					t.Fatal("the resolver's answer was lost")
				}
				if test.hits && i == 2 {
					break
				}
			}
			took := time.Since(start)
			if !test.hits && took > rounds*DefaultTimeout/2 { // most of them find the breaker open
				t.Errorf("%d look-ups took %v", rounds, took)
			}
			if len(w.ops) == 0 {
				t.Error("the case is not what it should be: Redis was not asked")
			}
			if test.hits {
				w.expect(t, "states", &w.states)
			} else {
				w.expect(t, "states", &w.states, "down")
			}
			if open := s.redis.client.PoolStats().TotalConns; open > 20 {
				t.Errorf("%d connections", open)
			}
		})
	}
}

func TestFlushWhileRedisIsDown(t *testing.T) {
	server := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	dir := t.TempDir()
	server.kill()
	server.args = append(server.args, "--dir", dir)
	server.start()
	cfg := Config{URL: server.url(), Timeout: time.Second}
	here, there := newTestStore(t, cfg), newTestStore(t, cfg)
	eventually(t, "both follow the log", func() bool { return followed(here) && followed(there) })
	m, want := alice()
	here.Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
	there.Begin("k", want, nil).Get(t.Context())
	eventually(t, "both have her", func() bool { _, result := there.Memory("k", want); return result == Hit })

	server.kill()
	t.Run("IV-005", func(t *testing.T) {
		flushed, err := here.Flush(t.Context(), Scope{Tenant: m.Tenant, KCID: m.KCID}, nil)
		if err == nil || !flushed.Node || flushed.Shared != SharedPending {
			t.Errorf("flush: %+v, %v", flushed, err)
		}
		if _, result := here.Memory("k", want); result != Fenced {
			t.Errorf("memory: %s", result)
		}
	})
	server.start()
	t.Run("IV-006 IV-007", func(t *testing.T) {
		if n := server.client().Exists(t.Context(), "k").Val(); n != 1 {
			t.Error("the case is not what it should be: Redis has lost her")
		}
		eventually(t, "the flush is sent", func() bool {
			if entry, _, _ := here.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Fatalf("the node that flushed has her from Redis")
			}
			return here.Stats().Log.Pending == 0
		})
		eventually(t, "the other node follows", func() bool { _, result := there.Memory("k", want); return result != Hit })
		late := newTestStore(t, cfg)
		eventually(t, "a new node follows", func() bool { return followed(late) })
		for name, s := range map[string]*Store{"here": here, "there": there, "late": late} {
			if entry, _, _ := s.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Errorf("%s: %v", name, entry)
			}
		}
	})
}

func TestLogoutWhileLoading(t *testing.T) {
	t.Run("IV-015", func(t *testing.T) {
		s := newTestStore(t, Config{})
		m, want := alice()
		l := s.Begin("k", want, nil)
		now := time.Now()
		logout := Logout{Issuer: testIssuer, Sub: m.KCID, IssuedAt: now, Until: now.Add(time.Hour)}
		if _, err := s.Logout(t.Context(), logout, nil); err != nil {
			t.Fatal(err)
		}
		l.Put(t.Context(), m, time.Minute, time.Hour)
		if _, result := s.Memory("k", want); result == Hit {
			t.Error("what was loaded before is stored after")
		}
	})
}

func TestNothingIsStoredWithoutALife(t *testing.T) {
	for _, life := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint("IV-016 ", life), func(t *testing.T) {
			f := newFakeRedis(t)
			s := sharing(t, f, nil)
			m, want := alice()
			want.TTL, want.Stale = life, time.Hour
			l := s.Begin("k", want, nil)
			l.Get(t.Context())
			l.Put(t.Context(), m, life, 0)
			if n := f.count("SET") + s.Stats().Entries; n != 0 {
				t.Errorf("stored %d times", n)
			}
		})
	}
}

func TestForeignFlushesWithoutEnd(t *testing.T) {
	t.Run("IV-011 RD-018", func(t *testing.T) {
		f := newFakeRedis(t)
		s := sharing(t, f, nil)
		m, want := alice()
		for range 5000 {
			f.appended("kind", "flush", "scope", "all")
		}
		caughtUp(t, f, s)
		s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		if _, result := s.Memory("k", want); result != Hit {
			t.Errorf("what is loaded afterwards is %s", result)
		}
		if n := f.count("UNLINK") + f.count("XADD"); n > 0 {
			t.Errorf("it has written %d times", n)
		}
	})
}

func TestOthersKeysAreNotOurs(t *testing.T) {
	t.Run("CI-024", func(t *testing.T) {
		seen := map[string]bool{}
		for _, prefix := range []string{"", "app", "kca2"} {
			for _, namespace := range []string{"a", "b", Namespace("a"), Namespace("b")} {
				keys, err := NewKeys(prefix, namespace)
				if err != nil {
					t.Fatal(err)
				}
				seen[keys.Member("acme", testIssuer, "u")] = true
			}
		}
		if len(seen) != 12 {
			t.Errorf("%d keys for 12 sites", len(seen))
		}
	})
}
