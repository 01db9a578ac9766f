package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const testLogKey = "kca:3:log"

// nodesOf returns stores that share a server, each having read its log.
func nodesOf(t *testing.T, server *redisServer, n int, change ...func(*Config)) []*Store {
	t.Helper()
	nodes := make([]*Store, n)
	for i := range nodes {
		cfg := Config{URL: server.url(), Timeout: time.Second}
		for _, c := range change {
			c(&cfg)
		}
		nodes[i] = newTestStore(t, cfg)
		inSync(t, server.client(), nodes[:i+1]...)
	}
	return nodes
}

// inSync waits until nodes have read all that stands in the log.
func inSync(t *testing.T, client *redis.Client, nodes ...*Store) {
	t.Helper()
	eventually(t, "the nodes have read the log", func() bool {
		last, err := client.XRevRangeN(t.Context(), testLogKey, "+", "-", 1).Result()
		if err != nil || len(last) == 0 {
			return false
		}
		for _, s := range nodes {
			h := s.log.head.Load()
			s.log.sent.mu.Lock()
			waiting := len(s.log.sent.items)
			s.log.sent.mu.Unlock()
			if h == nil || h.last.at.String() != last[0].ID || waiting > 0 {
				return false
			}
		}
		return true
	})
}

func generationsIn(t *testing.T, client *redis.Client) int {
	t.Helper()
	n := 0
	for _, m := range client.XRange(t.Context(), testLogKey, "-", "+").Val() {
		if m.Values[fieldKind] == kindGeneration {
			n++
		}
	}
	return n
}

// serves tells whether a node still has alice, in whatever level.
func serves(t *testing.T, s *Store) bool {
	t.Helper()
	_, want := alice()
	want.TTL = time.Hour
	if _, result := s.Memory("k", want); result == Hit {
		return true
	}
	entry, _, _ := s.Begin("k", want, nil).Get(t.Context())
	return entry != nil
}

func TestServerFlushReachesAllNodes(t *testing.T) {
	server := startRedis(t)
	nodes := nodesOf(t, server, 3)
	m, want := alice()
	var took []time.Duration
	for i := range 200 {
		for _, s := range nodes {
			s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		}
		start := time.Now()
		if _, err := nodes[i%3].Flush(t.Context(), Scope{Tenant: m.Tenant, KCID: m.KCID}, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all have heard of it", func() bool {
			return !slices.ContainsFunc(nodes, func(s *Store) bool { _, result := s.Memory("k", want); return result == Hit })
		})
		took = append(took, time.Since(start))
		inSync(t, server.client(), nodes...)
	}
	slices.Sort(took)
	t.Logf("p50 %v, p99 %v, most %v", took[100], took[198], took[199])
	if took[100] > 100*time.Millisecond {
		t.Errorf("half of the flushes take %v or more", took[100])
	}
	if n := generationsIn(t, server.client()); n != 1 {
		t.Errorf("%d generations", n)
	}
}

func TestServerThatLosesTheLog(t *testing.T) {
	m, want := alice()
	tests := map[string]struct {
		args []string
		lose func(t *testing.T, server *redisServer, client *redis.Client)
		same bool // nothing was lost after all
	}{
		"RI a restart without data": {nil, func(_ *testing.T, server *redisServer, _ *redis.Client) {
			server.kill()
			server.start()
		}, false},
		"RI a restart with data": {[]string{"--appendonly", "yes", "--appendfsync", "always"}, func(_ *testing.T, server *redisServer, _ *redis.Client) {
			server.kill()
			server.start()
		}, true},
		"eviction": {nil, func(t *testing.T, _ *redisServer, client *redis.Client) {
			client.Del(t.Context(), testLogKey)
		}, false},
		"trimming": {nil, func(t *testing.T, _ *redisServer, client *redis.Client) {
			client.XTrimMaxLen(t.Context(), testLogKey, 0)
		}, false},
		"a failover that loses the last event": {nil, func(t *testing.T, _ *redisServer, client *redis.Client) {
			last := client.XRevRangeN(t.Context(), testLogKey, "+", "-", 1).Val()
			client.XDel(t.Context(), testLogKey, last[0].ID)
		}, false},
		"a value of another type in its place": {nil, func(t *testing.T, _ *redisServer, client *redis.Client) {
			client.Set(t.Context(), testLogKey, "rubbish", 0)
		}, false},
		"an id that another event has now": {nil, func(t *testing.T, _ *redisServer, client *redis.Client) {
			last := client.XRevRangeN(t.Context(), testLogKey, "+", "-", 1).Val()
			first := client.XRangeN(t.Context(), testLogKey, "-", "+", 1).Val()
			pipe := client.TxPipeline()
			pipe.Del(t.Context(), testLogKey)
			pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: testLogKey, ID: first[0].ID, Values: first[0].Values})
			pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: testLogKey, ID: last[0].ID, Values: lineOf(flushEvent(Scope{KCID: "x"}))})
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := startRedis(t, append(test.args, "--dir", t.TempDir())...)
			client := server.client()
			nodes := nodesOf(t, server, 2)
			now := time.Now()
			if _, err := nodes[0].Logout(t.Context(), Logout{testIssuer, "s", "bob", now, now.Add(time.Hour)}, nil); err != nil {
				t.Fatal(err)
			}
			nodes[0].Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
			before := client.Get(t.Context(), "k").Val()
			if _, err := nodes[0].Flush(t.Context(), Scope{Tenant: m.Tenant}, nil); err != nil { // this is lost, if anything
				t.Fatal(err)
			}
			inSync(t, client, nodes...)
			generation := nodes[0].Stats().Log.Generation

			test.lose(t, server, client)
			eventually(t, "both nodes agree on a generation", func() bool {
				a, b := nodes[0].Stats().Log, nodes[1].Stats().Log
				return a.Generation != "" && a.Generation == b.Generation && (a.Generation == generation) == test.same
			})
			inSync(t, client, nodes...)
			// what was flushed comes back with the rest
			client.Set(t.Context(), "k", before, 0)
			late := nodesOf(t, server, 1)[0]
			for i, s := range append(nodes, late) {
				if serves(t, s) {
					t.Errorf("node %d serves what was flushed", i)
				}
				if !s.LoggedOut(testIssuer, "s", "bob", now) {
					t.Errorf("node %d has forgotten the logout", i)
				}
			}
			pass(2 * waitFor)
			if n := generationsIn(t, client); n > 3 {
				t.Errorf("%d generations: the nodes do not agree", n)
			}
			nodes[0].Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
			if entry, level, _ := late.Begin("k", want, nil).Get(t.Context()); level != Redis {
				t.Errorf("afterwards there is %v from %s", entry, level)
			}
		})
	}
}

func TestServerThatIsDownDuringAFlush(t *testing.T) {
	server := startRedis(t)
	nodes := nodesOf(t, server, 2)
	m, want := alice()
	nodes[1].Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
	server.signal(syscall.SIGSTOP)
	start := time.Now()
	flushed, err := nodes[0].Flush(t.Context(), Scope{KCID: m.KCID}, nil)
	if took := time.Since(start); !errors.Is(err, ErrUnavailable) || flushed.Shared != SharedPending || took > 3*time.Second {
		t.Errorf("%+v, error %v, after %v", flushed, err, took)
	}
	if n := nodes[0].Stats().Log.Pending; n != 1 {
		t.Errorf("%d events are pending", n)
	}
	server.signal(syscall.SIGCONT)
	eventually(t, "the other node learns of it", func() bool { return !serves(t, nodes[1]) })
	inSync(t, server.client(), nodes...)
	if serves(t, nodes[0]) {
		t.Error("this node still has her")
	}
}

func TestServerThatFreezesLeavesNodesBlindForAWhile(t *testing.T) {
	server := startRedis(t)
	const blind = 2 * time.Second
	s := nodesOf(t, server, 1, func(c *Config) { c.MaxBlind = blind })[0]
	m, want := alice()
	s.Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
	server.signal(syscall.SIGSTOP)
	start := time.Now()
	eventually(t, "it is blind", func() bool { _, result := s.Memory("k", want); return result == Blind })
	if took := time.Since(start); took > blind+time.Second || took < blind-time.Second {
		t.Errorf("that took %v", took)
	}
	server.signal(syscall.SIGCONT)
	eventually(t, "it sees again", func() bool { _, result := s.Memory("k", want); return result == Hit })
}

func TestServerSeesNodesWithOtherClocks(t *testing.T) {
	server := startRedis(t)
	shifted := func(d time.Duration) func(*Config) {
		return func(c *Config) { c.Now = func() time.Time { return time.Now().Add(d) } }
	}
	behind := nodesOf(t, server, 1, shifted(-10*time.Minute))[0]
	ahead := nodesOf(t, server, 1, shifted(10*time.Minute))[0]
	m, want := alice()
	want.TTL = 2 * time.Hour
	for i, pair := range [][2]*Store{{behind, ahead}, {ahead, behind}} {
		writer, flusher := pair[0], pair[1]
		writer.Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
		if _, err := flusher.Flush(t.Context(), Scope{Tenant: m.Tenant}, nil); err != nil {
			t.Fatal(err)
		}
		inSync(t, server.client(), behind, ahead)
		for _, s := range pair {
			if serves(t, s) {
				t.Errorf("%d: a node serves what was flushed", i)
			}
		}
	}
	behind.Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
	if _, level, _ := ahead.Begin("k", want, nil).Get(t.Context()); level != Redis {
		t.Errorf("what was loaded afterwards is not used: %s", level)
	}
}

func TestServerTrimsTheLog(t *testing.T) {
	server := startRedis(t, "--stream-node-max-entries", "10")
	s := nodesOf(t, server, 1, func(c *Config) { c.LogLength = 50 })[0]
	for range 300 {
		if _, err := s.Flush(t.Context(), Scope{KCID: "x"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	inSync(t, server.client(), s)
	if n := server.client().XLen(t.Context(), testLogKey).Val(); n > 100 {
		t.Errorf("the log has %d events", n)
	}
	// The event that began the generation is gone, so a node that starts now
	// cannot know it; one that follows need not care.
	late := nodesOf(t, server, 1)[0]
	inSync(t, server.client(), s, late)
	if a, b := s.Stats().Log.Generation, late.Stats().Log.Generation; a != b || a == "" {
		t.Errorf("generations %q and %q", a, b)
	}
}

func TestServerFollowsFlushesOfOtherPrograms(t *testing.T) {
	server := startRedis(t)
	s := nodesOf(t, server, 1)[0]
	m, want := alice()
	for name, scope := range aliceScopes() {
		s.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
		e := event{kind: kindFlush, scope: scope}
		args := []any{"XADD", testLogKey, "MAXLEN", "~", "100000", "*"}
		for _, field := range e.fields() {
			args = append(args, field)
		}
		if err := server.client().Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is flushed by "+name, func() bool { return !serves(t, s) })
	}
}

func TestDestructDoesNotWaitForAFrozenServer(t *testing.T) {
	server := startRedis(t)
	s := nodesOf(t, server, 1)[0]
	server.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	<-ctx.Done() // the tail waits for an answer now
	start := time.Now()
	if err := s.Destruct(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("that took %v", took)
	}
	server.signal(syscall.SIGCONT)
	if _, err := s.Flush(t.Context(), Scope{All: true}, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a flush after the end: %v", err)
	}
	for i := range 3 {
		if first, err := s.Claim(t.Context(), "owner", fmt.Sprint(i), time.Minute, nil); !first || !errors.Is(err, ErrUnavailable) {
			t.Errorf("a claim after the end: %t, %v", first, err)
		}
	}
}
